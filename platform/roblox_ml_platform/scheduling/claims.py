"""The runner's protocol: claim runs under a lease, say that one still works on them, report how they ended.

A runner that ends and starts again under its name gets its runs back at once, with the same run ids, and finds what it had begun
in their folders. Its instances sort by their start: a claim of an ended one that is worked on late, as one that was waiting when
its process was killed, takes nothing from its successor. One that stays silent loses its lease, and the run goes to whoever claims
next; when the first comes back it is told so and stops.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from roblox_ml_core.errors import Conflict, NotFound
from sqlalchemy import Connection, and_, func, or_, select, update

from . import tables as t
from .lateness import tell
from .occurrences import run_ended
from .rows import ENDED, OPEN, lock, wake
from .schedule import text_of

__all__ = ["MAX_ATTEMPTS", "RETRY", "any_for", "claim", "expire", "finish", "heartbeat", "report"]

MAX_ATTEMPTS = 5  # a run that ends its runner so often will do it again
RETRY = "asked to retry"


def claim(
    connection: Connection, runner: str, instance: str, slots: int, at: float, lease_s: float
) -> list[dict[str, Any]]:
    """Up to `slots` runs to start, and whatever an earlier process of this runner left behind."""
    lock(connection)
    r = t.scheduled_runs.c
    left = select(t.scheduled_runs).where(r.state == "RUNNING", r.runner == runner, r.instance < instance)
    taken = [
        row
        for found in connection.execute(left.order_by(r.id)).mappings().all()
        if (row := _take(connection, found, runner, instance, at, lease_s)) is not None
    ]
    slots -= len(taken)
    while slots > 0 and (found := _next_waiting(connection)) is not None:
        if (row := _take(connection, found, runner, instance, at, lease_s)) is not None:
            taken.append(row)
            slots -= 1
    return [_order(connection, row) for row in taken]


def any_for(connection: Connection, runner: str, instance: str) -> bool:
    """Whether a claim could find anything: a look that costs no write."""
    r = t.scheduled_runs.c
    left = and_(r.state == "RUNNING", r.runner == runner, r.instance < instance)
    return connection.execute(select(r.id).where(or_(r.state == "WAITING", left)).limit(1)).scalar() is not None


def heartbeat(
    connection: Connection, runner: str, instance: str, runs: Sequence[str], at: float, lease_s: float
) -> dict[str, str]:
    """Extend the leases. The answer says for each run "go", "cancel" (end it and report) or "lost" (it is another's: end it)."""
    lock(connection)
    r = t.scheduled_runs.c
    # A lease that ran out while nobody could renew it is renewed, as long as nobody else took the run.
    mine = (r.run.in_(list(runs)), r.state.in_(OPEN), r.runner == runner, r.instance == instance)
    found = dict(connection.execute(select(r.run, r.cancel).where(*mine)).tuples().all())
    if found:
        connection.execute(update(t.scheduled_runs).where(*mine).values(state="RUNNING", lease_until=at + lease_s))
    return {run: ("cancel" if found[run] else "go") if run in found else "lost" for run in runs}


def report(
    connection: Connection, runner: str, instance: str, run: str, state: str, reason: str, at: float
) -> dict[str, Any]:
    """How a run ended. Saying it again is harmless; a runner that lost the run is refused."""
    lock(connection)
    row = _row(connection, run)
    if row["state"] in ENDED and row["state"] == state:
        return {"run": run, "state": state}
    if row["state"] not in OPEN or (row["runner"], row["instance"]) != (runner, instance):
        raise Conflict(
            f"run {run} is no longer {runner}'s: it is {row['state']} at {row['runner'] or 'nobody'}",
            hint="end it here; its other runner reports it",
            details={"state": row["state"], "runner": row["runner"]},
        )
    finish(connection, row, state, reason, at)
    return {"run": run, "state": state}


def expire(connection: Connection, at: float) -> int:
    """Let others have the runs of runners that were silent for longer than their lease."""
    lock(connection)
    r = t.scheduled_runs.c
    gone = update(t.scheduled_runs).where(r.state == "RUNNING", r.lease_until < at)
    count = connection.execute(gone.values(state="WAITING", lease_until=None)).rowcount
    if count:
        wake(connection)
    return count


def finish(connection: Connection, row: Any, state: str, reason: str, at: float) -> None:
    """Write down the end of a run, and that it may start others."""
    values = {"state": state, "reason": reason, "finished_at": at, "lease_until": None, "late_at": None}
    connection.execute(update(t.scheduled_runs).where(t.scheduled_runs.c.id == row["id"]).values(**values))
    run_ended(connection, row["pipeline"], row["run"], state, at)
    wake(connection)


def _next_waiting(connection: Connection) -> Any:
    """The first run in line that its source has room for."""
    r, other = t.scheduled_runs.c, t.scheduled_runs.alias()
    running = (
        select(func.count()).where(other.c.source == r.source, other.c.state == "RUNNING").correlate(t.scheduled_runs)
    )
    query = select(t.scheduled_runs).where(r.state == "WAITING", or_(r.width == 0, running.scalar_subquery() < r.width))
    return connection.execute(query.order_by(r.id).limit(1)).mappings().one_or_none()


def _take(
    connection: Connection, row: Any, runner: str, instance: str, at: float, lease_s: float
) -> dict[str, Any] | None:
    if row["attempts"] >= MAX_ATTEMPTS:
        finish(connection, row, "FAILED", f"its runner ended {row['attempts']} times while it ran", at)
        return None
    values = {
        "state": "RUNNING",
        "runner": runner,
        "instance": instance,
        "lease_until": at + lease_s,
        "attempts": row["attempts"] + 1,
        "started_at": row["started_at"] or at,
        "late_at": None,
        "late": row["late"] or (row["late_at"] is not None and row["late_at"] <= at),
    }
    connection.execute(update(t.scheduled_runs).where(t.scheduled_runs.c.id == row["id"]).values(**values))
    if values["late"] and not row["late"]:
        tell(connection, row, at)
    return {**row, **values}


def _order(connection: Connection, row: Any) -> dict[str, Any]:
    """All a runner needs to start the run."""
    v = t.pipeline_versions.c
    query = select(t.pipeline_versions).where(v.pipeline == row["pipeline"], v.version == row["version"])
    version = connection.execute(query).mappings().one()
    return {
        "run": row["run"],
        "source": row["source"],
        "pipeline": row["pipeline"],
        "version": row["version"],
        "ir": version["ir"],
        "newest": version["newest"],
        "arguments": {**version["arguments"], **row["arguments"]},
        "notify": version["notify"],
        "provenance": version["provenance"],
        "due": text_of(row["due"], row["tz"]),
        "tz": row["tz"],
        "attempt": row["attempts"],
        "retry": row["reason"] == RETRY,
        "cancel": row["cancel"],
    }


def _row(connection: Connection, run: str) -> Any:
    row = connection.execute(select(t.scheduled_runs).where(t.scheduled_runs.c.run == run)).mappings().one_or_none()
    if row is None:
        raise NotFound(f"there is no scheduled run {run}", hint="GET /v1/schedules/{name}/runs lists them")
    return row
