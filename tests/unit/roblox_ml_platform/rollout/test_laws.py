"""Experiments, canaries, shadows, layers and promotions in any order: what holds after every operation."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from roblox_ml_core.errors import Conflict, Invalid, NotFound
from roblox_ml_core.policy import SCALE, decide, read_policy
from roblox_ml_core.storage import BlobStore
from roblox_ml_platform import aliases, endpoints, registration, serving, versions
from roblox_ml_platform.database import Database
from roblox_ml_platform.rollout import canaries, experiments, layers, rollbacks, shadows, state, switches
from roblox_ml_platform.rollout.experiments import Arm, Wish
from roblox_ml_platform.rollout.refs import read

from ..conftest import make_body  # type: ignore[import-not-found,unused-ignore]

MARKS = ("a", "b", "c", "d")
NUMBERS = st.integers(1, len(MARKS))
REFS = st.sampled_from([None, "scale@champion", "scale@next", *(f"scale/{n}" for n in range(1, len(MARKS) + 1))])
NAMES, LAYERS, ENDPOINTS = (
    st.sampled_from(names) for names in (["e1", "e2", "e3"], ["l1", "l2"], ["follows", "pinned"])
)
ODD = {
    "inputs": [{"name": "x", "datatype": "INT64", "shape": [-1, 2]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
}
UNITS = [f"user-{number}" for number in range(60)]


class Rollouts(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        root = Path(self.folder.name)
        store = BlobStore(str(root / "store"))
        self.database = Database(f"sqlite:///{root}/state.db")
        self.database.migrate()
        for mark in MARKS:
            body = make_body(store, mark, alias="champion" if mark == "a" else "next" if mark == "b" else None)
            registration.register(self.database, store, registration.prepare("scale", body, store), "ann")
        odd = make_body(store, "odd", tensors=ODD)
        registration.register(self.database, store, registration.prepare("odd", odd, store), "ann")
        with self.database.write() as connection:
            endpoints.put(connection, "follows", endpoints.Target("scale", "champion", None), "ann")
            endpoints.put(connection, "pinned", endpoints.Target("scale", None, 2), "ann")
            for layer in ("l1", "l2"):
                layers.put(connection, layer, "user_id", "ann")
        self.rounds: dict[str, int] = {}
        self.salts: dict[
            tuple[str, str], list[str]
        ] = {}  # (kind, name) → those of each one that was there, the last is now's
        self.arms: dict[tuple[str, int], dict[str, str]] = {}  # (experiment, round) → unit → arm, once seen

    def teardown(self) -> None:
        self.database.close()
        self.folder.cleanup()

    def _try(self, what: Any, *args: Any, **more: Any) -> Any:
        """A refusal changes nothing: the transaction is undone, which the invariants see."""
        try:
            with self.database.write() as connection:
                return what(connection, *args, **more)
        except (Conflict, NotFound, Invalid):
            return None

    @rule(
        name=NAMES,
        endpoint=ENDPOINTS,
        layer=LAYERS,
        share=st.integers(1, SCALE),
        cut=st.integers(0, SCALE),
        control=REFS,
        new=REFS,
    )
    def experiment(self, name: str, endpoint: str, layer: str, share: int, cut: int, control: Any, new: Any) -> None:
        refs = [None if ref is None else read(ref) for ref in (control, new)]
        arms = (Arm("control", cut, refs[0], {}), Arm("new", SCALE - cut, refs[1], {"k": 1}))
        self._try(experiments.put, name, Wish(endpoint, layer, share, arms), "ann")

    @rule(name=NAMES, share=st.integers(1, SCALE))
    def grow(self, name: str, share: int) -> None:
        with self.database.read() as connection:
            known = [one for one in experiments.list_experiments(connection, running=True) if one["name"] == name]
        if known and share >= known[0]["share"]:
            one = known[0]
            arms = tuple(Arm(a["name"], a["weight"], a["ref"] and read(a["ref"]), a["params"]) for a in one["arms"])
            self._try(experiments.put, name, Wish(one["endpoint"], one["layer"], share, arms), "ann")

    @rule(name=NAMES, winner=st.sampled_from([None, "control", "new", "nobody"]))
    def stop(self, name: str, winner: str | None) -> None:
        self._try(experiments.stop, name, "ann", "enough", winner)

    @rule(endpoint=ENDPOINTS, version=NUMBERS, share=st.integers(1, SCALE))
    def canary(self, endpoint: str, version: int, share: int) -> None:
        self._try(canaries.start, endpoint, version, share, "ann")

    @rule(endpoint=ENDPOINTS, what=st.sampled_from([canaries.promote, rollbacks.roll_back, endpoints.delete_endpoint]))
    def end_of_something(self, endpoint: str, what: Any) -> None:
        if what is endpoints.delete_endpoint:  # refused while anything runs there; made again for the rules to come
            if self._try(what, endpoint, "ann") is not None:
                self._try(endpoints.put, endpoint, endpoints.Target("scale", "champion", None), "ann")
        else:
            self._try(what, endpoint, "ann")

    @rule(endpoint=ENDPOINTS, ref=REFS, share=st.integers(1, SCALE))
    def shadow(self, endpoint: str, ref: str | None, share: int) -> None:
        if ref is None:
            self._try(shadows.delete_shadow, endpoint, "s", "ann")
        else:
            self._try(shadows.put, endpoint, "s", read(ref), share, "ann")

    @rule(alias=st.sampled_from(["champion", "next"]), version=NUMBERS)
    def promote(self, alias: str, version: int) -> None:
        self._try(aliases.move, "scale", alias, version, actor="ann", reason="")

    @rule(endpoint=ENDPOINTS, model=st.sampled_from(["scale", "odd"]))
    def point_elsewhere(self, endpoint: str, model: str) -> None:
        """At a model with other tensors, whatever runs there: what does not fit must be left out until it fits again."""
        self._try(endpoints.put, endpoint, endpoints.Target(model, None, 1), "ann")

    @rule(version=NUMBERS)
    def delete_version(self, version: int) -> None:
        self._try(versions.delete_version, "scale", version, "ann")

    @rule(share=st.integers(0, 3000), off=st.booleans(), layer=LAYERS)
    def hold_out_and_kill(self, share: int, off: bool, layer: str) -> None:
        self._try(switches.put_holdout, "h", "user_id", share, [layer], "ann")
        self._try(switches.kill, {"canaries": off}, [], "ann")

    @rule(layer=LAYERS)
    def remake_layer(self, layer: str) -> None:
        if self._try(layers.delete_layer, layer, "ann") is not None:  # refused while anything runs in it
            self._try(layers.put, layer, "user_id", "ann")
            self.salts[("layers", layer)].append("")

    @rule()
    def end_holdout(self) -> None:
        with self.database.read() as connection:
            known = bool(switches.list_holdouts(connection))
        if known:
            self._try(switches.delete_holdout, "h", "ann")
            self.salts[("holdouts", "h")].append("")

    @invariant()
    def the_policy_reads_clean_and_everything_it_names_is_resident(self) -> None:
        with self.database.read() as connection:
            document = serving.snapshot(connection)
            resident = {f"{m['model']}/{m['version']}" for m in serving.desired(connection)["models"]}
            running = {one["name"]: one for one in experiments.list_experiments(connection, running=True)}
            odd = {e["name"] for e in endpoints.list_endpoints(connection) if e["model"] == "odd"}
            out = {one["what"] for name in document["policy"]["endpoints"] for one in state.misfits(connection, name)}
        policy = read_policy(document["policy"])
        assert policy.findings == () and policy.digest == document["digest"]
        fits = {name: one for name, one in running.items() if f"experiment {name}" not in out}
        assert set(policy.experiments) == set(fits)
        for name, one in running.items():
            assert (name in fits) == (one["endpoint"] not in odd or all(arm["ref"] is None for arm in one["arms"]))
        for entry in policy.endpoints.values():
            assert {ref.key for ref in entry.refs} <= resident
            assert len({ref.model for ref in entry.refs}) == 1, "an answer of another shape"
        self._nobody_is_moved(policy, fits)
        self._salts_stay_and_are_never_used_again(document["policy"])

    def _salts_stay_and_are_never_used_again(self, policy: Any) -> None:
        for kind in ("layers", "holdouts"):
            for name, entry in policy[kind].items():
                used = self.salts.setdefault(
                    (kind, name), [f"{kind[:-1]}/{name}"]
                )  # as it was before there were numbers
                used[-1] = used[-1] or entry["salt"]
                assert used[-1] == entry["salt"] and len(set(used)) == len(used)

    def _nobody_is_moved(self, policy: Any, running: dict[str, Any]) -> None:
        """Without holdouts a unit that was in an arm stays in it as long as the round runs."""
        if any(entry.holdouts for entry in policy.endpoints.values()):
            self.arms.clear()
            return
        for endpoint in policy.endpoints:
            for unit in UNITS:
                for name, arm in decide(policy, endpoint, unit).arms:
                    seen = self.arms.setdefault((name, running[name]["round"]), {})
                    assert seen.setdefault(unit, arm) == arm
        for (name, number), seen in self.arms.items():
            if name in running and running[name]["round"] == number:
                now = {u: dict(decide(policy, running[name]["endpoint"], u).arms).get(name) for u in seen}
                assert now == seen


Rollouts.TestCase.settings = settings(
    max_examples=12, stateful_step_count=25, deadline=None, phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)  # fmt: skip
TestRollouts = pytest.mark.timeout(300)(Rollouts.TestCase)
