"""A program that lives through a year: the real service over the real database, on a clock that runs from one event to the next.

`python year.py URL LEDGER END` goes on where the database and the ledger say it was, whatever killed the one before. It is the
scheduler (decides) and a runner (claims, runs, reports) in one process. A run is a file that is made by a rename-like exclusive
creation, as a run's folder is; each second in which it "runs" belongs to the simulated clock.
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from prometheus_client import CollectorRegistry
from roblox_ml_platform.database import Database
from roblox_ml_platform.scheduling import claims
from roblox_ml_platform.scheduling import tables as t
from roblox_ml_platform.scheduling.service import Scheduler
from sqlalchemy import event, func, select

LEASE_S = 7200.0
COARSE_S = 1200.0  # a scheduler that looks every twenty minutes decides the same, and a year takes a minute


class Clock:
    """The simulated time, kept in a file so that the next process goes on from it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = float(path.read_text())

    def set(self, at: float) -> None:
        self.now = at
        fresh = self.path.with_suffix(".new")
        fresh.write_text(str(at))
        fresh.replace(self.path)


class Runner:
    """Claims with the real protocol; a run lasts between nothing and forty minutes."""

    def __init__(self, database: Database, ledger: Path) -> None:
        self.database, self.ledger = database, ledger
        self.instance = uuid.uuid4().hex
        self.running: dict[str, float] = {}

    def step(self, at: float) -> None:
        for run in [run for run, end in self.running.items() if end <= at]:
            self._report(run, "SUCCEEDED", at)
        if self.running:
            with self.database.write() as connection:
                told = claims.heartbeat(connection, "runner", self.instance, list(self.running), at, LEASE_S)
            for run, word in told.items():
                if word == "cancel":
                    self._report(run, "CANCELLED", at)
                elif word == "lost":
                    del self.running[run]
        with self.database.read() as connection:
            if not claims.any_for(connection, "runner", self.instance):
                return
        with self.database.write() as connection:
            orders = claims.claim(connection, "runner", self.instance, 20, at, LEASE_S)
        for order in orders:
            self._begin(order, at)

    def _begin(self, order: dict[str, Any], at: float) -> None:
        run = order["run"]
        if run in self.running:
            return
        with contextlib.suppress(FileExistsError):  # it was begun by a process that was killed: go on with it
            os.close(os.open(self.ledger / run, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            with (self.ledger.parent / "starts").open("a") as starts:
                starts.write(f"{run}\n")
        self.running[run] = at + random.Random(run).choice([0, 30, 300, 1200, 2400])

    def _report(self, run: str, state: str, at: float) -> None:
        with self.database.write() as connection:
            claims.report(connection, "runner", self.instance, run, state, "", at)
        del self.running[run]


def next_event(database: Database, runner: Runner, at: float) -> float:
    """The next moment at which anything can happen; a lease must be renewed before it runs out."""
    with database.read() as connection:
        due = connection.execute(select(func.min(t.schedules.c.next_at))).scalar()
    candidates = [due or at + 86_400, *runner.running.values()]
    step = min(max(candidate, at + COARSE_S) for candidate in candidates)
    return min(step, at + LEASE_S / 2) if runner.running else step


def main() -> None:
    url, place, end = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
    database = Database(url)
    if database.sqlite:  # this process is killed, the machine is not: what the kernel has is safe
        event.listen(database._engine, "connect", lambda raw, _: raw.execute("PRAGMA synchronous=OFF"))
    clock = Clock(place / "clock")
    context: Any = SimpleNamespace(database=database, metrics=CollectorRegistry())
    service = Scheduler(context, lambda: clock.now)
    runner = Runner(database, place / "runs")
    # The one before may have held the lease when it was killed.
    clock.set(clock.now + 11)
    print("up", flush=True)
    while True:
        service.step()
        runner.step(clock.now)
        if clock.now >= end and not runner.running:
            break
        clock.set(next_event(database, runner, clock.now))
    print("done", flush=True)


if __name__ == "__main__":
    main()
