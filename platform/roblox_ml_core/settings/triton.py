"""A Triton server and the agent beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from .home import LOOPBACK

__all__ = ["AgentSettings", "TritonSettings"]


class TritonSettings(BaseSettings):
    """One Triton server: its three ports, and where its installation lies."""

    model_config = SettingsConfigDict(env_prefix="RML_TRITON_", extra="ignore")

    host: str = LOOPBACK
    http_port: int = Field(default=18000, ge=0, le=65535)
    grpc_port: int = Field(default=18001, ge=0, le=65535)
    metrics_port: int = Field(default=18002, ge=0, le=65535)
    dir: Path | None = Field(default=None, description="installation folder; empty: found by the serving package")
    preload: Path | None = Field(default=None, description="library loaded before all others, for example tcmalloc")

    @property
    def http_address(self) -> str:
        return f"{self.host}:{self.http_port}"

    @property
    def grpc_address(self) -> str:
        return f"{self.host}:{self.grpc_port}"

    @property
    def metrics_url(self) -> str:
        return f"http://{self.host}:{self.metrics_port}/metrics"


class AgentSettings(BaseSettings):
    """The model agent beside one Triton server."""

    model_config = SettingsConfigDict(env_prefix="RML_AGENT_", extra="ignore")

    server: str = Field(default="local", description="name of the Triton server this agent looks after")
    role: Literal["general", "challenger"] = Field(
        default="general", description="challenger: hold only versions that want a server of their own"
    )
    poll_wait_s: float = Field(default=10.0, gt=0, description="how long one poll for desired models waits")
    heartbeat_s: float = Field(default=4.0, gt=0, description="longest silence towards the control plane")
    load_timeout_s: float = Field(default=300.0, gt=0, description="longest load of one model")
    tick_s: float = Field(default=0.5, gt=0, description="how often Triton and its processes are looked at")
    probe_s: float = Field(default=10.0, gt=0, description="how often every resident version is asked its known answer")
    grace_s: float = Field(default=30.0, ge=0, description="how long a version stays after nobody wants it any more")
    max_attempts: int = Field(
        default=8, gt=0, description="failed loads of one version before the agent gives up on it"
    )
    memory_budget_mb: int = Field(default=0, ge=0, description="memory all resident versions may take; 0: no limit")
    instances: int = Field(default=0, ge=0, description="instances per version; 0: one per core this process may use")
    pin: bool = Field(
        default=True, description="text models: each instance on a core of its own, where there is one per core"
    )
    metrics_port: int = Field(default=0, ge=0, le=65535, description="Prometheus port of the agent; 0: none")
    metrics_host: str = Field(default=LOOPBACK, description="address of that port; in a pod 0.0.0.0")
    package: Path | None = Field(default=None, description="a package that lies here already and is always wanted")
    package_ref: str = Field(default="", description="what that package must be: name/3@<digest>")
    leave: bool = Field(default=False, description="on SIGTERM, say that nothing is here: in a pod Triton ends too")
