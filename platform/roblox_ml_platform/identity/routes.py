"""Logging in, teams, roles, service tokens, secrets' owners: the routes."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from pydantic import Field
from roblox_ml_core.auth import ROLES, Grant, Scope, digest_of
from sqlalchemy import delete
from sqlalchemy.dialects import postgresql, sqlite

from ..bodies import Body, Name
from ..context import Actor, Plane, Who
from ..records import audit
from . import access, secrets, service_tokens, teams
from . import tables as i
from .authenticate import issuers_of

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["identity"])
_TeamName = Annotated[str, Path(pattern="^[a-z0-9][a-z0-9-]{0,62}$")]
_TokenId = Annotated[str, Path(pattern="^(rml_)?[0-9A-Za-z]{12}$")]
_Secret = Annotated[str, Path(pattern="^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
_Text = Annotated[str, Field(min_length=1, max_length=250, pattern="^[ -~]+$")]
_Asked = Annotated[str, Query(min_length=1, max_length=250, pattern="^[ -~]+$")]
_Perhaps = Annotated[str | None, Query(min_length=1, max_length=250, pattern="^[ -~]+$")]


class TokenBody(Body):
    name: _Text
    role: _Text = "view"
    scope: _Text = "*"
    days: Annotated[int, Field(ge=1, le=3660)] | None = None
    owner: _Text | None = None


class GrantBody(Body):
    principal: _Text
    scope: _Text
    role: _Text


class RevokeBody(Body):
    principal: _Text
    disable: bool = False


class TeamBody(Body):
    team: Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]{0,62}$")]


@router.get("/auth")
def how_to_log_in(plane: Plane) -> dict[str, Any]:
    """The issuers one can log in with. Open to all."""
    return {"issuers": issuers_of(plane.identity)}


@router.get("/whoami")
def who_am_i(plane: Plane, who: Who) -> dict[str, Any]:
    """Who the control plane takes the sender for, and what it may do."""
    with plane.database.read() as connection:
        held = sorted(map(str, access.grants_of(connection, who)))
        names = [team["name"] for team in teams.list_teams(connection, who)]
    limit = {"role": who.limit.role, "scope": str(who.limit.scope)} if who.limit is not None else None
    return {
        "principal": who.id, "kind": who.kind, "display": who.display, "owner": who.owner,
        "grants": held, "limit": limit, "teams": names,
    }  # fmt: skip


@router.post("/logout")
def log_out(plane: Plane, who: Who, actor: Actor, request: Request) -> dict[str, Any]:
    """End the signed token that this request came with, before its time."""
    if who.kind in ("local", "token"):
        return {"principal": who.id, "ended": False}
    text = request.headers["authorization"].partition(" ")[2]
    with plane.database.write() as connection:
        connection.execute(delete(i.revoked).where(i.revoked.c.expires_at < time.time()))
        dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
        # Kept longer than any sensible token lives; its own expiry ends it anyway.
        row = {"digest": digest_of(text), "expires_at": time.time() + 400 * 86400.0, "at": time.time()}
        connection.execute(dialect.insert(i.revoked).values(**row).on_conflict_do_nothing())
        audit(connection, actor, "principal.logout", who.id)
    return {"principal": who.id, "ended": True}


@router.get("/roles")
def list_roles() -> dict[str, Any]:
    """Each role and the actions it allows."""
    return {"roles": {role: sorted(map(str, actions)) for role, actions in ROLES.items()}}


@router.get("/tokens")
def list_tokens(plane: Plane, who: Who, everybody: bool = False) -> dict[str, Any]:
    """One's service tokens, without their secrets."""
    with plane.database.read() as connection:
        return {"tokens": service_tokens.listed(connection, who, everybody=everybody)}


@router.post("/tokens", status_code=201)
def create_token(body: TokenBody, plane: Plane, who: Who, actor: Actor) -> dict[str, Any]:
    """Make a service token; this answer is the only place its text ever is."""
    with plane.database.write() as connection:
        wanted = service_tokens.Wanted(body.name, body.role, body.scope, body.days, body.owner)
        return service_tokens.create(connection, who, wanted, plane.identity, actor)


@router.delete("/tokens/{token}")
def revoke_token(token: _TokenId, plane: Plane, who: Who, actor: Actor) -> dict[str, Any]:
    """End a service token at once."""
    with plane.database.write() as connection:
        return service_tokens.revoke(connection, who, token, actor)


@router.get("/teams")
def list_teams(plane: Plane, who: Who) -> dict[str, Any]:
    """The teams one may see."""
    with plane.database.read() as connection:
        return {"teams": teams.list_teams(connection, who)}


@router.get("/teams/{team}")
def get_team(team: _TeamName, plane: Plane) -> dict[str, Any]:
    """A team's models, and who holds which role."""
    with plane.database.read() as connection:
        return teams.describe(connection, team)


@router.put("/teams/{team}")
def add_team(team: _TeamName, plane: Plane, actor: Actor) -> dict[str, Any]:
    """Make a team."""
    with plane.database.write() as connection:
        return teams.add(connection, team, actor)


@router.delete("/teams/{team}")
def remove_team(team: _TeamName, plane: Plane, actor: Actor) -> dict[str, Any]:
    """Remove a team that owns no model."""
    with plane.database.write() as connection:
        return teams.remove(connection, team, actor)


@router.put("/models/{name}/team")
def move_model(name: Name, body: TeamBody, plane: Plane, who: Who, actor: Actor) -> dict[str, Any]:
    """Give a model to a team."""
    with plane.database.write() as connection:
        return teams.move_model(connection, who, name, body.team, actor)


@router.get("/grants")
def list_grants(plane: Plane, who: Who, principal: _Perhaps = None, scope: _Perhaps = None) -> dict[str, Any]:
    """One's own grants, and those of what one administers."""
    with plane.database.read() as connection:
        return {"grants": teams.grants(connection, who, principal, scope)}


@router.post("/grants", status_code=201)
def give_role(body: GrantBody, plane: Plane, who: Who, actor: Actor) -> dict[str, Any]:
    """Give a role over a team, a model, or everything (`*`)."""
    grant = Grant(body.role, Scope.parse(body.scope))
    with plane.database.write() as connection:
        return teams.give(connection, who, body.principal, grant, actor)


@router.delete("/grants")
def take_role(principal: _Asked, scope: _Asked, role: _Asked, plane: Plane, who: Who, actor: Actor) -> dict[str, Any]:
    """Take a role away."""
    grant = Grant(role, Scope.parse(scope))
    with plane.database.write() as connection:
        return teams.take(connection, who, principal, grant, actor)


@router.get("/principals")
def list_principals(plane: Plane) -> dict[str, Any]:
    """Everybody who was seen."""
    with plane.database.read() as connection:
        return {"principals": teams.principals(connection)}


@router.post("/principals/revoke")
def revoke_principal(body: RevokeBody, plane: Plane, actor: Actor) -> dict[str, Any]:
    """End everything that was issued to somebody."""
    with plane.database.write() as connection:
        return teams.revoke_all(connection, body.principal, body.disable, actor)


@router.get("/secrets")
def list_secrets(plane: Plane, who: Who) -> dict[str, Any]:
    """Names of one's teams' step secrets. Values are not here."""
    with plane.database.read() as connection:
        return {"secrets": secrets.listed(connection, who)}


@router.put("/secrets/{secret}")
def own_secret(secret: _Secret, body: TeamBody, plane: Plane, who: Who, actor: Actor) -> dict[str, Any]:
    """Say which team a step secret belongs to."""
    with plane.database.write() as connection:
        return secrets.own(connection, who, secret, body.team, actor)


@router.delete("/secrets/{secret}")
def forget_secret(secret: _Secret, plane: Plane, who: Who, actor: Actor) -> dict[str, Any]:
    """Make a step secret nobody's."""
    with plane.database.write() as connection:
        return secrets.forget(connection, who, secret, actor)
