"""Who uses what: a version, an alias or an endpoint that a rollout needs must not vanish under it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from roblox_ml_core.errors import Conflict
from sqlalchemy import Connection, delete, select

from . import tables as t

__all__ = [
    "forget_endpoint",
    "refuse_if_used",
    "rows_of",
    "running",
    "users_of_alias",
    "users_of_endpoint",
    "users_of_version",
]


def refuse_if_used(what: str, users: list[str]) -> None:
    """Raises `Conflict` that names the users, if there are any."""
    if users:
        raise Conflict(
            f"{what} is in use by {'; '.join(users)}",
            hint="stop the experiment, end the canary or remove the shadow first",
            details={"used_by": users},
        )


def forget_endpoint(connection: Connection, endpoint: str) -> None:
    """Its kill switch goes with it: an endpoint made again under the name is another one."""
    connection.execute(delete(t.switches).where(t.switches.c.name == f"endpoint/{endpoint}"))


def users_of_version(connection: Connection, model: str, version: int) -> list[str]:
    """Who would be broken by the version's end, in words."""
    return [user for user, row in _users(connection) if (row["model"], row["version"]) == (model, version)]


def users_of_alias(connection: Connection, model: str, alias: str) -> list[str]:
    return [user for user, row in _users(connection) if (row["model"], row.get("alias")) == (model, alias)]


def users_of_endpoint(connection: Connection, endpoint: str) -> list[str]:
    experiments = [f"experiment {row['name']}" for row in running(connection) if row["endpoint"] == endpoint]
    canary = [f"canary of {endpoint}" for row in rows_of(connection, t.canaries) if row["endpoint"] == endpoint]
    shadows = [f"shadow {row['name']}" for row in rows_of(connection, t.shadows) if row["endpoint"] == endpoint]
    return experiments + canary + shadows


def _users(connection: Connection) -> Iterable[tuple[str, Any]]:
    for row in running(connection):
        for arm in row["arms"]:
            if arm["model"] is not None:
                yield f"experiment {row['name']}, arm {arm['name']}", arm
    for row in rows_of(connection, t.canaries):
        yield f"the canary of endpoint {row['endpoint']}", row
    for row in rows_of(connection, t.shadows):
        yield f"shadow {row['name']} of endpoint {row['endpoint']}", row


def running(connection: Connection) -> list[Any]:
    query = select(t.experiments).where(t.experiments.c.running).order_by(t.experiments.c.name)
    return list(connection.execute(query).mappings())


def rows_of(connection: Connection, table: Any) -> list[Any]:
    return list(connection.execute(select(table).order_by(*table.primary_key.columns)).mappings())
