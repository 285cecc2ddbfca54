"""Health, metrics, the audit trail and garbage collection."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from roblox_ml_core.auth import Resource
from roblox_ml_core.telemetry import exposition

from .. import collect, records
from ..bodies import GcBody
from ..context import Actor, Plane, Who
from ..identity import access

__all__ = ["router"]

router = APIRouter(tags=["upkeep"])
_OF_A_MODEL = ("version.", "alias.", "model.", "refused")


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
    who: Who,
    before: Annotated[int | None, Query(ge=1, le=2**62)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    subject: Annotated[str | None, Query(max_length=200, pattern=r"^[ -~]*$")] = None,
    outcome: Annotated[Literal["done", "refused"] | None, Query()] = None,
) -> dict[str, Any]:
    """Who changed what, and who was refused and why, newest first. A model's is for its administrators, all for the platform's."""
    with plane.database.read() as connection:
        access.require(connection, who, "admin", model=_model_of(subject))
        everything = access.judge(connection, who, "admin", Resource()).allowed
        found = records.read_audit(connection, before, limit, subject, outcome)
    # An endpoint or a team may have a model's name; their rows are not the model's.
    return {"audit": [row for row in found if everything or row["action"].startswith(_OF_A_MODEL)]}


def _model_of(subject: str | None) -> str | None:
    """The model in ``name``, ``name/3`` or ``name@alias``; what is none (an endpoint, a token) is the platform's to see."""
    name = re.split("[/@]", subject, maxsplit=1)[0] if subject else ""
    return name if re.fullmatch("[a-z0-9][a-z0-9-]{0,62}", name) else None
