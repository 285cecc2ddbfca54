"""The shapes of scheduling's request bodies."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Path
from pydantic import Field

from ..bodies import Body

__all__ = [
    "BackfillBody",
    "ClaimBody",
    "HeartbeatBody",
    "OccurrenceBody",
    "PipelineName",
    "PublishBody",
    "ReportBody",
    "ScheduleBody",
    "ScheduleFields",
]

_PATTERN = "^[a-z0-9]([a-z0-9-]{0,126}[a-z0-9])?$"
PipelineName = Annotated[str, Path(pattern=_PATTERN)]
_Name = Annotated[str, Field(pattern=_PATTERN)]
_Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_Word = Annotated[str, Field(min_length=1, max_length=200)]
_Arguments = Annotated[dict[str, Any], Field(max_length=1000, default_factory=dict)]


class ScheduleFields(Body):
    cron: Annotated[str, Field(max_length=500)]
    tz: Annotated[str, Field(max_length=64)] = "UTC"
    jitter_s: Annotated[int, Field(ge=0, le=86_400)] = 0
    catchup: Literal["none", "latest", "all"] = "latest"
    overlap: Literal["skip", "queue", "allow", "replace"] = "skip"
    late_after_s: Annotated[int, Field(ge=1, le=10**8)] = 900
    start: Annotated[str, Field(max_length=64)] | None = None
    end: Annotated[str, Field(max_length=64)] | None = None


class ScheduleBody(Body):
    pipeline: _Name
    schedule: ScheduleFields
    arguments: _Arguments


class TriggerFields(Body):
    kind: Literal["dataset", "alias", "run"]
    subject: Annotated[str, Field(min_length=1, max_length=255)]
    state: Literal["SUCCEEDED", "FAILED", "CANCELLED"] | None = None
    seen: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0


class PublishBody(Body):
    ir: _Digest
    team: Annotated[str, Field(pattern=_PATTERN)] | None = None
    blobs: Annotated[list[_Digest], Field(max_length=100_000, default_factory=list)]
    arguments: _Arguments
    newest: Annotated[dict[str, str], Field(max_length=1000, default_factory=dict)]
    notify: Annotated[list[dict[str, Any]], Field(max_length=100, default_factory=list)]
    provenance: Annotated[dict[str, Any], Field(default_factory=dict)]
    triggers: Annotated[list[TriggerFields], Field(max_length=100, default_factory=list)]


class BackfillBody(Body):
    pipeline: _Name
    first: Annotated[str, Field(alias="from", max_length=64)]
    last: Annotated[str, Field(alias="to", max_length=64)]
    concurrency: Annotated[int, Field(ge=1, le=1000)] = 1
    arguments: _Arguments
    schedule: ScheduleFields | None = None
    rerun: bool = False
    again: bool = False


class OccurrenceBody(Body):
    kind: Literal["dataset"]
    subject: Annotated[str, Field(min_length=1, max_length=255)]
    version: Annotated[int, Field(ge=1, le=2**31 - 1)]


class ClaimBody(Body):
    runner: _Word
    instance: Annotated[str, Field(min_length=1, max_length=64)]
    slots: Annotated[int, Field(ge=0, le=1000)]
    wait: Annotated[float, Field(ge=0, le=3600)] = 0.0


class HeartbeatBody(Body):
    runner: _Word
    instance: Annotated[str, Field(min_length=1, max_length=64)]
    runs: Annotated[list[_Word], Field(max_length=1000)]


class ReportBody(Body):
    runner: _Word
    instance: Annotated[str, Field(min_length=1, max_length=64)]
    run: _Word
    state: Literal["SUCCEEDED", "FAILED", "CANCELLED"]
    reason: Annotated[str, Field(max_length=20_000)] = ""
