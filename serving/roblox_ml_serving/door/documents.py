"""Everything REST but inference: health, metadata, readiness, Triton's descriptions under the endpoint's name, metrics."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from functools import lru_cache
from importlib import metadata
from typing import Any

from roblox_ml_core.http import Response
from roblox_ml_core.http.messages import Header, Reply, Request, json_reply
from roblox_ml_core.telemetry import exposition

from .exchange import exchange
from .fleet import Server
from .refusals import Reason, Refused
from .service import MODEL_HEADER, VERSION_HEADER, Door
from .snapshot import Target

__all__ = ["EXTENSIONS", "Documents", "only", "server_metadata"]

EXTENSIONS = ["binary_tensor_data", "statistics", "model_configuration"]
_WHAT = {"": b"", "stats": b"/stats", "config": b"/config"}


def server_metadata() -> dict[str, Any]:
    """What `GET /v2` and gRPC's ServerMetadata say."""
    return {"name": "roblox-ml-door", "version": _version(), "extensions": EXTENSIONS}


@lru_cache(maxsize=1)
def _version() -> str:
    try:
        return metadata.version("roblox-ml")
    except metadata.PackageNotFoundError:
        return "0+unpackaged"  # run from a source tree


def only(request: Request, method: bytes) -> None:
    """Raises `Refused` for another method."""
    if request.method != method:
        path = request.path[:200].decode("latin-1")
        raise Refused(Reason.WRONG_METHOD, f"{path} takes {method.decode()}, not {request.method.decode('latin-1')}")


class Documents:
    """Answers what is asked rarely."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def answer(self, request: Request) -> Reply:
        """Raises `Refused` where there is nothing to answer."""
        door = self._door
        path = request.path.decode("latin-1")
        parts = path.split("/")
        if parts[-1] == "" and len(parts) > 2:
            parts = parts[:-1]
        authorization = request.header(b"authorization")
        token = None if authorization is None else authorization.decode("latin-1")
        match parts[1:]:
            case ["metrics"]:
                only(request, b"GET")
                door.auth.check_operator(token)
                body, kind = exposition(door.metrics.registry)
                return Reply(200, [(b"content-type", kind.encode())], body)
            case ["v2"]:
                only(request, b"GET")
                return json_reply(200, server_metadata())
            case ["v2", "health", "live"]:
                only(request, b"GET")
                return json_reply(200, {"live": True})
            case ["v2", "health", "ready"]:
                only(request, b"GET")
                if not door.ready:
                    raise Refused(Reason.NOT_READY, "the door has no snapshot from the control plane yet")
                return json_reply(200, {"ready": True, "generation": door.snapshot.generation})
            case ["v2", "models", endpoint, "versions", *_]:
                door.admit(token, endpoint)
                raise door.refuse_version(endpoint)
            case ["v2", "models", endpoint]:
                return await self._document(request, endpoint, "", token)
            case ["v2", "models", endpoint, ("stats" | "config") as what]:
                return await self._document(request, endpoint, what, token)
            case ["v2", "models", endpoint, "ready"]:
                only(request, b"GET")
                target, response = await self._get(endpoint, b"/ready", token)
                if response.status != 200:
                    raise Refused(Reason.NOT_READY, f"endpoint {endpoint!r}: its server says {response.status}")
                return Reply(200, _answered_by(target))
            case ["v2", "models", endpoint, "infer"]:  # only with a query: without one it is an inference
                raise Refused(
                    Reason.BAD_REQUEST,
                    f"/v2/models/{endpoint[:200]}/infer takes no query (what stands after '?'); settings are headers, and a token belongs "
                    'into "authorization: Bearer <token>": addresses end up in logs',
                )
            case _:
                raise Refused(
                    Reason.UNKNOWN_ROUTE,
                    f"the door has no {request.method.decode('latin-1')} {path[:200]}; it has /v2, /v2/health/live, "
                    "/v2/health/ready, /v2/models/{endpoint}[/infer|/ready|/config|/stats], /v1/track and /metrics",
                )

    async def _get(self, endpoint: str, what: bytes, token: str | None) -> tuple[Target, Response]:
        door = self._door
        deadline = asyncio.get_running_loop().time() + door.settings.deadline_s
        target = door.admit(token, endpoint)

        async def call(server: Server, target: Target) -> Response:
            return await exchange(server, target, b"GET", what, (), b"", deadline)

        return target, await door.ask(target, "rest", call)

    async def _document(self, request: Request, endpoint: str, what: str, token: str | None) -> Reply:
        """Triton's own description of the model, under the endpoint's name."""
        only(request, b"GET")
        target, response = await self._get(endpoint, _WHAT[what], token)
        try:
            document = json.loads(response.body)
        except ValueError:
            raise Refused(
                Reason.BAD_UPSTREAM, f"endpoint {endpoint!r}: its server answered with what is not JSON"
            ) from None
        if response.status == 200 and isinstance(document, dict):
            _rename(document, target)
            if not what and (tensors := self._door.tensors(target)) is not None:
                document["inputs"], document["outputs"] = tensors
        return json_reply(response.status, document, _answered_by(target))


def _rename(document: dict[str, Any], target: Target) -> None:
    for described in (document, *document.get("model_stats", ())):
        if described.get("name") == target.triton_model:
            described["name"] = target.endpoint
    if "versions" in document:
        document["versions"] = [target.version_text]


def _answered_by(target: Target) -> Sequence[Header]:
    return [
        (MODEL_HEADER.encode(), target.serving.model.encode()),
        (VERSION_HEADER.encode(), target.version_text.encode()),
    ]
