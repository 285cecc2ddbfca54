"""What watches rollouts, and how experiments are analysed."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["AnalysisSettings", "GuardSettings"]


class GuardSettings(BaseSettings):
    """What watches rollouts: how much worse is too much, how sure it must be, and what it does then."""

    model_config = SettingsConfigDict(env_prefix="RML_GUARD_", extra="ignore")

    action: Literal["rollback", "warn", "off"] = Field(
        default="rollback", description="rollback: take back what is worse; warn: only write it down and tell people"
    )
    error_points: float = Field(
        default=0.01, ge=0, lt=1, description="how many more requests may fail, as a share: 0.01 is one point"
    )
    latency_ratio: float = Field(default=1.5, gt=1, le=16, description="how many times as long answers may take")
    alpha: float = Field(
        default=0.05,
        gt=0,
        lt=0.5,
        description="probability to take back, in its first day, a rollout that is exactly as bad as is allowed",
    )
    min_requests: int = Field(default=50, ge=10, description="requests of a challenger before it is judged")
    min_errors: int = Field(default=5, ge=2, description="failed requests before a challenger is judged by them")
    bake_s: float = Field(
        default=600.0, ge=0, le=900, description="how long a new champion is held against the one before; 0: not at all"
    )
    tick_s: float = Field(default=1.0, gt=0, description="how often counts are looked at")
    guardrail_s: float = Field(default=60.0, gt=0, description="how often the guardrails of experiments are looked at")


class AnalysisSettings(BaseSettings):
    """How experiments are analysed. Change it before an experiment begins, not while it runs."""

    model_config = SettingsConfigDict(env_prefix="RML_ANALYSIS_", extra="ignore")

    alpha: float = Field(default=0.05, gt=0, lt=0.5, description="error budget of all primary metrics together")
    planned_units: int = Field(
        default=100_000, ge=100, description="units at which the confidence sequences shall be narrowest"
    )
    peeks: int = Field(default=40, ge=2, le=500, description="points in time of a report's plots")
    max_rows: int = Field(
        default=50_000_000, ge=1000, description="largest number of exposures or events of one report"
    )
