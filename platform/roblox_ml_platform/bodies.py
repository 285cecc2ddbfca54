"""The shapes of request bodies, checked by pydantic before any of our code sees them."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from fastapi import Path, Query
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from roblox_ml_core.names import MAX_VERSION

__all__ = [
    "Alias",
    "AliasBody",
    "Digest",
    "EndpointBody",
    "GcBody",
    "IntrospectBody",
    "Name",
    "RegisterBody",
    "RollbackBody",
    "StatusBody",
    "TagsBody",
    "Version",
    "Wait",
]

Name = Annotated[str, Path(pattern="^[a-z0-9][a-z0-9-]{0,62}$")]
Alias = Annotated[str, Path(pattern="^[a-z][a-z0-9_-]{0,62}$")]
Digest = Annotated[str, Path(pattern="^[0-9a-f]{64}$")]
Version = Annotated[int, Path(ge=1, le=MAX_VERSION)]
Wait = Annotated[float, Query(ge=0, le=3600)]
_Key = Annotated[str, Field(min_length=1, max_length=250)]
_Short = Annotated[str, Field(max_length=5000)]
_Number = Annotated[int, Field(ge=1, le=MAX_VERSION)]
_Generation = Annotated[int, Field(ge=0, le=MAX_VERSION)]
_DEEPEST = 32


class Body(BaseModel):
    """Unknown fields are refused (a misspelt one must not be ignored), and so is text that no database can hold."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _storable(cls, value: Any) -> Any:
        return _clean(value, 0)


class File(Body):
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=0, le=2**62)]


class RegisterBody(Body):
    package: dict[str, Any]
    manifest: Annotated[dict[str, File], Field(max_length=100_000)]
    signature: dict[str, Any] | None = None
    metrics: dict[_Key, Any] | None = None
    params: dict[_Key, Any] | None = None
    tags: dict[_Key, _Short] | None = None
    lineage: dict[str, Any] | None = None
    gate: dict[_Key, Any] | None = None
    alias: str | None = None
    # Whose a new model becomes.
    team: Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]{0,62}$")] | None = None

    @field_validator("tags", mode="before")
    @classmethod
    def _texts(cls, value: Any) -> Any:
        """Numbers and booleans are welcome as tags, as text."""
        if not isinstance(value, dict):
            return value
        return {
            key: str(v).lower() if isinstance(v, bool) else str(v) if isinstance(v, int | float) else v
            for key, v in value.items()
        }


class TagsBody(Body):
    tags: dict[_Key, _Short | None]


class AliasBody(Body):
    version: _Number
    expected_generation: _Generation | None = None
    reason: _Short = ""


class RollbackBody(Body):
    expected_generation: _Generation | None = None
    reason: _Short = "rollback"


class CachePolicy(Body):
    """What a door may keep of an endpoint's answers; zero: nothing."""

    entries: Annotated[int, Field(ge=0, le=100_000_000)] = 0
    bytes: Annotated[int, Field(ge=0, le=1 << 40)] = 0


class QueuePolicy(Body):
    """How long an endpoint's line may be before a request is told to come back."""

    max_wait_ms: Annotated[float, Field(gt=0, le=3_600_000, allow_inf_nan=False)] = 200
    max_rows: Annotated[int, Field(ge=1, le=100_000)] = 10_000


class PolicyBody(Body):
    """A part that is left out stays as it is."""

    cache: CachePolicy | None = None
    queue: QueuePolicy | None = None


class LogPolicy(Body):
    """What doors keep of an endpoint's requests; what is left out stays as it is."""

    rate: Annotated[int, Field(ge=0, le=10_000, description="10,000ths of the requests")] | None = None
    data_class: Annotated[str, Field(pattern="^[a-z][a-z0-9-]{0,31}$")] | None = None
    retention_days: Annotated[int, Field(ge=1, le=3650)] | None = None
    bodies: bool | None = None


class LimitsPolicy(Body):
    """How much may be under way at one version on one server; 0: as much as comes."""

    concurrency: Annotated[int, Field(ge=0, le=100_000)] = 0


class EndpointBody(Body):
    model: Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]{0,62}$")]
    alias: Annotated[str, Field(pattern="^[a-z][a-z0-9_-]{0,62}$")] | None = None
    version: _Number | None = None
    policy: PolicyBody | None = None
    unit: Annotated[str, Field(pattern="^[a-z][a-z0-9_]{0,62}$")] | None = None
    log: LogPolicy | None = None
    limits: LimitsPolicy | None = None

    def parts(self) -> dict[str, dict[str, Any]] | None:
        """What it says of the endpoint's policy, by part; None: nothing."""
        found = {} if self.policy is None else self.policy.model_dump(exclude_none=True)
        if self.unit is not None:
            found["assignment"] = {"unit": self.unit}
        for part in ("log", "limits"):
            if (wish := getattr(self, part)) is not None:
                found[part] = wish.model_dump(exclude_none=True)
        return found or None


class WithdrawBody(Body):
    model: Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]{0,62}$")]
    alias: Annotated[str, Field(pattern="^[a-z][a-z0-9_-]{0,62}$")] | None = None
    version: _Number | None = None


class IntrospectBody(Body):
    token: Annotated[str, Field(min_length=1, max_length=16_384, pattern="^[!-~]+$")]


class State(Body):
    model: Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]{0,62}$")]
    version: _Number
    digest: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    state: Literal["ready", "loading", "failed", "pulling"]
    reason: _Short | None = ""


class StatusBody(Body):
    http: Annotated[str, Field(max_length=255)]
    grpc: Annotated[str, Field(max_length=255)]
    models: Annotated[list[State], Field(max_length=10_000)]


class GcBody(Body):
    dry_run: bool = True
    scope: Literal["released", "all"] = "released"
    min_age_s: Annotated[float, Field(ge=0, le=1e9)] = 24 * 3600.0
    keep: Annotated[list[Annotated[str, Field(pattern="^[0-9a-f]{64}$")]], Field(max_length=1_000_000)] = []


def _clean(value: Any, depth: int) -> Any:
    """`value` with NaN and infinity as words; refused where a text cannot be stored or the nesting has no sense."""
    if depth > _DEEPEST:
        raise ValueError(f"nested more than {_DEEPEST} deep")
    if isinstance(value, dict):
        return {_clean(key, depth + 1): _clean(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean(item, depth + 1) for item in value]
    if isinstance(value, str):
        if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
            raise ValueError("a text holds a NUL or half a surrogate pair")
    elif isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
