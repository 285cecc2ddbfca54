"""Teams, who holds which role in them, and whose a model is."""

from __future__ import annotations

import re
import time
from typing import Any

from roblox_ml_core.auth import EVERYTHING, Action, Grant, Principal, Resource, Scope
from roblox_ml_core.errors import Conflict, Invalid, NotFound
from roblox_ml_core.names import check_name
from sqlalchemy import Connection, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from .. import tables as t
from ..records import audit, iso
from ..scheduling.tables import pipelines
from ..versions import lock_model
from . import access
from . import tables as i
from .authenticate import add_principal

__all__ = [
    "add",
    "describe",
    "give",
    "grants",
    "list_teams",
    "move_model",
    "principals",
    "remove",
    "revoke_all",
    "take",
]

_PRINCIPAL = re.compile(r"[a-z0-9][a-z0-9-]{0,30}:[!-~]{1,200}\Z")


def add(connection: Connection, team: str, actor: str) -> dict[str, Any]:
    """Make a team; one that is there already stays as it is."""
    check_name(team, "team name")
    row = {"name": team, "created_at": time.time(), "created_by": actor}
    if _insert(connection, i.teams, row):
        audit(connection, actor, "team.add", team)
    return describe(connection, team)


def remove(connection: Connection, team: str, actor: str) -> dict[str, Any]:
    """Remove a team that owns nothing any more; its roles go with it."""
    gone = describe(connection, team)
    if gone["models"]:
        raise Conflict(
            f"team {team} owns {', '.join(gone['models'][:10])}",
            hint="give its models to another team first: rml teams take-model",
            details={"models": gone["models"]},
        )
    if gone["pipelines"]:
        # Their schedules would go on for nobody, and for whoever makes a team of this name.
        raise Conflict(
            f"team {team} owns the published pipelines {', '.join(gone['pipelines'][:10])}",
            hint="take them back first: rml unpublish NAME",
            details={"pipelines": gone["pipelines"]},
        )
    connection.execute(delete(i.grants).where(i.grants.c.scope == f"team:{team}"))
    connection.execute(delete(i.secret_owners).where(i.secret_owners.c.team == team))
    connection.execute(delete(i.blob_claims).where(i.blob_claims.c.owner == f"team:{team}"))
    connection.execute(delete(i.teams).where(i.teams.c.name == team))
    audit(connection, actor, "team.remove", team)
    return gone


def describe(connection: Connection, team: str) -> dict[str, Any]:
    """The team's models and published pipelines, and who holds which role in it."""
    require_team(connection, team)
    models = select(t.models.c.name).where(t.models.c.team == team).order_by(t.models.c.name)
    held = select(i.grants).where(i.grants.c.scope == f"team:{team}").order_by(i.grants.c.principal, i.grants.c.role)
    members = [{"principal": row["principal"], "role": row["role"]} for row in connection.execute(held).mappings()]
    runs = select(pipelines.c.name).where(pipelines.c.team == team).order_by(pipelines.c.name)
    return {
        "name": team,
        "models": list(connection.execute(models).scalars()),
        "pipelines": list(connection.execute(runs).scalars()),
        "members": members,
    }


def list_teams(connection: Connection, who: Principal) -> list[dict[str, Any]]:
    """The teams whose things the principal may see."""
    names = list(connection.execute(select(i.teams.c.name).order_by(i.teams.c.name)).scalars())
    if not who.is_local:
        platform = access.judge(connection, who, "view", Resource()).allowed
        mine = set(access.teams_with(connection, who, Action.VIEW))
        names = [name for name in names if platform or name in mine]
    counts: dict[str | None, int] = dict(
        connection.execute(select(t.models.c.team, func.count()).group_by(t.models.c.team)).tuples().all()
    )
    return [{"name": name, "models": counts.get(name, 0)} for name in names]


def give(connection: Connection, who: Principal, principal: str, grant: Grant, actor: str) -> dict[str, Any]:
    """Give a role. Who administers the scope may: a team's administrator its own team, the owner's a model."""
    _check_principal(principal)
    _require_admin(connection, who, grant.scope)
    _check_scope(connection, grant)
    row = {"principal": principal, "scope": str(grant.scope), "role": grant.role}
    new = _insert(connection, i.grants, {**row, "created_at": time.time(), "created_by": actor})
    if new:
        audit(connection, actor, "grant.give", principal, role=grant.role, scope=str(grant.scope))
    return {**row, "new": new}


def take(connection: Connection, who: Principal, principal: str, grant: Grant, actor: str) -> dict[str, Any]:
    """Take a role away; it ends with the next request, whatever tokens are about."""
    _require_admin(connection, who, grant.scope)
    where = (
        i.grants.c.principal == principal,
        i.grants.c.scope == str(grant.scope),
        i.grants.c.role == grant.role,
    )
    if connection.execute(delete(i.grants).where(*where)).rowcount == 0:
        held = connection.execute(select(i.grants).where(i.grants.c.principal == principal)).mappings()
        has = ", ".join(f"{row['role']} on {row['scope']}" for row in held) or "none"
        raise NotFound(f"{principal} was not given {grant}", hint=f"given here: {has}; groups give the rest")
    audit(connection, actor, "grant.take", principal, role=grant.role, scope=str(grant.scope))
    return {"principal": principal, "scope": str(grant.scope), "role": grant.role, "taken": True}


def grants(
    connection: Connection, who: Principal, principal: str | None = None, scope: str | None = None
) -> list[dict[str, Any]]:
    """The grants of what the principal administers, and its own."""
    query = select(i.grants).order_by(i.grants.c.principal, i.grants.c.scope, i.grants.c.role)
    if principal is not None:
        query = query.where(i.grants.c.principal == principal)
    if scope is not None:
        query = query.where(i.grants.c.scope == str(Scope.parse(scope)))
    may: dict[str, bool] = {}

    def shown(row: Any) -> bool:
        if row["principal"] == who.subject or who.is_local:
            return True
        if row["scope"] not in may:
            may[row["scope"]] = access.judge(
                connection, who, "admin", _resource(connection, Scope.parse(row["scope"]))
            ).allowed
        return may[row["scope"]]

    rows = connection.execute(query).mappings().all()
    return [{**row, "created_at": iso(row["created_at"])} for row in rows if shown(row)]


def principals(connection: Connection) -> list[dict[str, Any]]:
    """Everybody who was ever seen, latest first."""
    rows = connection.execute(select(i.principals).order_by(i.principals.c.seen_at.desc())).mappings()
    return [
        {**row, "seen_at": iso(row["seen_at"]), "valid_after": iso(row["valid_after"]) if row["valid_after"] else None}
        for row in rows
    ]


def revoke_all(connection: Connection, principal: str, disabled: bool, actor: str) -> dict[str, Any]:
    """Everything issued to the principal before now is worth nothing; `disabled`: and it may not come back."""
    _check_principal(principal)
    add_principal(connection, principal)
    # A token's own time is in whole seconds: the next one begins after this.
    values = {"valid_after": float(int(time.time()) + 1), "disabled": disabled}
    connection.execute(update(i.principals).where(i.principals.c.id == principal).values(**values))
    audit(connection, actor, "principal.revoke", principal, disabled=disabled)
    return {"principal": principal, **values}


def move_model(connection: Connection, who: Principal, model: str, team: str, actor: str) -> dict[str, Any]:
    """Give a model to a team: who administers it where it is and where it goes may."""
    access.require(connection, who, "admin", model=model)
    access.require(connection, who, "admin", team=team)
    require_team(connection, team)
    before = lock_model(connection, model)["team"]
    if before != team:
        connection.execute(update(t.models).where(t.models.c.name == model).values(team=team))
        audit(connection, actor, "model.team", model, **{"from": before, "to": team})
    return {"name": model, "team": team, "from": before}


def require_team(connection: Connection, team: str) -> None:
    """Raises `NotFound` when there is no such team."""
    if connection.execute(select(i.teams.c.name).where(i.teams.c.name == team)).first() is None:
        raise NotFound(f"there is no team {team}", hint=f"rml teams list; or make it: rml teams add {team}")


def _require_admin(connection: Connection, who: Principal, scope: Scope) -> None:
    resource = _resource(connection, scope)
    access.require(connection, who, "admin", model=resource.model, team=resource.team)


def _resource(connection: Connection, scope: Scope) -> Resource:
    if scope.kind == "model":
        return access.resource_of(connection, scope.name)
    return Resource(scope.name or None)


def _check_scope(connection: Connection, grant: Grant) -> None:
    if grant.scope.kind == "team":
        require_team(connection, grant.scope.name)
    if grant.role == "serve" and grant.scope != EVERYTHING:
        raise Invalid("the role serve counts everywhere only: a server serves every team's models", hint="scope *")


def _check_principal(principal: str) -> None:
    if not _PRINCIPAL.match(principal) or principal.startswith(("team:", "model:", "local:")) or "#" in principal:
        raise Invalid(
            f"{principal[:80]!r} is no principal",
            hint="write ISSUER:SUBJECT as `rml whoami` shows it, or service:TEAM/NAME",
        )


def _insert(connection: Connection, table: Any, row: dict[str, Any]) -> bool:
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    return connection.execute(dialect.insert(table).values(**row).on_conflict_do_nothing()).rowcount > 0
