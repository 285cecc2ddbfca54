"""Runs that began and never said how they ended: their process was killed, or the machine went down.

Nobody would hear of the worst failures if only the run itself could tell of them. So whoever keeps a home looks at the runs in it
that said they began: the lock of a run (docs/formats/run-record.md) is held while somebody is at work on it, whatever happens to
that somebody, and its record says whether it ended. What is found is recorded under the id that the run itself would have used.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roblox_ml_core.settings import NotifySettings
from sqlalchemy import select

from ..database import Database, now
from . import tables as t
from .events import event, event_id
from .intake import take

__all__ = ["Watcher", "verdict"]

_RUN = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,254}$")
_ENDS = {"SUCCEEDED": "run.succeeded", "FAILED": "run.failed"}
_OVERLAP = 100
_LOST = "the run's process ended before the run did: it was killed, or its machine went down"


@dataclass(slots=True)
class _Open:
    """A run that said it began. `seen` counts the looks at which nobody was at work on it."""

    subject: Mapping[str, Any]
    pipeline: str | None
    notify: Any
    seen: int = 0


class Watcher:
    """Keeps the open runs of one home in memory; what it knows is in the database, so it may start anew at any time."""

    def __init__(self, database: Database, runs: Path, settings: NotifySettings) -> None:
        self._database, self._runs, self._settings = database, runs, settings
        self._open: dict[str, _Open] = {}
        self._closed: set[str] = set()
        self._after = 0

    def look(self) -> int:
        """Look at every open run once; returns how many ends were recorded. One is believed at the second look only."""
        self._catch_up()
        found = []
        for key, run in list(self._open.items()):
            folder = self._runs / str(run.subject["run"])
            if not (folder / "run.json").is_file():
                self._close(key)  # of another machine, or removed
                continue
            if _attended(folder):
                run.seen = 0
                continue
            run.seen += 1
            # Its own word, which says more, was on disk before it let go of its lock, and has been read by the second look.
            if run.seen >= 2:
                found.append((key, run, verdict(_events(folder), int(run.subject.get("execution") or 0))))
        ends = [(run, said) for _, run, said in found if said is not None]
        if ends:
            with self._database.write() as connection:
                for run, (state, facts) in ends:
                    take(
                        connection, event(_ENDS[state], run.subject, pipeline=run.pipeline, notify=run.notify, **facts)
                    )
        for key, _, _ in found:
            self._close(key)
        return len(ends)

    def _close(self, key: str) -> None:
        self._open.pop(key, None)
        self._closed.add(key)

    def _catch_up(self) -> None:
        """Add what began and drop what ended since the last look."""
        e = t.events.c
        query = (
            select(e.seq, e.type, e.subject, e.pipeline, e.notify)
            # Two transactions may commit in another order than they were numbered in: a little is read twice.
            .where(
                e.seq > self._after - _OVERLAP,
                e.type.in_(("run.started", *_ENDS.values())),
                e.at > now() - self._settings.stale_after_s,
            )
            .order_by(e.seq)
        )
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        for row in rows:
            self._after = row.seq
            # The run may have said both in either order.
            key = event_id("run.started", row.subject)
            if row.type != "run.started":
                self._close(key)
            elif key not in self._closed and key not in self._open and _RUN.match(str(row.subject.get("run") or "")):
                self._open[key] = _Open(row.subject, row.pipeline, row.notify)


def verdict(events: Iterable[Mapping[str, Any]], execution: int) -> tuple[str, dict[str, Any]] | None:
    """How an execution that nobody is at work on ended, with facts; None when there is nothing to tell. Pure.

    Nothing is told of one that was cancelled, since somebody wanted that, nor of one that a later one took over.
    """
    executions, state, facts, started = 0, "", dict[str, Any](), 0.0
    for one in events:
        if one.get("event") == "run_started":
            executions, state, facts, started = executions + 1, "", {}, float(one.get("time") or 0.0)
        elif one.get("event") == "run_finished":
            state = str(one.get("state"))
            facts |= {
                "reason": str(one.get("reason") or "")[:500],
                "seconds": round(float(one.get("time") or 0.0) - started, 3),
            }
        elif one.get("event") == "task_finished" and one.get("state") == "FAILED":
            facts = {**facts, "step": str(one.get("task"))[:200]}
    if executions != execution or state == "CANCELLED":
        return None
    if not state:
        return "FAILED", {"error": _LOST, "interrupted": True}
    return (state, {**facts, **({"error": facts["reason"]} if state == "FAILED" else {})}) if state in _ENDS else None


def _attended(folder: Path) -> bool:
    try:
        handle = os.open(folder / "lock", os.O_RDWR)
    except OSError:
        return True  # it is being made, or we may not look: nothing is said of what is not known
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def _events(folder: Path) -> list[dict[str, Any]]:
    """The record's events; a last line that a crash has torn is no event."""
    found = []
    with (folder / "events.jsonl").open("rb") as stream:
        for line in stream:
            if line.endswith(b"\n"):
                try:
                    found.append(json.loads(line))
                except ValueError:
                    break
    return [one for one in found if isinstance(one, dict)]
