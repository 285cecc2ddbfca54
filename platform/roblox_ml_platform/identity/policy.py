"""Who may do what, on one page: for every route the action it needs and on what.

A route that is not listed is for administrators of the whole platform: forgetting a line closes a door, it never opens one.
Where `on` is "route", the request's body or the stored row decides, and the route calls `access.require` itself.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Literal

from fastapi import Request
from roblox_ml_core.auth.grants import Action, Resource
from roblox_ml_core.auth.principal import LOCAL, Principal
from roblox_ml_core.errors import Forbidden
from sqlalchemy import Connection, select

from .. import tables as t
from . import access

__all__ = ["POLICY", "Rule", "declare", "enforce"]

On = Literal["model", "endpoint", "team", "platform", "anywhere", "route"]


@dataclass(frozen=True, slots=True)
class Rule:
    """The action a route needs, on the thing its path names; "anywhere": on something at least."""

    action: str
    on: On


_SEE, _OWN = Rule("view", "model"), Rule("admin", "model")
_FLEET = Rule("view", "platform")
_INSIDE = Rule("view", "route")
_VERSIONS = "/v1/models/{name}/versions"
_ALIAS = "/v1/models/{name}/aliases/{alias}"
_BLOB = "/v1/store/sha256/{prefix}/{digest}"

POLICY: dict[tuple[str, str], Rule] = {
    # models: what is listed is what may be seen
    ("GET", "/v1/models"): _INSIDE,
    ("GET", "/v1/models/{name}"): _SEE,
    ("PUT", "/v1/models/{name}/team"): _INSIDE,  # admin of both teams
    ("POST", "/v1/models/{name}/mlflow/sync"): _OWN,
    ("GET", _VERSIONS): _SEE,
    ("POST", _VERSIONS): _INSIDE,  # register; and promote, for the alias to move
    ("GET", _VERSIONS + "/{version}"): _SEE,
    ("PATCH", _VERSIONS + "/{version}"): Rule("register", "model"),
    ("DELETE", _VERSIONS + "/{version}"): _OWN,
    ("GET", _ALIAS): _SEE,
    ("GET", _ALIAS + "/history"): _SEE,
    ("PUT", _ALIAS): Rule("promote", "model"),
    ("POST", _ALIAS + "/rollback"): Rule("promote", "model"),
    ("DELETE", _ALIAS): _OWN,
    # serving: an endpoint is its model's
    ("GET", "/v1/endpoints"): _INSIDE,
    ("GET", "/v1/endpoints/{name}"): Rule("view", "endpoint"),
    ("PUT", "/v1/endpoints/{name}"): _INSIDE,  # promote on the old and on the new model
    ("DELETE", "/v1/endpoints/{name}"): Rule("promote", "endpoint"),
    ("POST", "/v1/endpoints/{name}/rollback"): Rule("promote", "endpoint"),
    ("GET", "/v1/snapshot"): _FLEET,
    ("GET", "/v1/servers"): _FLEET,
    ("GET", "/v1/servers/{server}/desired"): _FLEET,
    ("PUT", "/v1/servers/{server}/status"): Rule("serve", "platform"),
    # blobs: read by who may see what they belong to
    ("PUT", _BLOB): Rule("run", "anywhere"),
    ("HEAD", _BLOB): _INSIDE,
    ("GET", _BLOB): _INSIDE,
    # upkeep
    ("POST", "/v1/gc"): Rule("admin", "platform"),
    ("GET", "/v1/audit"): _INSIDE,
    # identity
    ("GET", "/v1/whoami"): _INSIDE,
    ("POST", "/v1/logout"): _INSIDE,
    ("GET", "/v1/roles"): _INSIDE,
    ("GET", "/v1/tokens"): _INSIDE,
    ("POST", "/v1/tokens"): _INSIDE,
    ("DELETE", "/v1/tokens/{token}"): _INSIDE,
    ("GET", "/v1/teams"): _INSIDE,
    ("GET", "/v1/teams/{team}"): Rule("view", "team"),
    ("PUT", "/v1/teams/{team}"): Rule("admin", "platform"),
    ("DELETE", "/v1/teams/{team}"): Rule("admin", "platform"),
    ("GET", "/v1/grants"): _INSIDE,
    ("POST", "/v1/grants"): _INSIDE,
    ("DELETE", "/v1/grants"): _INSIDE,
    ("GET", "/v1/principals"): Rule("admin", "platform"),
    ("POST", "/v1/principals/revoke"): Rule("admin", "platform"),
    ("GET", "/v1/secrets"): _INSIDE,
    ("PUT", "/v1/secrets/{secret}"): _INSIDE,
    ("DELETE", "/v1/secrets/{secret}"): _INSIDE,
}


def declare(method: str, path: str, action: str, on: On) -> None:
    """Say what a route needs, from the module that has the route."""
    POLICY[method, path] = Rule(action, on)


async def enforce(request: Request) -> None:
    """Refuse what the page above does not allow. Runs before every route of the application."""
    principal: Principal = request.scope.get("rml.principal", LOCAL)
    if principal.is_local:
        return
    await asyncio.to_thread(_check, request, principal)


def _check(request: Request, principal: Principal) -> None:
    route = getattr(request.scope.get("route"), "path", "")
    rule = POLICY.get((request.method, route), Rule("admin", "platform"))
    if rule.on == "route":
        return
    database = request.app.state.context.database
    with database.read() as connection:
        if rule.on == "anywhere":
            _anywhere(connection, principal, rule.action)
        elif rule.on == "team":
            access.require(connection, principal, rule.action, team=request.path_params["team"])
        elif rule.on == "platform":
            access.require(connection, principal, rule.action)
        else:
            name = request.path_params["name"]
            model = name if rule.on == "model" else _model_of(connection, name)
            access.require(connection, principal, rule.action, model=model)


def _model_of(connection: Connection, endpoint: str) -> str:
    """The endpoint's model; one that does not exist is treated as a model nobody owns, so that absence tells nothing."""
    found: Any = connection.execute(select(t.endpoints.c.model).where(t.endpoints.c.name == endpoint)).scalar()
    return str(found) if found is not None else endpoint


def _anywhere(connection: Connection, principal: Principal, action: str) -> None:
    for grant in access.grants_of(connection, principal):
        name = grant.scope.name or None
        resource = Resource(name) if grant.scope.kind == "team" else Resource(None, name)
        if grant.scope.kind == "model" and name is not None:
            resource = access.resource_of(connection, name)
        if access.judge(connection, principal, action, resource).allowed:
            return
        # A limit to one model or team is not seen from a grant over more than that.
        if principal.limit is not None and principal.limit.scope.name:
            scope = principal.limit.scope
            inner = Resource(scope.name) if scope.kind == "team" else access.resource_of(connection, scope.name)
            if access.judge(connection, principal, Action(action), inner).allowed:
                return
    raise Forbidden(
        f"{principal.display or principal.id} may not {action} anything here",
        hint="ask an administrator of your team for a role: rml grants give PRINCIPAL team:NAME run",
        details={"action": action, "resource": "anything"},
    )
