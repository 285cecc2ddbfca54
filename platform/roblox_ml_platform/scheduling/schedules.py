"""Schedules as people see and change them: set, pause, resume, delete, the next times, the history."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice, takewhile
from typing import Any

from roblox_ml_core.errors import NotFound
from sqlalchemy import Connection, delete, func, insert, select, update

from ..database import now
from ..records import audit, iso
from . import tables as t
from .decide import plan
from .published import require_pipeline
from .rows import OPEN, add, brief, lock, newest_version, row_of
from .schedule import Schedule, due_times, from_json, jitter, text_of

__all__ = ["delete_schedule", "describe", "history", "list_schedules", "next_times", "pause", "pipeline_of", "put"]

_RECENT = 5
_MOST_UNDECIDED = 500  # after an outage of weeks the first of them say enough


def put(
    connection: Connection,
    name: str,
    pipeline: str,
    schedule: Schedule,
    arguments: Mapping[str, Any],
    *,
    actor: str,
    at: float | None = None,
) -> dict[str, Any]:
    """Create or change a schedule. What was due before now stays as it was decided; a changed one begins now."""
    lock(connection)
    at = now() if at is None else at
    require_pipeline(connection, pipeline)
    row = _find(connection, name)
    body: dict[str, Any] = {"pipeline": pipeline, "schedule": schedule.to_json(), "arguments": dict(arguments)}
    if row is None or row["schedule"] != body["schedule"] or row["pipeline"] != pipeline:
        # Due times of the old expression that nobody decided yet are the old expression's: they end with it.
        decided = at if row is None else max(at, row["decided"])
        if row is not None:
            _list_undecided(connection, row, at)
        body |= {"decided": decided, "next_at": _next_at(schedule, name, decided)}
    if row is None:
        connection.execute(insert(t.schedules).values(name=name, paused=False, created_at=at, updated_by=actor, **body))
    else:
        connection.execute(update(t.schedules).where(t.schedules.c.name == name).values(updated_by=actor, **body))
    if row is None or any(row[key] != value for key, value in body.items()):
        audit(connection, actor, "schedule.put", name, pipeline=pipeline, schedule=body["schedule"])
    return describe(connection, name, at)


def _list_undecided(connection: Connection, row: Any, at: float) -> None:
    """What came due under the old expression and was not decided yet: listed as skipped, for nothing due may vanish unsaid."""
    old, source = Schedule(**row["schedule"]), f"schedule:{row['name']}"
    came = takewhile(lambda due: due <= at, due_times(old, row["decided"]))
    version = newest_version(connection, [row["pipeline"]])[row["pipeline"]]
    add(
        connection,
        [
            row_of(
                key=f"{source}@{due:.0f}", source=source, pipeline=row["pipeline"], version=version, due=due, at=at, tz=old.tz,
                arguments=row["arguments"], state="SKIPPED", reason="the schedule was changed before it was started",
            )
            for due in islice(came, _MOST_UNDECIDED)
        ],
    )  # fmt: skip


def pause(connection: Connection, name: str, paused: bool, *, actor: str, at: float | None = None) -> dict[str, Any]:
    """Pause or resume. While paused, due times are listed as skipped; what runs or waits already goes on."""
    lock(connection)
    row = _require(connection, name)
    if row["paused"] != paused:
        connection.execute(
            update(t.schedules).where(t.schedules.c.name == name).values(paused=paused, updated_by=actor)
        )
        audit(connection, actor, "schedule.pause" if paused else "schedule.resume", name)
        if paused:
            _tell(connection, row, actor)
    return describe(connection, name, now() if at is None else at)


def delete_schedule(connection: Connection, name: str, *, actor: str) -> dict[str, Any]:
    """Delete a schedule; its history stays, and what is waiting still runs."""
    lock(connection)
    _require(connection, name)
    connection.execute(delete(t.schedules).where(t.schedules.c.name == name))
    audit(connection, actor, "schedule.delete", name)
    return {"deleted": name}


def describe(connection: Connection, name: str, at: float | None = None) -> dict[str, Any]:
    """One schedule with its next ten times and its last runs."""
    row = _require(connection, name)
    (shown,) = _shown(connection, [row])
    return {**shown, "next": next_times(connection, name, 10, at), "runs": history(connection, name, limit=_RECENT)}


def pipeline_of(connection: Connection, name: str) -> str | None:
    """The pipeline that a schedule runs; None where there is no such schedule."""
    row = _find(connection, name)
    return None if row is None else str(row["pipeline"])


def list_schedules(connection: Connection, pipeline: str | None = None) -> list[dict[str, Any]]:
    """Every schedule, by name, with its next time and its last runs."""
    query = select(t.schedules).order_by(t.schedules.c.name)
    if pipeline is not None:
        query = query.where(t.schedules.c.pipeline == pipeline)
    return _shown(connection, list(connection.execute(query).mappings()))


def next_times(connection: Connection, name: str, count: int, at: float | None = None) -> list[dict[str, str]]:
    """The next due times and, where there is jitter, when the run starts; none while paused."""
    row = _require(connection, name)
    if row["paused"]:
        return []
    schedule = from_json(row["schedule"])
    after = max(row["decided"], now() if at is None else at)
    return [
        {"due": text_of(due, schedule.tz), "start": text_of(due + jitter(schedule, name, due), schedule.tz)}
        for due in islice(due_times(schedule, after), count)
    ]


def history(
    connection: Connection, name: str, *, limit: int = 50, before: str | None = None, state: str | None = None
) -> list[dict[str, Any]]:
    """The runs of a schedule, latest due time first; also of one that was deleted."""
    r = t.scheduled_runs.c
    query = select(t.scheduled_runs).where(r.source == f"schedule:{name}").order_by(r.due.desc()).limit(limit)
    if before is not None:
        cut = connection.execute(select(r.due).where(r.run == before)).scalar()
        query = query.where(r.due < (cut or 0.0))
    if state is not None:
        query = query.where(r.state == state)
    return [brief(row) for row in connection.execute(query).mappings()]


def _shown(connection: Connection, rows: list[Any]) -> list[dict[str, Any]]:
    sources = [f"schedule:{row['name']}" for row in rows]
    r = t.scheduled_runs.c
    counted = (
        select(r.source, r.state, func.count())
        .where(r.source.in_(sources), r.state.in_(OPEN))
        .group_by(r.source, r.state)
    )
    found = {(source, state): count for source, state, count in connection.execute(counted).tuples()}
    late = select(r.source, func.count()).where(r.source.in_(sources), r.state == "WAITING", r.late).group_by(r.source)
    lates: dict[str, int] = dict(connection.execute(late).tuples().all())
    shown = []
    for row, source in zip(rows, sources, strict=True):
        schedule = Schedule(**row["schedule"])
        upcoming = None if row["paused"] else next(due_times(schedule, row["decided"]), None)
        shown.append(
            {
                "name": row["name"],
                "pipeline": row["pipeline"],
                "schedule": row["schedule"],
                "arguments": row["arguments"],
                "paused": row["paused"],
                "next_due": None if upcoming is None else text_of(upcoming, schedule.tz),
                "waiting": found.get((source, "WAITING"), 0),
                "running": found.get((source, "RUNNING"), 0),
                "late": lates.get(source, 0),
                "last": _states(connection, source),
                "created": iso(row["created_at"]),
                "by": row["updated_by"],
            }
        )
    return shown


def _states(connection: Connection, source: str) -> list[dict[str, Any]]:
    """The last few runs in short, latest first."""
    r = t.scheduled_runs.c
    query = select(r.run, r.due, r.tz, r.state, r.late).where(r.source == source).order_by(r.due.desc()).limit(_RECENT)
    return [
        {"run": run, "due": text_of(due, tz), "state": state, "late": late}
        for run, due, tz, state, late in connection.execute(query).tuples()
    ]


def _next_at(schedule: Schedule, name: str, decided: float) -> float | None:
    return plan(float("-inf"), schedule, name, decided, 0).next_at


def _find(connection: Connection, name: str) -> Any:
    return connection.execute(select(t.schedules).where(t.schedules.c.name == name)).mappings().one_or_none()


def _require(connection: Connection, name: str) -> Any:
    row = _find(connection, name)
    if row is None:
        raise NotFound(f"there is no schedule {name}", hint="`rml schedules` lists them; `rml publish` makes them")
    return row


def _tell(connection: Connection, row: Any, actor: str) -> None:
    from ..notifying.events import event, record

    subject = {"schedule": row["name"], "at": now()}
    record(connection, event("schedule.paused", subject, pipeline=row["pipeline"], by=actor))
