"""Whose a step's secret is. Only the name is here: the value lies where the steps run, and never comes this way.

A pipeline names secrets, and a runner hands them to it. Without owners, whoever may publish a pipeline could have the runner hand
out any team's secret; with them, publishing for a team is refused when it names another's.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from roblox_ml_core.auth import Principal, Resource
from roblox_ml_core.errors import Forbidden
from sqlalchemy import Connection, delete, insert, select

from ..records import audit, iso
from . import access
from . import tables as i
from .teams import require_team

__all__ = ["forget", "listed", "own", "require_secrets"]


def own(connection: Connection, who: Principal, secret: str, team: str, actor: str) -> dict[str, Any]:
    """Say that a secret belongs to a team; moving one needs the administrators of both."""
    access.require(connection, who, "admin", team=team)
    require_team(connection, team)
    before = _owner(connection, secret)
    if before is not None and before != team:
        access.require(connection, who, "admin", team=before)
    if before != team:
        connection.execute(delete(i.secret_owners).where(i.secret_owners.c.name == secret))
        connection.execute(insert(i.secret_owners).values(name=secret, team=team, at=time.time(), by=actor))
        audit(connection, actor, "secret.own", secret, **{"from": before, "to": team})
    return {"name": secret, "team": team}


def forget(connection: Connection, who: Principal, secret: str, actor: str) -> dict[str, Any]:
    """Nobody's any more: only the home's administrator and those of the platform may then name it."""
    before = _owner(connection, secret)
    access.require(connection, who, "admin", team=before)
    connection.execute(delete(i.secret_owners).where(i.secret_owners.c.name == secret))
    if before is not None:
        audit(connection, actor, "secret.forget", secret, team=before)
    return {"name": secret, "team": before}


def listed(connection: Connection, who: Principal) -> list[dict[str, Any]]:
    """The names of the secrets of the teams that the principal may run for."""
    rows = connection.execute(select(i.secret_owners).order_by(i.secret_owners.c.name)).mappings().all()
    return [
        {"name": row["name"], "team": row["team"], "at": iso(row["at"]), "by": row["by"]}
        for row in rows
        if access.judge(connection, who, "run", Resource(row["team"])).allowed
    ]


def require_secrets(connection: Connection, who: Principal, names: Iterable[str], team: str | None) -> None:
    """Refuse a pipeline of `team` that names a secret which is not that team's."""
    if who.is_local:
        return
    asked = sorted(set(names))
    owners = dict(
        connection.execute(
            select(i.secret_owners.c.name, i.secret_owners.c.team).where(i.secret_owners.c.name.in_(asked))
        ).tuples().all()
    )  # fmt: skip
    foreign = [name for name in asked if team is None or owners.get(name) != team]
    if foreign and not access.judge(connection, who, "admin", Resource()).allowed:
        raise Forbidden(
            f"{who.display or who.id} may not use secret {', '.join(foreign)[:200]}: not a secret of team {team}",
            hint="rml secrets list shows your teams'; an administrator of the team that has it can give it to yours",
            details={"action": "run", "secrets": foreign[:20], "resource": f"team {team}"},
        )
    for name in asked:
        access.require(connection, who, "run", team=owners.get(name))


def _owner(connection: Connection, secret: str) -> str | None:
    owner: str | None = connection.execute(
        select(i.secret_owners.c.team).where(i.secret_owners.c.name == secret).with_for_update()
    ).scalar()
    return owner
