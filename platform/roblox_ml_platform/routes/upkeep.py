"""Health, metrics, the audit trail and garbage collection."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from roblox_ml_core.telemetry import exposition

from .. import collect, records
from ..bodies import GcBody
from ..context import Actor, Plane

__all__ = ["router"]

router = APIRouter(tags=["upkeep"])


@router.get("/healthz")
def health() -> dict[str, Any]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz")
def ready(plane: Plane) -> dict[str, Any]:
    """The database answers too."""
    plane.database.check()
    return {"status": "ready"}


@router.get("/metrics", response_class=Response)
def metrics(plane: Plane) -> Response:
    """Prometheus metrics."""
    body, kind = exposition(plane.metrics)
    return Response(body, headers={"content-type": kind})


@router.post("/v1/gc")
def garbage(plane: Plane, actor: Actor, body: GcBody | None = None) -> dict[str, Any]:
    """List (the default) or remove blobs that nobody refers to."""
    body = body or GcBody()
    return collect.collect(
        plane.database,
        plane.store,
        dry_run=body.dry_run,
        actor=actor,
        scope=body.scope,
        min_age_s=body.min_age_s,
        keep=body.keep,
    )


@router.get("/v1/audit")
def audit(
    plane: Plane,
    before: Annotated[int | None, Query(ge=1, le=2**62)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    subject: Annotated[str | None, Query(max_length=200, pattern=r"^[ -~]*$")] = None,
) -> dict[str, Any]:
    """Who changed what, newest first."""
    with plane.database.read() as connection:
        return {"audit": records.read_audit(connection, before, limit, subject)}
