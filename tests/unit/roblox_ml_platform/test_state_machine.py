"""Registration, promotion, rollback, deletion and endpoints in any order, against a model of a dozen lines."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from roblox_ml_core.errors import Conflict, NotFound
from roblox_ml_core.storage import BlobStore
from roblox_ml_platform import aliases, endpoints, registration, versions
from roblox_ml_platform.database import Database

from .conftest import make_body  # type: ignore[import-not-found,unused-ignore]

NAME = "scale"
ALIASES = st.sampled_from(["champion", "challenger"])
PACKAGES = st.sampled_from(["a", "b", "c", "d"])


class Registry(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        root = Path(self.folder.name)
        self.store = BlobStore(str(root / "store"))
        self.database = Database(f"sqlite:///{root}/state.db")
        self.database.migrate()
        self.next, self.packages = 1, {}  # the model: package -> living version
        self.pointing: dict[str, int] = {}
        self.stack: dict[str, list[int]] = {}
        self.generation: dict[str, int] = {}
        self.follows: str | None = None

    def teardown(self) -> None:
        self.database.close()
        self.folder.cleanup()

    def _moved(self, alias: str, version: int) -> None:
        if self.pointing.get(alias) != version:
            self.pointing[alias] = version
            self.stack.setdefault(alias, []).append(version)
            self.generation[alias] = self.generation.get(alias, 0) + 1

    @rule(mark=PACKAGES, alias=st.none() | ALIASES, passes=st.booleans())
    def register(self, mark: str, alias: str | None, passes: bool) -> None:
        body = make_body(
            self.store, mark, metrics={"f1": 1.0 if passes else 0.0}, gate={"f1": {"min": 0.5}}, alias=alias
        )
        answer = registration.register(self.database, self.store, registration.prepare(NAME, body, self.store), "ann")
        known = self.packages.get(mark)
        assert answer["created"] == (known is None)
        if known is None:
            known, self.packages[mark] = self.next, self.next
            self.next += 1
        assert answer["version"] == known
        if alias and passes:
            self._moved(alias, known)
        assert answer["alias"] is None or answer["alias"]["version"] == self.pointing.get(alias or "")

    @precondition(lambda self: self.packages)
    @rule(alias=ALIASES, data=st.data(), fresh=st.sampled_from([True, True, False]))
    def promote(self, alias: str, data: Any, fresh: bool) -> None:
        # Mostly versions that exist: a run of refusals would teach nothing.
        version = data.draw(st.sampled_from([*self.packages.values(), self.next]))
        expected = self.generation.get(alias, 0) - (0 if fresh else 1)
        with self.database.write() as connection:
            try:
                moved = aliases.move(
                    connection, NAME, alias, version, actor="ann", reason="", expected=max(expected, 0)
                )
            except NotFound:
                assert version not in self.packages.values()
                return
            except Conflict as conflict:
                assert max(expected, 0) != self.generation.get(alias, 0)
                assert conflict.details["version"] == self.pointing.get(alias)
                return
        assert max(expected, 0) == self.generation.get(alias, 0), "a promotion that came too late won"
        assert moved["moved"] == (self.pointing.get(alias) != version)
        self._moved(alias, version)

    @precondition(lambda self: self.pointing)
    @rule(alias=ALIASES)
    def roll_back(self, alias: str) -> None:
        living = set(self.packages.values())
        stack = self.stack.get(alias, [])
        back = next((i for i in reversed(range(len(stack) - 1)) if stack[i] in living and stack[i] != stack[-1]), None)
        with self.database.write() as connection:
            try:
                moved = aliases.rollback(connection, NAME, alias, actor="ann")
            except (Conflict, NotFound) as error:
                assert back is None
                assert isinstance(error, NotFound) == (alias not in self.pointing)
                return
        assert back is not None
        assert moved["version"] == stack[back]
        self.pointing[alias] = stack[back]
        # A rollback pops to the newest standing entry of that version.
        del stack[max(i for i in range(len(stack) - 1) if stack[i] == stack[back]) + 1 :]
        self.generation[alias] += 1

    @precondition(lambda self: self.packages)
    @rule(data=st.data())
    def delete(self, data: Any) -> None:
        version = data.draw(st.sampled_from(sorted(self.packages.values())))
        with self.database.write() as connection:
            try:
                versions.delete_version(connection, NAME, version, "ann")
            except Conflict:
                assert version in self.pointing.values()
                return
        assert version not in self.pointing.values()
        self.packages = {mark: living for mark, living in self.packages.items() if living != version}

    @rule(alias=ALIASES)
    def deploy(self, alias: str) -> None:
        with self.database.write() as connection:
            try:
                endpoints.put(connection, "e", endpoints.Target(NAME, alias, None), "ann")
            except NotFound:
                assert alias not in self.pointing
                return
        self.follows = alias

    @invariant()
    def the_registry_says_what_the_model_says(self) -> None:
        with self.database.read() as connection:
            living = sorted(self.packages.values(), reverse=True)
            listed = versions.list_versions(connection, NAME) if self.next > 1 else []
            assert [row["version"] for row in listed] == living
            for alias, version in self.pointing.items():
                found = aliases.get(connection, NAME, alias)
                assert (found["version"], found["generation"]) == (version, self.generation[alias])
                moves = aliases.history(connection, NAME, alias)
                assert [move["generation"] for move in moves] == list(range(self.generation[alias], 0, -1))
                assert moves[0]["to"] == version
                assert all(newer["from"] == older["to"] for newer, older in itertools.pairwise(moves))
            if self.follows is not None:
                endpoint = endpoints.describe(connection, "e")
                assert endpoint["version"] == self.pointing[self.follows]
                needed = {version for _, version in endpoints.needed_versions(connection)}
                assert endpoint["version"] in needed
                assert endpoint["previous"] is None or endpoint["previous"] in needed
                assert needed <= set(living)


# No shrinking: a failing run has at most 25 steps, and shortening it would take minutes.
Registry.TestCase.settings = settings(
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    max_examples=20,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestRegistry = pytest.mark.timeout(200)(Registry.TestCase)
