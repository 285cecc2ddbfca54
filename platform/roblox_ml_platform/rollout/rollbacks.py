"""Back, in one call, whatever went forward last: a canary is taken back; without one, the endpoint returns to the version before."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from .. import endpoints
from . import canaries

__all__ = ["roll_back"]


def roll_back(connection: Connection, endpoint: str, actor: str, reason: str = "rollback") -> dict[str, Any]:
    """The endpoint after it; `canary` says which one was ended, None when there was none."""
    running = canaries.describe(connection, endpoint)
    if running is None:
        return {**endpoints.rollback(connection, endpoint, actor), "canary": None}
    canaries.end(connection, endpoint, actor, reason)
    here = endpoints.describe(connection, endpoint)
    return {**here, "from": running["version"], "alias_moved": None, "canary": running}
