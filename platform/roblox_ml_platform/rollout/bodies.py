"""The shapes of requests about rollouts."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, field_validator, model_validator
from roblox_ml_core.names import MAX_VERSION
from roblox_ml_core.policy import SCALE

from ..bodies import Body
from . import refs
from .experiments import Arm, Wish

__all__ = [
    "CanaryBody",
    "ExperimentBody",
    "HoldoutBody",
    "KillBody",
    "LayerBody",
    "ReasonBody",
    "ShadowBody",
    "StopBody",
]

_T = TypeVar("_T")
_NAME = "^[a-z0-9][a-z0-9-]{0,62}$"
_Named = Annotated[str, Field(pattern=_NAME)]
_Unit = Annotated[str, Field(pattern="^[a-z][a-z0-9_]{0,62}$")]
_Share = Annotated[int, Field(ge=0, le=SCALE, description="10,000ths")]
_Positive = Annotated[int, Field(ge=1, le=SCALE, description="10,000ths")]
_Ref = Annotated[str, Field(min_length=3, max_length=200, description="model/3 or model@alias")]
_Text = Annotated[str, Field(max_length=2000)]
_Revision = Annotated[int, Field(ge=0, le=MAX_VERSION)]
_MAX_BYTES = 16 << 10


def _bounded(what: str, value: _T) -> _T:
    size = len(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode())
    if size > _MAX_BYTES:
        raise ValueError(f"{what} has {size} bytes and may have {_MAX_BYTES}: it is in the memory of every door")
    return value


class LayerBody(Body):
    unit: _Unit = "user_id"


class HoldoutBody(Body):
    unit: _Unit = "user_id"
    share: _Share
    layers: Annotated[list[_Named], Field(max_length=256, default_factory=list)]


class KillBody(Body):
    """What is left out stays as it is."""

    experiments: bool | None = None
    canaries: bool | None = None
    shadows: bool | None = None
    endpoints: Annotated[list[_Named], Field(max_length=10_000)] | None = None


class CanaryBody(Body):
    version: Annotated[int, Field(ge=1, le=MAX_VERSION)]
    share: _Positive
    isolated: bool = False
    expect: _Revision | None = None


class ReasonBody(Body):
    reason: _Text = ""


class ShadowBody(Body):
    ref: _Ref
    share: _Positive = SCALE
    isolated: bool = False


class ArmBody(Body):
    ref: _Ref | None = None
    weight: _Share
    params: Annotated[dict[str, Any], Field(max_length=100, default_factory=dict)]

    @field_validator("params")
    @classmethod
    def _small(cls, value: dict[str, Any]) -> dict[str, Any]:
        return _bounded("an arm's params", value)


class MetricBody(Body):
    """What is measured of a unit: a mean or count of events, whether there was any, or one sum over another."""

    name: Annotated[str, Field(min_length=1, max_length=63)]
    kind: Literal["count", "mean", "conversion", "ratio"] = "count"
    event: Annotated[str, Field(min_length=1, max_length=63)]
    per: Annotated[str, Field(min_length=1, max_length=63)] | None = None  # of a ratio: the event below the line
    direction: Literal["up", "down"] = "up"
    cuped_days: Annotated[int, Field(ge=0, le=90)] = 0
    primary: bool = True

    @model_validator(mode="after")
    def _whole(self) -> MetricBody:
        if (self.kind == "ratio") != (self.per is not None):
            raise ValueError("a ratio, and nothing else, needs `per`: the event it is divided by")
        return self


class GuardrailBody(MetricBody):
    """A metric that stops the experiment when an arm is worse than control by more than `margin` (relative)."""

    margin: Annotated[float, Field(ge=0, le=10)] = 0.0


class ExperimentBody(Body):
    endpoint: _Named
    layer: _Named
    share: _Positive
    arms: Annotated[dict[_Named, ArmBody], Field(min_length=2, max_length=16)]
    targeting: Annotated[dict[str, dict[str, Any]], Field(max_length=20, default_factory=dict)]
    metrics: Annotated[list[MetricBody], Field(max_length=50, default_factory=list)]
    guardrails: Annotated[list[GuardrailBody], Field(max_length=20, default_factory=list)]
    hypothesis: Annotated[str, Field(max_length=5000)] = ""
    isolated: bool = False
    expect: _Revision | None = None

    @field_validator("targeting")
    @classmethod
    def _small(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        return _bounded("targeting", value)

    @model_validator(mode="after")
    def _weights(self) -> ExperimentBody:
        total = sum(arm.weight for arm in self.arms.values())
        if total != SCALE:
            raise ValueError(f"the arms' weights sum to {total}; they must sum to {SCALE} (10,000ths)")
        names = [metric.name for metric in (*self.metrics, *self.guardrails)]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"a metric is there twice: {', '.join(twice)}")
        return self

    def wish(self) -> Wish:
        """As the domain wants it; arms in the order given."""
        arms = tuple(
            Arm(name, arm.weight, None if arm.ref is None else refs.read(arm.ref), arm.params)
            for name, arm in self.arms.items()
        )
        return Wish(
            self.endpoint, self.layer, self.share, arms, self.targeting,
            [metric.model_dump() for metric in self.metrics], [one.model_dump() for one in self.guardrails],
            self.hypothesis, self.isolated,
        )  # fmt: skip


class StopBody(Body):
    reason: _Text = ""
    winner: _Named | None = None
