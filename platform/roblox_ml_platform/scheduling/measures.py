"""The scheduler's gauges, read from the database when Prometheus asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import func, select

from ..database import Database
from . import tables as t
from .rows import OPEN

__all__ = ["Measures"]


class Measures(Collector):  # type: ignore[misc]  # prometheus_client is not typed here
    """Schedules, open runs by state, late runs, and how far the scheduler lags behind."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database, self._clock = database, clock

    def describe(self) -> list[Any]:
        return []  # asked at registration: naming the metrics must not need the database

    def collect(self) -> Iterator[GaugeMetricFamily]:
        s, r = t.schedules.c, t.scheduled_runs.c
        with self._database.read() as connection:
            paused: dict[bool, int] = dict(
                connection.execute(select(s.paused, func.count()).group_by(s.paused)).tuples().all()
            )
            counted = select(r.state, func.count()).where(r.state.in_(OPEN)).group_by(r.state)
            states: dict[str, int] = dict(connection.execute(counted).tuples().all())
            late = connection.execute(select(func.count()).where(r.state == "WAITING", r.late)).scalar_one()
            first = connection.execute(select(func.min(s.next_at))).scalar()
        schedules = GaugeMetricFamily("rml_scheduler_schedules", "Schedules", labels=["paused"])
        for key in (False, True):
            schedules.add_metric([str(key).lower()], paused.get(key, 0))
        runs = GaugeMetricFamily("rml_scheduler_runs", "Scheduled runs that are not over", labels=["state"])
        for state in OPEN:
            runs.add_metric([state], states.get(state, 0))
        lag = 0.0 if first is None else max(0.0, self._clock() - first)
        yield from (schedules, runs)
        yield GaugeMetricFamily("rml_scheduler_late_runs", "Runs that wait and are late", value=late)
        yield GaugeMetricFamily("rml_scheduler_lag_seconds", "Age of the oldest undecided due time", value=lag)
