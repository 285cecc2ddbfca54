"""The guard as a thread: every second it holds the doors' counts of what runs against what it would replace.

Counts live in memory and come back within a second after a restart; what was being watched begins again then. With several
replicas each judges the doors that report to it, and whichever finds something first takes it back: the transaction
looks whether it still runs.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from prometheus_client import Counter, Gauge
from roblox_ml_core.settings import GuardSettings
from roblox_ml_core.telemetry import log
from sqlalchemy import Connection, select

from .. import endpoints
from .. import tables as core
from ..context import Context
from ..database import counter, now
from ..rollout import tables as rollout
from ..rollout.uses import rows_of, running
from . import acting
from .counts import KEPT_S, Book, Report, Ticks
from .evidence import evidence, sentence
from .judge import Limits, Profile, judge, profile
from .promotions import Promotions, went_back
from .watches import Watch, watches

__all__ = ["Guardian"]

_LOG = logging.getLogger(__name__)
_PROFILE_S = 60.0  # how long a look at a baseline counts
_HISTORY_S = 300
_ENOUGH = 1000  # requests that a baseline is known by
_TROUBLE_S = 5.0


class Guardian:
    """`take` is called by the route; `step` by the thread, once a second; `clock` is the only clock it knows."""

    def __init__(
        self, context: Context, settings: GuardSettings | None = None, clock: Callable[[], float] = now
    ) -> None:
        self._database, self._settings, self._clock = context.database, settings or GuardSettings(), clock
        wished = self._settings
        self.limits = Limits(
            wished.error_points, wished.latency_ratio, wished.alpha, wished.min_requests, wished.min_errors
        )
        self.book = Book(clock())
        self._promotions = Promotions(wished.bake_s)
        self._generation = -1
        self._rollouts: list[Watch] = []
        self._settled: set[Watch] = set()
        self._profiles: dict[Watch, tuple[float, Profile]] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.error: str | None = None
        self._done = Counter(
            "rml_guard_findings_total", "Rollouts found worse", ["kind", "action"], registry=context.metrics
        )
        Gauge("rml_guard_watched", "Challengers held against a baseline", registry=context.metrics).set_function(
            lambda: float(len(self._rollouts))
        )

    def start(self) -> None:
        """Begin, unless the guard is switched off."""
        if self._settings.action != "off":
            self._thread = threading.Thread(target=self._run, name="guard", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def take(self, report: Report) -> None:
        """A door's counts."""
        self.book.take(report, self._clock())

    def step(self) -> list[Watch]:
        """Look once; what was found worse."""
        at = self._clock()
        self._refresh(at)
        watched = [*self._rollouts, *self._promotions.watches(at)]
        return [watch for watch in watched if watch not in self._settled and self._judge(watch, at)]

    def _run(self) -> None:
        while not self._stop.wait(self._settings.tick_s):
            try:
                self.step()
                self.error = None
            except Exception as error:  # the database is away, say: the next look may find it back
                self.error = f"{type(error).__name__}: {error}"
                log(_LOG, logging.ERROR, "the guard could not look", error=self.error[:500], retry_s=_TROUBLE_S)
                self._stop.wait(_TROUBLE_S)

    def _refresh(self, at: float) -> None:
        """Read what runs, when something has changed."""
        with self._database.read() as connection:
            generation = counter(connection, "snapshot")
            if generation == self._generation:
                return
            rows = endpoints.list_endpoints(connection)
            back = {row["name"]: went_back(connection, row) for row in rows}
            self._rollouts = watches(
                rows, rows_of(connection, rollout.canaries), running(connection), _resolver(connection)
            )
        self._promotions.see(rows, back, at)
        self._generation = generation
        self._settled &= {*self._rollouts, *self._promotions.watches(at)}
        self._profiles = {watch: one for watch, one in self._profiles.items() if watch in self._rollouts}

    def _judge(self, watch: Watch, at: float) -> bool:
        end = int(at) + 1
        # A rollout that is older than the book's memory is judged by its last quarter of an hour, and not as if it had just begun.
        first = int(max(watch.begin, self.book.since))
        begin = max(first, end - KEPT_S)
        challenger = self.book.ticks(watch.challenger, begin, end)
        if challenger.requests.sum() < self.limits.min_requests:
            return False
        length = end - begin
        upto = int(watch.begin) if watch.kind == "promotion" else end
        baseline = self.book.ticks(watch.baseline, upto - length, upto)
        if (
            baseline.requests.sum() < self.limits.min_requests
        ):  # the challenger has (nearly) everything: what was before it counts
            baseline = self.book.ticks(watch.baseline, first - length, first)
        like = self._profile(watch, at, baseline)
        finding = judge(challenger, baseline, self.limits, like=like, from_start=first == begin)
        if finding is None:
            return False
        reason = sentence(watch, finding, challenger, baseline)
        proof = evidence(watch, finding, challenger, baseline, self.limits, end - 1)
        with self._database.write() as connection:
            done = acting.take_back(connection, watch, reason, proof, warn_only=self._settings.action == "warn")
        self._settled.add(watch)
        self._generation = -1
        if done is not None:
            self._done.labels(watch.kind, done["action"]).inc()
            log(
                _LOG,
                logging.WARNING,
                "guard",
                action=done["action"],
                kind=watch.kind,
                endpoint=watch.endpoint,
                reason=reason,
            )
        return done is not None

    def _profile(self, watch: Watch, at: float, beside: Ticks) -> Profile:
        """What the baseline is like: its last minutes, or, where that says too little, what stands beside the challenger."""
        kept = self._profiles.get(watch)
        if kept is not None and at - kept[0] < _PROFILE_S:
            return kept[1]
        upto = int(watch.begin) if watch.kind == "promotion" else int(at)
        ticks = self.book.ticks(watch.baseline, upto - _HISTORY_S, upto)
        if ticks.requests.sum() < _ENOUGH:
            return profile(beside, self.limits)
        self._profiles[watch] = (at, profile(ticks, self.limits))
        return self._profiles[watch][1]


def _resolver(connection: Connection) -> Callable[[Any], int | None]:
    aliases = {
        (row["model"], row["alias"]): int(row["version"]) for row in connection.execute(select(core.aliases)).mappings()
    }

    def resolve(row: Any) -> int | None:
        version = row["version"] if row["alias"] is None else aliases.get((row["model"], row["alias"]))
        return None if version is None else int(version)

    return resolve
