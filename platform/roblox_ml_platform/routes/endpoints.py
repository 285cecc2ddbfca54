"""Endpoints, the snapshot that doors poll, and the servers that agents report."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from roblox_ml_core.auth import digest_of
from roblox_ml_core.errors import Unauthorized

from .. import endpoints, serving
from ..bodies import EndpointBody, IntrospectBody, Name, StatusBody, Wait, WithdrawBody
from ..changes import poll
from ..context import Actor, Context, Plane, Who
from ..database import counter
from ..identity import access
from ..identity.door_keys import door_keys, key_of
from ..identity.policy import declare
from ..rollout import canaries, rollbacks, shadows
from ..rollout.experiments import list_experiments
from ..rollout.state import misfits

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["serving"])
_Role = Literal["general", "challenger"]
declare("GET", "/v1/door/keys", "serve", "platform")
declare("POST", "/v1/door/introspect", "serve", "platform")
_After = Annotated[int | None, Query(ge=0, le=2**62)]


@router.get("/endpoints")
def list_endpoints(plane: Plane, who: Who) -> dict[str, Any]:
    with plane.database.read() as connection:
        may_see = access.viewer(connection, who)
        return {"endpoints": [one for one in endpoints.list_endpoints(connection) if may_see(one["model"])]}


@router.get("/endpoints/{name}")
def get_endpoint(name: Name, plane: Plane) -> dict[str, Any]:
    with plane.database.read() as connection:
        running = [one for one in list_experiments(connection, running=True) if one["endpoint"] == name]
        return {
            **endpoints.describe(connection, name),
            "canary": canaries.describe(connection, name),
            "shadows": shadows.list_shadows(connection, name),
            "experiments": running,
            "left_out": misfits(connection, name),
        }


@router.put("/endpoints/{name}")
def put_endpoint(name: Name, body: EndpointBody, plane: Plane, who: Who, actor: Actor) -> dict[str, Any]:
    """Create an endpoint or point it elsewhere: a promotion, of the model it leaves and of the one it comes to."""
    with plane.database.write() as connection:
        access.require(connection, who, "promote", model=body.model)
        if (before := endpoints.model_of(connection, name)) is not None:
            access.require(connection, who, "promote", model=before)
        to = endpoints.Target(body.model, body.alias, body.version)
        return endpoints.put(connection, name, to, actor, policy=body.parts())


@router.delete("/endpoints/{name}")
def delete_endpoint(name: Name, plane: Plane, actor: Actor) -> dict[str, Any]:
    with plane.database.write() as connection:
        return endpoints.delete_endpoint(connection, name, actor)


@router.post("/endpoints/{name}/rollback")
def roll_back(name: Name, plane: Plane, actor: Actor, body: WithdrawBody | None = None) -> dict[str, Any]:
    """Take the canary back; without one, back to the version before (an endpoint that follows an alias rolls the alias back).

    With a body that says where a refused deployment pointed the endpoint: take only that move back, if it is still the last one.
    """
    with plane.database.write() as connection:
        if body is not None:
            return endpoints.withdraw(connection, name, endpoints.Target(body.model, body.alias, body.version), actor)
        return rollbacks.roll_back(connection, name, actor)


@router.get("/snapshot")
async def get_snapshot(plane: Plane, after: _After = None, wait: Wait = 0.0) -> dict[str, Any]:
    """The policy snapshot; with `after`, the answer waits up to `wait` seconds for another generation."""
    await poll(plane.changes, lambda: _look(plane, "snapshot"), after, min(wait, plane.settings.max_wait_s))
    return await asyncio.to_thread(_read, plane, serving.snapshot)


@router.get("/servers")
def list_servers(plane: Plane) -> dict[str, Any]:
    with plane.database.read() as connection:
        return {"servers": serving.list_servers(connection)}


@router.get("/servers/{server}/desired")
async def get_desired(
    server: Name, plane: Plane, after: _After = None, wait: Wait = 0.0, role: _Role = "general"
) -> dict[str, Any]:
    """The versions that must be resident on the server, by its role; waits like the snapshot."""
    await poll(plane.changes, lambda: _look(plane, "desired"), after, min(wait, plane.settings.max_wait_s))
    return await asyncio.to_thread(_read, plane, lambda connection: serving.desired(connection, role))


@router.put("/servers/{server}/status")
def put_status(server: Name, body: StatusBody, plane: Plane) -> dict[str, Any]:
    """A server's report of what it holds; also its sign of life."""
    with plane.database.write() as connection:
        states = [{**state.model_dump(), "reason": state.reason or ""} for state in body.models]
        return serving.report(connection, server, body.http, body.grpc, states)


@router.get("/door/keys")
async def get_door_keys(plane: Plane, after: _After = None, wait: Wait = 0.0) -> dict[str, Any]:
    """Hashes of service tokens and which models each may ask; with `after` (a version), waits like the snapshot."""

    def version() -> int:
        return int(read()["version"])

    def read() -> dict[str, Any]:
        with plane.database.read() as connection:
            return door_keys(connection)

    await poll(plane.changes, version, after, min(wait, plane.settings.max_wait_s))
    return await asyncio.to_thread(read)


@router.post("/door/introspect")
def introspect(body: IntrospectBody, request: Request, plane: Plane) -> dict[str, Any]:
    """Who a signed token is and which models it may ask, for a door that was shown it (RFC 7662's `active` says whether it is anybody)."""
    token = body.token.encode("utf-8", "replace")
    try:
        # Each token has its own budget of failures: one bad client must not end what the door may ask for the others.
        principal = request.app.state.authenticator.prove(token, f"introspect {digest_of(body.token)[:16]}")
    except Unauthorized as error:
        return {"active": False, "message": error.message}
    with plane.database.read() as connection:
        return {"active": True, **key_of(connection, principal)}


def _look(plane: Context, name: str) -> int:
    serving.expire(plane.database, plane.settings.server_silence_s, plane.listening_since)
    with plane.database.read() as connection:
        return counter(connection, name)


def _read(plane: Context, what: Any) -> dict[str, Any]:
    serving.expire(plane.database, plane.settings.server_silence_s, plane.listening_since)
    with plane.database.read() as connection:
        answer: dict[str, Any] = what(connection)
        return answer
