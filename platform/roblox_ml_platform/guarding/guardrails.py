"""Guardrails of running experiments, looked at every minute: an arm that is worse than its margin allows stops the experiment.

A thread of its own, because a look reads records, which takes seconds where the guard's other look takes milliseconds.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from roblox_ml_core.errors import NotFound
from roblox_ml_core.settings import AnalysisSettings, GuardSettings, HomeSettings, RecordsSettings
from roblox_ml_core.telemetry import log

from .. import endpoints
from ..analysis.sources import report_of, seconds_of
from ..context import Context
from ..rollout import experiments
from . import acting
from .counts import Key
from .watches import Watch

__all__ = ["Guardrails"]

_LOG = logging.getLogger(__name__)
Reports = Callable[[Mapping[str, Any]], dict[str, Any]]


class Guardrails:
    """`step` looks at every running experiment that has guardrails, and says which it stopped."""

    def __init__(self, context: Context, settings: GuardSettings | None = None, report: Reports | None = None) -> None:
        self._database, self._settings = context.database, settings or GuardSettings()
        self._report = report or _of_records
        self._settled: set[tuple[str, int]] = set()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        if self._settings.action != "off":
            self._thread = threading.Thread(target=self._run, name="guardrails", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def step(self) -> list[str]:
        """Look once."""
        with self._database.read() as connection:
            running = [one for one in experiments.list_experiments(connection, running=True) if one["guardrails"]]
        stopped = []
        for one in running:
            if (one["name"], one["round"]) in self._settled:
                continue
            try:
                # Its other metrics are for people: whoever wants them asks for the report.
                document = self._report({**one, "metrics": []})
            except Exception as error:  # one experiment's records must not keep the others from being looked at
                log(_LOG, logging.WARNING, "guardrails not looked at", experiment=one["name"], error=repr(error)[:300])
                continue
            breached = [rail for rail in document["guardrails"] if rail["breached"]]
            if breached and self._take_back(one, breached, document):
                stopped.append(one["name"])
        return stopped

    def _run(self) -> None:
        while not self._stop.wait(self._settings.guardrail_s):
            try:
                self.step()
            except Exception as error:
                log(_LOG, logging.ERROR, "guardrails could not be looked at", error=repr(error)[:300])

    def _take_back(self, one: Mapping[str, Any], breached: list[dict[str, Any]], document: Mapping[str, Any]) -> bool:
        first = next(arm for arm in breached[0]["arms"] if arm["breached"])
        reason = (
            f"guardrail {breached[0]['name']}: arm {first['arm']} has {first['mean']:.4g}, control {first['control']:.4g}; "
            f"at most {100 * breached[0]['margin']:g} % worse is allowed"
        )
        proof = {
            "guardrails": breached,
            "units": document["units"],
            "until": document["until"],
            "alpha": document["alpha"],
        }
        with self._database.write() as connection:
            try:
                here = endpoints.describe(connection, one["endpoint"])
            except NotFound:
                return False
            champion = f"{here['model']}/{here['version']}"
            arm = next(arm for arm in one["arms"] if arm["name"] == first["arm"])
            mine, its = (
                Key(one["endpoint"], "", "arm", one["name"], name) for name in (first["arm"], document["control"])
            )
            watch = Watch(
                "guardrail",
                one["endpoint"],
                one["name"],
                arm["ref"] or champion,
                champion,
                mine,
                its,
                seconds_of(one["started_at"]),
            )
            done = acting.take_back(connection, watch, reason, proof, warn_only=self._settings.action == "warn")
        self._settled.add((one["name"], one["round"]))
        return done is not None


def _of_records(experiment: Mapping[str, Any]) -> dict[str, Any]:
    return report_of(experiment, (), RecordsSettings(), HomeSettings(), AnalysisSettings())
