"""Routes of scheduling: published pipelines, schedules, backfills, and the runner's protocol."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from roblox_ml_core.errors import Invalid
from sqlalchemy import select

from ..changes import LOOK_EVERY_S
from ..context import Actor, Context, Plane, Who
from ..database import counter, now
from ..identity.policy import declare
from ..notifying.events import subscribe
from . import backfills, claims, occurrences, permission, published, schedules
from . import tables as t
from .bodies import (
    BackfillBody,
    ClaimBody,
    HeartbeatBody,
    OccurrenceBody,
    PipelineName,
    PublishBody,
    ReportBody,
    ScheduleBody,
)
from .schedule import Schedule, from_json

__all__ = ["LEASE_S", "router"]

LEASE_S = 30.0
router = APIRouter(prefix="/v1", tags=["scheduling"])
_Count = Annotated[int, Query(ge=1, le=1000)]
_Number = Annotated[int, Path(ge=1, le=2**62)]

# Pipelines belong to teams, so most routes decide inside. The runner's own are for administrators, as is what is not here.
for _method, _path in (
    ("GET", "/pipelines"),
    ("GET", "/pipelines/{name}"),
    ("DELETE", "/pipelines/{name}"),
    ("POST", "/pipelines/{name}/versions"),
    ("GET", "/schedules"),
    ("GET", "/schedules/{name}"),
    ("PUT", "/schedules/{name}"),
    ("DELETE", "/schedules/{name}"),
    ("POST", "/schedules/{name}:pause"),
    ("POST", "/schedules/{name}:resume"),
    ("GET", "/schedules/{name}/next"),
    ("GET", "/schedules/{name}/runs"),
    ("GET", "/backfills"),
    ("POST", "/backfills"),
    ("GET", "/backfills/{number}"),
    ("POST", "/backfills/{number}:cancel"),
    ("POST", "/backfills/{number}:retry"),
):
    declare(_method, f"/v1{_path}", "view", "route")
declare("POST", "/v1/occurrences", "run", "anywhere")


@router.post("/pipelines/{name}/versions")
def publish(name: PipelineName, body: PublishBody, plane: Plane, who: Who, actor: Actor) -> dict[str, Any]:
    """Publish a pipeline: its IR and what that refers to are in the store already."""
    with plane.database.write() as connection:
        team = permission.team_of_new(connection, who, name, body.team, plane.store, body.ir)
        told = {**body.model_dump(), "team": team}
        answer = published.publish(connection, plane.store, name, actor=actor, **told)
        subscribe(connection, name, body.notify)
        return answer


@router.get("/pipelines")
def list_pipelines(plane: Plane, who: Who) -> dict[str, Any]:
    with plane.database.read() as connection:
        may_see = permission.seer(connection, who)
        return {"pipelines": [one for one in published.list_pipelines(connection) if may_see(one["pipeline"])]}


@router.get("/pipelines/{name}")
def get_pipeline(name: PipelineName, plane: Plane, who: Who) -> dict[str, Any]:
    with plane.database.read() as connection:
        permission.require(connection, who, "view", name)
        return published.describe(connection, name)


@router.delete("/pipelines/{name}")
def delete_pipeline(name: PipelineName, plane: Plane, who: Who, actor: Actor) -> dict[str, Any]:
    with plane.database.write() as connection:
        permission.require(connection, who, "admin", name)
        return published.delete_pipeline(connection, name, actor=actor)


@router.get("/schedules")
def list_schedules(plane: Plane, who: Who, pipeline: str | None = None) -> dict[str, Any]:
    with plane.database.read() as connection:
        may_see = permission.seer(connection, who)
        return {
            "schedules": [one for one in schedules.list_schedules(connection, pipeline) if may_see(one["pipeline"])]
        }


@router.put("/schedules/{name}")
def put_schedule(name: PipelineName, body: ScheduleBody, plane: Plane, who: Who, actor: Actor) -> dict[str, Any]:
    """Create a schedule or change it; a changed one begins now."""
    schedule = from_json(body.schedule.model_dump())
    with plane.database.write() as connection:
        permission.require(connection, who, "run", body.pipeline)
        if schedules.pipeline_of(connection, name) is not None:
            permission.require_schedule(connection, who, "run", name)
        return schedules.put(connection, name, body.pipeline, schedule, body.arguments, actor=actor)


@router.get("/schedules/{name}")
def get_schedule(name: PipelineName, plane: Plane, who: Who) -> dict[str, Any]:
    with plane.database.read() as connection:
        permission.require_schedule(connection, who, "view", name)
        return schedules.describe(connection, name)


@router.delete("/schedules/{name}")
def delete_schedule(name: PipelineName, plane: Plane, who: Who, actor: Actor) -> dict[str, Any]:
    with plane.database.write() as connection:
        permission.require_schedule(connection, who, "run", name)
        return schedules.delete_schedule(connection, name, actor=actor)


@router.post("/schedules/{name}:pause")
def pause(name: PipelineName, plane: Plane, who: Who, actor: Actor) -> dict[str, Any]:
    """Start nothing more; due times are listed as skipped until it is resumed."""
    with plane.database.write() as connection:
        permission.require_schedule(connection, who, "run", name)
        return schedules.pause(connection, name, True, actor=actor)


@router.post("/schedules/{name}:resume")
def resume(name: PipelineName, plane: Plane, who: Who, actor: Actor) -> dict[str, Any]:
    with plane.database.write() as connection:
        permission.require_schedule(connection, who, "run", name)
        return schedules.pause(connection, name, False, actor=actor)


@router.get("/schedules/{name}/next")
def next_times(name: PipelineName, plane: Plane, who: Who, count: _Count = 10) -> dict[str, Any]:
    with plane.database.read() as connection:
        permission.require_schedule(connection, who, "view", name)
        return {"next": schedules.next_times(connection, name, count)}


@router.get("/schedules/{name}/runs")
def history(
    name: PipelineName, plane: Plane, who: Who, limit: _Count = 50, before: str | None = None, state: str | None = None
) -> dict[str, Any]:
    """Runs and skipped due times, latest first; page on with the last one's `run` as `before`."""
    with plane.database.read() as connection:
        permission.require_schedule(connection, who, "view", name)
        return {"runs": schedules.history(connection, name, limit=limit, before=before, state=state)}


@router.post("/backfills")
def create_backfill(body: BackfillBody, plane: Plane, who: Who, actor: Actor) -> dict[str, Any]:
    """Run a pipeline for every due time of a range. Asked again while it goes on, it is the same backfill."""
    with plane.database.write() as connection:
        permission.require(connection, who, "run", body.pipeline)
        schedule = _schedule_of(connection, body)
        more = body.model_dump(include={"concurrency", "arguments", "rerun", "again"})
        return backfills.create(connection, body.pipeline, schedule, body.first, body.last, actor=actor, **more)


@router.get("/backfills")
def list_backfills(plane: Plane, who: Who, limit: _Count = 50) -> dict[str, Any]:
    with plane.database.read() as connection:
        may_see = permission.seer(connection, who)
        return {"backfills": [one for one in backfills.list_backfills(connection, limit) if may_see(one["pipeline"])]}


@router.get("/backfills/{number}")
def get_backfill(number: _Number, plane: Plane, who: Who) -> dict[str, Any]:
    with plane.database.read() as connection:
        permission.require(connection, who, "view", backfills.pipeline_of(connection, number))
        return backfills.describe(connection, number)


@router.post("/backfills/{number}:cancel")
def cancel_backfill(number: _Number, plane: Plane, who: Who, actor: Actor) -> dict[str, Any]:
    with plane.database.write() as connection:
        permission.require(connection, who, "run", backfills.pipeline_of(connection, number))
        return backfills.cancel(connection, number, actor=actor)


@router.post("/backfills/{number}:retry")
def retry_backfill(number: _Number, plane: Plane, who: Who, actor: Actor) -> dict[str, Any]:
    with plane.database.write() as connection:
        permission.require(connection, who, "run", backfills.pipeline_of(connection, number))
        return backfills.retry(connection, number, actor=actor)


@router.post("/occurrences")
def occurred(body: OccurrenceBody, plane: Plane) -> dict[str, Any]:
    """A data set on another machine has a new version."""
    with plane.database.write() as connection:
        return {"noted": occurrences.dataset_grew(connection, body.subject, body.version, now())}


@router.post("/runner/claim")
async def claim(body: ClaimBody, plane: Plane) -> dict[str, Any]:
    """Runs to start, under a lease of `lease_s`; waits up to `wait` seconds until there is one."""
    loop = asyncio.get_running_loop()
    end = loop.time() + min(body.wait, plane.settings.max_wait_s)
    while True:
        ticket = plane.changes.ticket()
        seen, runs = await asyncio.to_thread(_claim, plane, body)
        if runs or loop.time() >= end:
            return {"runs": runs, "lease_s": LEASE_S}
        # A change by another replica rings no bell here; its count is looked at instead.
        while loop.time() < end:
            await plane.changes.wait(ticket, min(end - loop.time(), LOOK_EVERY_S))
            ticket = plane.changes.ticket()
            if await asyncio.to_thread(_look, plane) != seen:
                break


@router.post("/runner/heartbeat")
def heartbeat(body: HeartbeatBody, plane: Plane) -> dict[str, Any]:
    with plane.database.write() as connection:
        told = claims.heartbeat(connection, body.runner, body.instance, body.runs, now(), LEASE_S)
    return {"runs": told, "lease_s": LEASE_S}


@router.post("/runner/report")
def report(body: ReportBody, plane: Plane) -> dict[str, Any]:
    with plane.database.write() as connection:
        return claims.report(connection, body.runner, body.instance, body.run, body.state, body.reason, now())


def _claim(plane: Context, body: ClaimBody) -> tuple[int, list[dict[str, Any]]]:
    with plane.database.read() as connection:
        seen = counter(connection, "scheduling")
        if not claims.any_for(connection, body.runner, body.instance):
            return seen, []
    with plane.database.write() as connection:
        return seen, claims.claim(connection, body.runner, body.instance, body.slots, now(), LEASE_S)


def _look(plane: Context) -> int:
    with plane.database.read() as connection:
        return counter(connection, "scheduling")


def _schedule_of(connection: Any, body: BackfillBody) -> Schedule:
    """The schedule a backfill follows: the one given, else the pipeline's own."""
    if body.schedule is not None:
        return from_json(body.schedule.model_dump())
    s = t.schedules.c
    found = connection.execute(select(s.schedule).where(s.pipeline == body.pipeline).order_by(s.name)).scalars().all()
    if len(found) != 1:
        what = "has no schedule" if not found else f"has {len(found)} schedules"
        raise Invalid(f"pipeline {body.pipeline} {what}", hint='say which times: --cron "0 0 * * *" is once a day')
    # A backfill looks back: the schedule's own bounds do not bind it.
    return from_json({**found[0], "start": None, "end": None})
