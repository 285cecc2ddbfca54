"""The outbox under random histories: events said again and late, senders that die, lose their lease, are refused.

The model knows only this: every event that an address asked for is told there at least once, nobody else is told anything, a
delivered one is never sent again, and a recovery is a success that follows a failure.
"""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from roblox_ml_core.settings import NotifySettings
from roblox_ml_platform.database import Database
from roblox_ml_platform.notifying import outbox, routing
from roblox_ml_platform.notifying import tables as t
from roblox_ml_platform.notifying.channels import Channels
from roblox_ml_platform.notifying.events import event, record
from roblox_ml_platform.notifying.outcome import Again, Delivered, Refused
from roblox_ml_platform.notifying.sending import Sending
from sqlalchemy import delete, select

NOTIFY = [
    {"kind": "slack", "target": "#a", "on": ["failure", "recovery"]},
    {"kind": "webhook", "target": "http://h/x", "on": ["failure", "success"]},
    {"kind": "email", "target": "a@b.org", "on": ["success", "recovery"]},
]
SETTINGS = NotifySettings()


class Outbox(RuleBasedStateMachine):
    database: Database

    def __init__(self) -> None:
        super().__init__()
        with self.database.write() as connection:
            for table in (t.deliveries, t.events, t.pipeline_states, t.subscriptions):
                connection.execute(delete(table))
        self.clock = 1_795_000_000.0
        self.patches = [
            patch(f"roblox_ml_platform.notifying.{name}.now", lambda: self.clock)
            for name in ("events", "outbox", "routing")
        ]
        for one in self.patches:
            one.start()
        self.runs: list[tuple[int, bool]] = []
        self.held: list[tuple[str, Sending]] = []
        self.sent: dict[tuple[str, str], int] = {}
        self.delivered: set[tuple[str, str]] = set()

    def teardown(self) -> None:
        for one in self.patches:
            one.stop()

    def _say(self, n: int, good: bool, at: float) -> bool:
        subject = {"run": f"r-{n}", "pipeline": "p", "execution": 1}
        with self.database.write() as connection:
            return record(connection, event("run.succeeded" if good else "run.failed", subject, notify=NOTIFY, at=at))

    @rule(good=st.booleans())
    def a_run_ends(self, good: bool) -> None:
        self.clock += 1
        assert self._say(len(self.runs), good, self.clock) is True
        self.runs.append((len(self.runs), good))

    @rule(data=st.data())
    def it_is_said_again(self, data: Any) -> None:
        if self.runs:
            n, good = data.draw(st.sampled_from(self.runs))
            assert self._say(n, good, self.clock) is False

    @rule()
    def events_are_routed(self) -> None:
        with self.database.write() as connection:
            while routing.route(connection, Channels({}), SETTINGS, self.clock):
                pass

    @rule(holder=st.sampled_from(["one", "two"]), limit=st.integers(1, 4))
    def somebody_claims(self, holder: str, limit: int) -> None:
        with self.database.write() as connection:
            taken = outbox.claim(connection, holder, limit, SETTINGS)
        assert len({one.address for one in taken}) == len(taken), "one at a time for an address"
        for one in taken:
            key = (one.event["id"], one.address)
            assert key not in self.delivered, "what is recorded as delivered is never sent again"
            self.sent[key] = self.sent.get(key, 0) + 1
            self.held.append((holder, one))

    @rule(data=st.data(), outcome=st.sampled_from([Delivered(), Again("busy", 7.0), Again("gone"), Refused("no")]))
    def somebody_settles(self, data: Any, outcome: Any) -> None:
        if self.held:
            holder, one = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
            with self.database.write() as connection:
                outbox.settle(connection, one, holder, outcome, SETTINGS)
            if isinstance(outcome, Delivered):
                self.delivered.add((one.event["id"], one.address))

    @rule()
    def everybody_is_killed(self) -> None:
        self.held.clear()

    @rule(seconds=st.sampled_from([1, 50, 400]))
    def time_passes(self, seconds: int) -> None:
        self.clock += seconds

    @invariant()
    def each_event_stands_once_for_each_address(self) -> None:
        with self.database.read() as connection:
            rows = connection.execute(select(t.deliveries.c.event, t.deliveries.c.address, t.deliveries.c.state)).all()
        keys = [(row.event, row.address) for row in rows]
        assert len(set(keys)) == len(keys)
        assert {(row.event, row.address) for row in rows if row.state == "delivered"} == self.delivered

    def drain(self) -> None:
        """In the end everybody is there again, and everything is told."""
        self.held.clear()
        self.clock += 1
        for _ in range(3):
            self.events_are_routed()
        for _ in range(400):
            self.clock += 400
            with self.database.write() as connection:
                taken = outbox.claim(connection, "last", 10, SETTINGS)
            for one in taken:
                self.sent[one.event["id"], one.address] = 1
                with self.database.write() as connection:
                    outbox.settle(connection, one, "last", Delivered(), SETTINGS)
            if not taken:
                break

    def expected(self) -> set[tuple[str, str]]:
        """(type, run, address) of what must have been told, from the history alone."""
        found, failed = set(), False
        for n, good in self.runs:
            recovered = good and failed
            failed = not good
            for one in NOTIFY:
                address = f"{one['kind']}::{one['target']}"
                if not good and "failure" in one["on"]:
                    found.add((f"run.failed r-{n}", address))
                if recovered and "recovery" in one["on"]:
                    found.add((f"run.recovered r-{n}", address))
                elif good and "success" in one["on"]:
                    found.add((f"run.succeeded r-{n}", address))
        return found

    @rule()
    def all_is_told_in_the_end(self) -> None:
        self.drain()
        with self.database.read() as connection:
            known = {row["id"]: row for row in connection.execute(select(t.events)).mappings()}
            states = connection.execute(select(t.deliveries.c.state)).scalars().all()
        told = {(f"{known[id]['type']} {known[id]['subject']['run']}", address) for id, address in self.sent}
        assert told == self.expected()
        assert set(states) <= {"delivered"}
        with self.database.read() as connection:
            rows = connection.execute(select(t.deliveries.c.event, t.deliveries.c.address)).all()
        self.delivered = {(row.event, row.address) for row in rows}


def test_the_outbox_tells_everything_once_and_nothing_else(database: Database) -> None:
    Outbox.database = database
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(Outbox, settings=settings(max_examples=40, stateful_step_count=25, deadline=None))
