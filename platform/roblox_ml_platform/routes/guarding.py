"""Counts that doors report, the records of what was taken back, and the reports of experiments and shadows over HTTP."""

from __future__ import annotations

import threading
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from pydantic import Field, model_validator
from roblox_ml_core.errors import Throttled
from roblox_ml_core.records import read
from roblox_ml_core.records.shadow_report import shadow_report
from roblox_ml_core.settings import AnalysisSettings, HomeSettings, RecordsSettings

from .. import endpoints
from ..analysis import sources
from ..bodies import Body, Name
from ..context import Plane, Who
from ..guarding.acting import list_rollbacks
from ..guarding.counts import BINS, Report
from ..guarding.service import Guardian
from ..identity import access
from ..identity.policy import declare
from ..rollout import experiments

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["guard"])
declare("PUT", "/v1/doors/{door}/counts", "serve", "platform")
declare("GET", "/v1/endpoints/{name}/rollbacks", "view", "endpoint")
declare("GET", "/v1/endpoints/{name}/shadows/{shadow}/report", "view", "endpoint")
declare("GET", "/v1/experiments/{experiment}/report", "view", "route")

_Door = Annotated[str, Path(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
_Count = Annotated[int, Field(ge=0, le=1 << 53)]
_REPORTS = threading.BoundedSemaphore(2)  # a report may hold gigabytes


class CountBody(Body):
    endpoint: Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]{0,62}$")]
    version: Annotated[str, Field(min_length=1, max_length=90)]
    role: Annotated[str, Field(pattern="^(champion|canary|arm)$")]
    experiment: Annotated[str, Field(max_length=63)] = ""
    arm: Annotated[str, Field(max_length=63)] = ""
    requests: _Count
    errors: _Count
    latency: Annotated[list[_Count], Field(min_length=BINS, max_length=BINS)]

    @model_validator(mode="after")
    def _adds_up(self) -> CountBody:
        if self.errors > self.requests:
            raise ValueError(f"{self.errors} of {self.requests} requests failed: that cannot be")
        return self


class CountsBody(Body):
    """A door's counts since `started_at`, which it keeps for as long as it lives."""

    started_at: Annotated[float, Field(ge=0, lt=32_503_680_000, allow_inf_nan=False)]
    counts: Annotated[list[CountBody], Field(max_length=5000)]


@router.put("/doors/{door}/counts")
def put_counts(door: _Door, body: CountsBody, request: Request) -> dict[str, Any]:
    """Take a door's counts; sent again they change nothing."""
    guardian: Guardian = request.app.state.guardian
    guardian.take(Report.of(door, body.started_at, [entry.model_dump() for entry in body.counts]))
    return {"taken": len(body.counts)}


@router.get("/endpoints/{name}/rollbacks")
def get_rollbacks(name: Name, plane: Plane, limit: Annotated[int, Query(ge=1, le=1000)] = 50) -> dict[str, Any]:
    """What the guard took back at this endpoint, or warned of, with its evidence; the latest first."""
    with plane.database.read() as connection:
        return {"endpoint": name, "rollbacks": list_rollbacks(connection, name, limit)}


@router.get("/endpoints/{name}/shadows/{shadow}/report")
def get_shadow_report(
    name: Name, shadow: Name, plane: Plane, tolerance: Annotated[float, Query(ge=0, le=10)] = 1e-3
) -> dict[str, Any]:
    """How a shadow's answers differ from the primary's, and how long they take."""
    import pyarrow.compute as pc

    with plane.database.read() as connection:
        ref, version = sources.shadow_of(connection, name, shadow)
    table = read(RecordsSettings().resolve(HomeSettings()), "shadows", endpoint=name)
    table = sources.latest(table.filter(pc.equal(table["shadow"], version)), sources.MOST_SHADOW_ROWS)
    return {
        "endpoint": name,
        "shadow": shadow,
        "ref": ref,
        "version": version,
        **shadow_report(table, tolerance=tolerance),
    }


@router.get("/experiments/{experiment}/report")
def get_experiment_report(experiment: Name, plane: Plane, who: Who) -> dict[str, Any]:
    """What the experiment has shown so far. May be asked as often as one likes: its intervals hold at every look."""
    with plane.database.read() as connection:
        found = experiments.describe(connection, experiment)
        model = endpoints.model_of(connection, found["endpoint"]) or found["endpoint"]
        access.require(connection, who, "view", model=model)
        others = sources.neighbours(connection, found)
    if not _REPORTS.acquire(timeout=30):
        raise Throttled(
            "two reports are being made already", hint="ask again in a moment", details={"retry_after_s": 5}
        )
    try:
        return sources.report_of(found, others, RecordsSettings(), HomeSettings(), AnalysisSettings())
    finally:
        _REPORTS.release()
