"""Rows of scheduled runs: how one is written, read and shown. States: WAITING, RUNNING, then SUCCEEDED, FAILED, CANCELLED, SKIPPED.

The id of a run is made from its key, and the key from what made it due: nobody, however often and wherever it is tried again,
can start it under another id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, func, insert, select

from ..database import bump
from ..records import iso
from ..tables import counters
from . import tables as t
from .schedule import text_of

__all__ = ["ENDED", "OPEN", "active", "add", "brief", "lock", "newest_version", "row_of", "wake"]

OPEN = ("WAITING", "RUNNING")
ENDED = ("SUCCEEDED", "FAILED", "CANCELLED", "SKIPPED")


def lock(connection: Connection) -> None:
    """Be the only one who decides about runs until this transaction ends (SQLite's writers are alone anyway)."""
    connection.execute(select(counters.c.value).where(counters.c.name == "scheduling").with_for_update())


def wake(connection: Connection) -> None:
    """Tell runners that wait for work to look again."""
    bump(connection, "scheduling")


def row_of(
    *,
    key: str,
    source: str,
    pipeline: str,
    version: int,
    due: float,
    at: float,
    tz: str = "UTC",
    arguments: Mapping[str, Any] | None = None,
    state: str = "WAITING",
    reason: str = "",
    width: int = 1,
    chain: int = 0,
    late_at: float | None = None,
) -> dict[str, Any]:
    """A new row; a skipped one is over from the beginning."""
    return {
        "key": key,
        "source": source,
        "pipeline": pipeline,
        "version": version,
        "run": _run_id(pipeline, due, key),
        "due": due,
        "tz": tz,
        "arguments": dict(arguments or {}),
        "state": state,
        "reason": reason,
        "width": width,
        "chain": chain,
        "late_at": late_at if state == "WAITING" else None,
        "late": False,
        "cancel": False,
        "attempts": 0,
        "recorded_at": at,
        "finished_at": None if state == "WAITING" else at,
    }


def add(connection: Connection, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write new rows; returns how many."""
    listed = list(rows)
    if listed:
        connection.execute(insert(t.scheduled_runs), listed)
        if any(row["state"] == "WAITING" for row in listed):
            wake(connection)
    return len(listed)


def active(connection: Connection, sources: Iterable[str]) -> dict[str, int]:
    """How many runs of each source are not over."""
    r = t.scheduled_runs.c
    query = select(r.source, func.count()).where(r.source.in_(list(sources)), r.state.in_(OPEN)).group_by(r.source)
    return dict(connection.execute(query).tuples().all())


def newest_version(connection: Connection, pipelines: Iterable[str]) -> dict[str, int]:
    """The version each of these pipelines would run now."""
    query = select(t.pipelines.c.name, t.pipelines.c.latest).where(t.pipelines.c.name.in_(set(pipelines)))
    return dict(connection.execute(query).tuples().all())


def brief(row: Any) -> dict[str, Any]:
    """A row as JSON shows it."""
    return {
        "run": row["run"],
        "source": row["source"],
        "pipeline": row["pipeline"],
        "version": row["version"],
        "due": text_of(row["due"], row["tz"]),
        "state": row["state"],
        "reason": row["reason"],
        "late": row["late"],
        "attempts": row["attempts"],
        "arguments": row["arguments"],
        "started": None if row["started_at"] is None else iso(row["started_at"]),
        "finished": None if row["finished_at"] is None else iso(row["finished_at"]),
        "runner": row["runner"],
    }


def _run_id(pipeline: str, due: float, key: str) -> str:
    stamp = datetime.fromtimestamp(due, UTC).strftime("%Y%m%d-%H%M%S")
    return f"{pipeline}-{stamp}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
