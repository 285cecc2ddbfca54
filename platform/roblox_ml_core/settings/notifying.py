"""Telling people: how often, how long, with which secrets."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["NotifySettings"]


class NotifySettings(BaseSettings):
    """Telling people: how often, how long, and which secrets channels may refer to."""

    model_config = SettingsConfigDict(env_prefix="RML_NOTIFY_", extra="ignore")

    enabled: bool = Field(default=True, description="deliver; without, events are only recorded")
    tick_s: float = Field(default=0.5, gt=0, description="how often new events and due deliveries are looked for")
    workers: int = Field(default=4, gt=0, description="deliveries in hand at once")
    timeout_s: float = Field(default=10.0, gt=0, description="longest one delivery may take")
    lease_s: float = Field(
        default=45.0, gt=0, description="a delivery whose sender is silent for so long is sent again"
    )
    base_s: float = Field(default=1.0, gt=0, description="pause after the first failure; doubled with each")
    cap_s: float = Field(default=300.0, gt=0, description="longest pause between two attempts")
    dead_after_s: float = Field(default=3 * 86400.0, gt=0, description="a delivery that fails for so long is given up")
    stale_after_s: float = Field(default=7 * 86400.0, gt=0, description="older events are recorded and told to nobody")
    keep_s: float = Field(default=30 * 86400.0, gt=0, description="how long delivered events are kept")
    channels_file: Path | None = Field(
        default=None, description="channels as TOML, mode 0600; empty: channels.toml in the home"
    )
    secret_env: str = Field(default="RML_CHANNEL_*", description="names of variables that channels may refer to")
    webhook_hosts: str = Field(default="*", description="hosts that pipelines may name in a webhook, by pattern")
    public_url: str = Field(
        default="", description="where people's browsers reach this control plane; empty: its own URL"
    )
    run_url: str = Field(
        default="", description="link to a run, with {run} and {pipeline}; empty: the event's own page"
    )
    model_url: str = Field(
        default="", description="link to a version, with {model} and {version}; empty: MLflow's page"
    )

    @model_validator(mode="after")
    def _ordered(self) -> NotifySettings:
        """A lease that ends while its holder still sends would let a second one send the same."""
        if self.lease_s < 2 * self.timeout_s:
            raise ValueError("RML_NOTIFY_LEASE_S must be at least twice RML_NOTIFY_TIMEOUT_S")
        if self.keep_s < 2 * self.stale_after_s:
            raise ValueError("RML_NOTIFY_KEEP_S must be at least twice RML_NOTIFY_STALE_AFTER_S")
        return self
