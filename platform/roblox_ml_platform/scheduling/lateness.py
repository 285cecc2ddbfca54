"""Runs that should have started by now: each is reported once, whether it still waits or starts at last."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, select, update

from ..notifying.events import event, record
from . import tables as t
from .rows import lock
from .schedule import text_of

__all__ = ["report_late", "tell"]

_BATCH = 200


def report_late(connection: Connection, at: float) -> int:
    """Mark and tell the runs whose time is up; returns how many."""
    lock(connection)
    r = t.scheduled_runs.c
    query = select(t.scheduled_runs).where(r.state == "WAITING", r.late_at <= at).order_by(r.late_at).limit(_BATCH)
    rows = connection.execute(query).mappings().all()
    for row in rows:
        connection.execute(update(t.scheduled_runs).where(r.id == row["id"]).values(late=True, late_at=None))
        tell(connection, row, at)
    return len(rows)


def tell(connection: Connection, row: Any, at: float) -> None:
    """Put the event where notifications are made from."""
    due = text_of(row["due"], row["tz"])
    subject = {"run": row["run"], "schedule": row["source"].partition(":")[2], "due": due}
    # `late_by` counts from the due time: that is what its reader waited for.
    facts = {"late_by_s": round(at - row["due"], 1)}
    record(connection, event("run.late", subject, pipeline=row["pipeline"], at=at, **facts))
