"""What a running control plane consists of; routes get it from the application's state."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request
from prometheus_client import CollectorRegistry
from roblox_ml_core.auth.principal import Principal
from roblox_ml_core.settings import ControlPlaneSettings, IdentitySettings
from roblox_ml_core.storage import BlobStore

from .changes import Changes
from .database import Database, now
from .guard import actor_of

__all__ = ["Actor", "Context", "Plane", "Who"]


@dataclass(frozen=True, slots=True)
class Context:
    settings: ControlPlaneSettings
    database: Database
    store: BlobStore
    changes: Changes
    metrics: CollectorRegistry
    # Before this moment nobody here could hear a server's report.
    listening_since: float = field(default_factory=lambda: now())
    identity: IdentitySettings = field(default_factory=IdentitySettings)


def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


def _principal(request: Request) -> Principal:
    found: Principal = request.scope["rml.principal"]
    return found


def _actor(request: Request) -> str:
    return actor_of(request.headers, _principal(request))


Plane = Annotated[Context, Depends(_context)]
# Who is proved to ask: what permissions are decided on. `Actor` is the name that histories get.
Who = Annotated[Principal, Depends(_principal)]
Actor = Annotated[str, Depends(_actor)]
