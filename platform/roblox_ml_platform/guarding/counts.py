"""What the doors counted, second by second: cumulative reports become differences, and the differences of all doors are added up.

A door counts from its own start. A report with another start is that of a door that began again: all it says is new. The first report
of a door that is older than this process is only where its counting stands: what it counted before was for others to judge.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["BINS", "KEPT_S", "Book", "Key", "Report", "Ticks", "lower_edge_us"]

BINS = 64
KEPT_S = 900
_FORGET_S = 3600.0


def lower_edge_us(bin: float) -> float:
    """Microseconds at which a latency bin begins: four bins an octave, from 100 µs."""
    return float(100.0 * 2.0 ** (bin / 4))


@dataclass(frozen=True, slots=True)
class Key:
    """What is counted apart: a version in a role, and, where an experiment chose it, for which arm."""

    endpoint: str
    version: str
    role: str = "champion"
    experiment: str = ""
    arm: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """A door's cumulative counts: for each key requests, errors and the latency bins, as one row of 66 numbers."""

    door: str
    started_at: float
    counts: Mapping[Key, Any]

    @classmethod
    def of(cls, door: str, started_at: float, entries: Sequence[Mapping[str, Any]]) -> Report:
        counts: dict[Key, Any] = {}
        for entry in entries:
            key = Key(*(entry[name] for name in ("endpoint", "version", "role", "experiment", "arm")))
            row = np.array([entry["requests"], entry["errors"], *entry["latency"]], dtype=np.int64)
            counts[key] = counts[key] + row if key in counts else row
        return cls(door, started_at, counts)


@dataclass(frozen=True, slots=True)
class Ticks:
    """Counts by second; the last axis of `requests` and `errors` is time, `latency` has the bins behind it."""

    requests: Any
    errors: Any
    latency: Any

    @property
    def total(self) -> tuple[int, int]:
        return int(self.requests.sum()), int(self.errors.sum())

    def last(self, seconds: int) -> Ticks:
        return Ticks(self.requests[-seconds:], self.errors[-seconds:], self.latency[-seconds:])


@dataclass(slots=True)
class _Door:
    started_at: float
    seen_at: float
    counts: dict[Key, Any] = field(default_factory=dict)


class Book:
    """The last quarter of an hour of every key. Reports may come from any thread."""

    def __init__(self, listening_since: float) -> None:
        self.since = listening_since
        self._doors: dict[str, _Door] = {}
        self._seconds: dict[Key, deque[tuple[int, Any]]] = {}
        self._lock = threading.Lock()

    def take(self, report: Report, at: float) -> None:
        """Add what is new in a report."""
        with self._lock:
            door = self._doors.get(report.door)
            known = door is not None and door.started_at == report.started_at
            if not known:
                only_a_mark = door is None and report.started_at < self.since
                door = self._doors[report.door] = _Door(report.started_at, at)
                if only_a_mark:
                    door.counts = dict(report.counts)
                    return
            assert door is not None
            door.seen_at = at
            for key, row in report.counts.items():
                before = door.counts.get(key)
                new = row if before is None else row - before
                if (
                    new < 0
                ).any():  # counted backwards without having begun again: believe where it stands, no difference
                    new = np.zeros_like(row)
                if new[0] or new[1]:
                    self._add(key, int(at), new)
                door.counts[key] = row
            self._forget(at)

    def ticks(self, key: Key, begin: int, end: int) -> Ticks:
        """The seconds from `begin` up to and without `end`; zeros where nothing was counted."""
        rows: Any = np.zeros((max(0, end - begin), 2 + BINS), dtype=np.int64)
        with self._lock:
            for second, row in self._seconds.get(key, ()):
                if begin <= second < end:
                    rows[second - begin] += row
        return Ticks(rows[:, 0], rows[:, 1], rows[:, 2:])

    def keys(self) -> list[Key]:
        with self._lock:
            return list(self._seconds)

    def doors(self) -> dict[str, float]:
        """When each door was last heard."""
        with self._lock:
            return {name: door.seen_at for name, door in self._doors.items()}

    def _add(self, key: Key, second: int, new: Any) -> None:
        seconds = self._seconds.setdefault(key, deque())
        if seconds and seconds[-1][0] == second:
            seconds[-1] = (second, seconds[-1][1] + new)
        else:
            seconds.append((second, new))
        while seconds and seconds[0][0] <= second - KEPT_S:
            seconds.popleft()

    def _forget(self, at: float) -> None:
        for name in [name for name, door in self._doors.items() if door.seen_at < at - _FORGET_S]:
            del self._doors[name]
        for key in [key for key, seconds in self._seconds.items() if seconds[-1][0] < at - _FORGET_S]:
            del self._seconds[key]
