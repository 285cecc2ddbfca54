"""Backfills: the due times of a range, each a run, all written at once, so that nothing of them can be lost or doubled."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import islice
from typing import Any

from roblox_ml_core.digests import canonical_json
from roblox_ml_core.errors import Invalid, NotFound
from sqlalchemy import Connection, func, insert, select, update

from ..database import now
from ..records import audit, iso
from . import tables as t
from .claims import RETRY
from .published import require_pipeline
from .rows import OPEN, add, brief, lock, row_of, wake
from .schedule import Schedule, due_times, moment, text_of, zone

__all__ = ["MOST", "cancel", "create", "describe", "list_backfills", "pipeline_of", "retry"]

MOST = 10_000
_DAY_S = 86_400.0
_RAN = ("SUCCEEDED", *OPEN)


def create(
    connection: Connection,
    pipeline: str,
    schedule: Schedule,
    first: str,
    last: str,
    *,
    concurrency: int,
    arguments: Mapping[str, Any],
    rerun: bool,
    again: bool,
    actor: str,
) -> dict[str, Any]:
    """Make a backfill, or find the unfinished one that was asked for in the same words.

    Both ends are inside the range; a date means the whole of that day, as far as it has come. Due times that the schedule has run
    already are listed as skipped, unless `rerun`. `again` makes a new one in any case.
    """
    lock(connection)
    version = require_pipeline(connection, pipeline)
    begin, end = _range(schedule, first, last)
    asked = {"pipeline": pipeline, "schedule": schedule.to_json(), "range": [begin, end], "arguments": dict(arguments)}
    digest = hashlib.sha256(canonical_json({**asked, "rerun": rerun})).hexdigest()
    if not again and (known := _unfinished(connection, digest)) is not None:
        return {**describe(connection, known), "created": False}
    at = now()
    # What is not due yet is left to the schedule, or its day would have run before its data were there.
    dues = list(islice(due_times(schedule, begin - 1, min(end, at)), MOST + 1))
    if not dues or len(dues) > MOST:
        wrong = f"more than {MOST}" if dues else "no"
        raise Invalid(
            f"{schedule.cron} has {wrong} due times from {first} to {last}" + (" that have come" if end > at else ""),
            hint="choose another range; both ends are inside it, and a backfill looks back",
        )
    values = {"digest": digest, "pipeline": pipeline, "version": version, "schedule": schedule.to_json()}
    more = {"first": begin, "last": end, "concurrency": concurrency, "created_at": at, "created_by": actor}
    number = connection.execute(insert(t.backfills).values(**values, **more)).inserted_primary_key[0]  # type: ignore[index]
    done = {} if rerun else _ran(connection, pipeline, begin, end)
    add(
        connection,
        [
            row_of(
                key=f"backfill:{number}@{due:.0f}",
                source=f"backfill:{number}",
                pipeline=pipeline,
                version=version,
                due=due,
                at=at,
                tz=schedule.tz,
                arguments=arguments,
                width=concurrency,
                state="SKIPPED" if due in done else "WAITING",
                reason=f"the schedule has run it: {done[due]}" if due in done else "",
            )
            for due in dues
        ],
    )
    audit(connection, actor, "backfill.create", pipeline, backfill=number, runs=len(dues))
    return {**describe(connection, number), "created": True}


def describe(connection: Connection, number: int, *, runs: bool = True) -> dict[str, Any]:
    """A backfill with the count of its runs by state, and the runs."""
    row = _require(connection, number)
    r, source = t.scheduled_runs.c, f"backfill:{number}"
    counted = select(r.state, func.count()).where(r.source == source).group_by(r.state)
    counts: dict[str, int] = dict(connection.execute(counted).tuples().all())
    shown = {
        "id": number,
        "pipeline": row["pipeline"],
        "version": row["version"],
        "schedule": row["schedule"],
        "from": text_of(row["first"], row["schedule"]["tz"]),
        "to": text_of(row["last"], row["schedule"]["tz"]),
        "concurrency": row["concurrency"],
        "counts": counts,
        "total": sum(counts.values()),
        "done": not any(counts.get(state) for state in OPEN),
        "created": iso(row["created_at"]),
        "by": row["created_by"],
    }
    if runs:
        query = select(t.scheduled_runs).where(r.source == source).order_by(r.due)
        shown["runs"] = [brief(found) for found in connection.execute(query).mappings()]
    return shown


def pipeline_of(connection: Connection, number: int) -> str:
    """The pipeline that a backfill runs."""
    return str(_require(connection, number)["pipeline"])


def _require(connection: Connection, number: int) -> Any:
    row = connection.execute(select(t.backfills).where(t.backfills.c.id == number)).mappings().one_or_none()
    if row is None:
        raise NotFound(f"there is no backfill {number}", hint="GET /v1/backfills lists them")
    return row


def list_backfills(connection: Connection, limit: int = 50) -> list[dict[str, Any]]:
    query = select(t.backfills.c.id).order_by(t.backfills.c.id.desc()).limit(limit)
    return [describe(connection, number, runs=False) for number in connection.execute(query).scalars().all()]


def cancel(connection: Connection, number: int, *, actor: str) -> dict[str, Any]:
    """Skip what waits and end what runs."""
    lock(connection)
    describe(connection, number, runs=False)
    r, source = t.scheduled_runs.c, f"backfill:{number}"
    mine = update(t.scheduled_runs).where(r.source == source)
    gone = {"state": "SKIPPED", "reason": "the backfill was cancelled", "finished_at": now()}
    connection.execute(mine.where(r.state == "WAITING", r.started_at.is_(None)).values(**gone))
    connection.execute(mine.where(r.state.in_(OPEN), r.started_at.is_not(None)).values(cancel=True))
    audit(connection, actor, "backfill.cancel", str(number))
    return describe(connection, number)


def retry(connection: Connection, number: int, *, actor: str) -> dict[str, Any]:
    """Let its failed and cancelled runs go on where they stopped."""
    lock(connection)
    describe(connection, number, runs=False)
    r = t.scheduled_runs.c
    mine = update(t.scheduled_runs).where(r.source == f"backfill:{number}", r.state.in_(("FAILED", "CANCELLED")))
    back = {"state": "WAITING", "reason": RETRY, "attempts": 0, "cancel": False, "finished_at": None}
    if connection.execute(mine.values(**back)).rowcount:
        wake(connection)
        audit(connection, actor, "backfill.retry", str(number))
    return describe(connection, number)


def _range(schedule: Schedule, first: str, last: str) -> tuple[float, float]:
    here = zone(schedule.tz)
    try:
        begin, end = moment(first, here), moment(last, here)
    except ValueError as error:
        raise Invalid(f"{error}", hint="write dates as 2026-01-31, times as 2026-01-31T03:00") from error
    if len(last) <= len("2026-01-31"):
        # The last second of that day, however long clock changes make it.
        from datetime import datetime, timedelta

        end = (datetime.fromisoformat(last) + timedelta(days=1)).replace(tzinfo=here).timestamp() - 1
    if end < begin:
        raise Invalid(f"{last} is before {first}", hint="the range goes from the earlier to the later")
    return begin, end


def _unfinished(connection: Connection, digest: str) -> int | None:
    query = select(t.backfills.c.id).where(t.backfills.c.digest == digest).order_by(t.backfills.c.id.desc())
    for number in connection.execute(query).scalars().all():
        if not describe(connection, number, runs=False)["done"]:
            return int(number)
    return None


def _ran(connection: Connection, pipeline: str, begin: float, end: float) -> dict[float, str]:
    """Due times that a schedule of the pipeline has run, or is about to."""
    r = t.scheduled_runs.c
    inside = (r.pipeline == pipeline, r.source.like("schedule:%"), r.due >= begin, r.due <= end, r.state.in_(_RAN))
    return dict(connection.execute(select(r.due, r.run).where(*inside)).tuples().all())
