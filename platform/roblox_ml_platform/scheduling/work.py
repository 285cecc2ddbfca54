"""One round of the scheduler, as transactions: what is due is decided, leases expire, lateness is told, triggers start runs.

Every transaction is whole by itself and finds its work in the database, so it does not matter who does it, how often, or
whether the process ends in between.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, bindparam, exists, select, update

from ..database import Database
from . import tables as t
from .claims import expire
from .decide import Decision, plan
from .lateness import report_late
from .occurrences import start_triggered
from .rows import OPEN, active, add, lock, newest_version, row_of
from .schedule import Schedule

__all__ = ["decide_due", "round_of"]

_BATCH = 200


def round_of(database: Database, at: float) -> dict[str, int]:
    """Do all there is to do now; returns how much of each kind was done. An idle round is one read."""
    done: dict[str, int] = {}
    while True:
        with database.read() as connection:
            due = _waiting(connection, at)
        if not due:
            return done
        for name, work in (
            ("decided", decide_due),
            ("expired", expire),
            ("late", report_late),
            ("triggered", start_triggered),
        ):
            if name in due:
                with database.write() as connection:
                    done[name] = done.get(name, 0) + work(connection, at)


def decide_due(connection: Connection, at: float) -> int:
    """Decide the due times of the schedules that must be looked at; returns how many due times."""
    lock(connection)
    s = t.schedules.c
    query = select(t.schedules).where(s.next_at <= at).order_by(s.next_at).limit(_BATCH)
    due = connection.execute(query).mappings().all()
    sources = [f"schedule:{row['name']}" for row in due]
    unfinished = active(connection, sources)
    versions = newest_version(connection, (row["pipeline"] for row in due))
    rows: list[dict[str, Any]] = []
    moved: list[dict[str, Any]] = []
    for row, source in zip(due, sources, strict=True):
        schedule = Schedule(**row["schedule"])
        made = plan(at, schedule, row["name"], row["decided"], unfinished.get(source, 0), paused=row["paused"])
        if any(decision.cancel_older for decision in made.decisions):
            _cancel(connection, source, at)
        rows += [_row(decision, row, schedule, source, versions[row["pipeline"]], at) for decision in made.decisions]
        moved.append({"its_name": row["name"], "decided": made.decided, "next_at": made.next_at})
    add(connection, rows)
    if moved:
        connection.execute(update(t.schedules).where(s.name == bindparam("its_name")), moved)
    return len(rows)


def _row(decision: Decision, row: Any, schedule: Schedule, source: str, version: int, at: float) -> dict[str, Any]:
    return row_of(
        key=f"{source}@{decision.due:.0f}",
        source=source,
        pipeline=row["pipeline"],
        version=version,
        due=decision.due,
        at=at,
        tz=schedule.tz,
        arguments=row["arguments"],
        state="SKIPPED" if decision.kind == "skip" else "WAITING",
        reason=decision.reason,
        width=0 if schedule.overlap == "allow" else 1,
        late_at=decision.start_at + schedule.late_after_s,
    )


def _cancel(connection: Connection, source: str, at: float) -> None:
    """Make room for a run that replaces what is there."""
    r = t.scheduled_runs.c
    mine = update(t.scheduled_runs).where(r.source == source)
    gone = {
        "state": "SKIPPED",
        "reason": "overlap replace: a later one took its place",
        "finished_at": at,
        "late_at": None,
    }
    connection.execute(mine.where(r.state == "WAITING", r.started_at.is_(None)).values(**gone))
    # What has begun must be ended by a runner, also if its own was lost.
    connection.execute(mine.where(r.state.in_(OPEN), r.started_at.is_not(None)).values(cancel=True))


def _waiting(connection: Connection, at: float) -> set[str]:
    """The kinds of work there are, by one look at an index each."""
    s, r = t.schedules.c, t.scheduled_runs.c
    row = (
        connection.execute(
            select(
                exists().where(s.next_at <= at).label("decided"),
                exists().where(r.state == "RUNNING", r.lease_until < at).label("expired"),
                exists().where(r.state == "WAITING", r.late_at <= at).label("late"),
                exists(select(t.occurrences.c.id)).label("triggered"),
            )
        )
        .mappings()
        .one()
    )
    return {name for name, there in row.items() if there}
