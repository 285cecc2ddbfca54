"""The REST side: a raw ASGI callable. An inference body is read once, sent on once, and never parsed here."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from functools import lru_cache
from importlib import metadata
from math import ceil
from typing import Any

from roblox_ml_core.http import (
    ConnectFailed,
    ConnectionLost,
    DeadlineExceeded,
    PoolBusy,
    ProtocolViolation,
    Response,
    ResponseTooLarge,
)
from roblox_ml_core.http.asgi import BodyTooLarge, Receive, Scope, Send, read_body, respond, respond_json
from roblox_ml_core.telemetry import exposition

from . import inference_id
from .bodies import HungUp, decode_body, while_connected
from .fleet import Server
from .refusals import Reason, Refused
from .rewrite import rename_json
from .service import MODEL_HEADER, TIMEOUT_HEADER, VERSION_HEADER, Door, Lost, timeout_seconds
from .snapshot import Target

__all__ = ["EXTENSIONS", "RestDoor", "server_metadata"]

EXTENSIONS = ["binary_tensor_data", "statistics", "model_configuration"]
_FORWARDED = frozenset((b"content-type", b"inference-header-content-length", b"content-encoding"))
_CODINGS = frozenset((b"gzip", b"deflate", b"identity"))
_RETURNED = frozenset((b"content-type", b"content-encoding"))
_HEADER_LENGTH = b"inference-header-content-length"
_TIMEOUT = TIMEOUT_HEADER.encode()
_ID = inference_id.HEADER.encode()
_VERSION = VERSION_HEADER.encode()
_NOT_JSON = b"failed to parse the request JSON"
_DOCUMENTS = {"": b"", "stats": b"/stats", "config": b"/config"}
logger = logging.getLogger(__name__)

Headers = list[tuple[bytes, bytes]]


def server_metadata() -> dict[str, Any]:
    """What `GET /v2` and gRPC's ServerMetadata say."""
    return {"name": "roblox-ml-door", "version": _version(), "extensions": EXTENSIONS}


@lru_cache(maxsize=1)
def _version() -> str:
    try:
        return metadata.version("roblox-ml")
    except metadata.PackageNotFoundError:
        return "0+unpackaged"  # run from a source tree


class RestDoor:
    """The ASGI application."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        parts = scope["path"].split("/")
        extra: Headers = []
        try:
            if len(parts) == 5 and parts[4] == "infer" and parts[1] == "v2" and parts[2] == "models":
                await self._infer(parts[3], scope, receive, send, extra)
            else:
                await self._other(parts, scope, send)
        except Refused as refused:
            await _refuse(send, refused, extra)
        except (ConnectionLost, HungUp):
            return  # the client went away in the middle of its request: there is nobody to answer
        except Exception:
            logger.exception("the door failed on %s", scope["path"][:200])
            await respond_json(send, 500, {"error": "the door itself failed; its log has the details"}, extra)

    async def _infer(self, endpoint: str, scope: Scope, receive: Receive, send: Send, extra: Headers) -> None:
        _only(scope, "POST")
        started = time.monotonic()
        forward: Headers = []
        timeout: str | None = None
        given_id: str | None = None
        for key, value in scope["headers"]:
            if key in _FORWARDED:
                if key == b"content-encoding" and value.lower() not in _CODINGS:
                    raise Refused(
                        Reason.UNSUPPORTED_CODING, f"content-encoding {value[:40]!r}: use gzip, deflate or none"
                    )
                forward.append((key, value))
            elif key == _TIMEOUT:
                timeout = value.decode("latin-1")
            elif key == _ID:
                given_id = value.decode("latin-1")
        identity = inference_id.keep_or_make(given_id)
        extra.append((_ID, identity.encode()))
        door = self._door
        first = door.target(endpoint)  # unknown endpoints are refused before their body is read
        meter = door.metrics.meter(endpoint, first.version_text, "rest")
        meter.in_flight.inc()
        code, failed = "500", True
        try:
            deadline = asyncio.get_running_loop().time() + timeout_seconds(timeout, door.settings.deadline_s)
            try:
                body = await read_body(scope, receive, door.settings.max_body_bytes, deadline)
            except BodyTooLarge as error:
                raise Refused(Reason.TOO_LARGE, f"{error}; send fewer items per request") from None
            except TimeoutError:
                extra.append((b"connection", b"close"))  # else the rest of the body would still be waited for
                raise Refused(Reason.SLOW_BODY, "the request's body was not complete before the deadline") from None
            except ConnectionLost:
                code, failed = "499", False
                raise

            target = door.target(endpoint)
            if (handler := door.handler(target)) is not None:
                if target is not first:
                    meter.in_flight.dec()
                    meter = door.metrics.meter(endpoint, target.version_text, "rest")
                    meter.in_flight.inc()
                plain, json_length = decode_body(forward, body, door.settings.max_body_bytes)
                work = handler.rest(plain, json_length, deadline)
                headers, answer = await while_connected(work, receive)
                code, failed = "200", False
                extra.append((_VERSION, target.version_text.encode()))
                await respond(send, 200, headers + extra, answer)
                return

            async def call(server: Server, target: Target) -> Response:
                return await _exchange(server, target, b"POST", b"/infer", forward, body, deadline)

            target, response = await door.ask(endpoint, "rest", call)
            if target is not first:
                meter.in_flight.dec()
                meter = door.metrics.meter(endpoint, target.version_text, "rest")
                meter.in_flight.inc()
            code, failed = str(response.status), response.status >= 500
            extra.append((_VERSION, target.version_text.encode()))
            await _pass_on(send, target, response, extra)
        except Refused as refused:
            code = str(refused.refusal.reason.http_status)
            failed = refused.refusal.reason.http_status >= 500
            raise
        except HungUp:
            code, failed = "499", False
            raise
        finally:
            meter.in_flight.dec()
            meter.done(code, time.monotonic() - started, failed=failed)

    async def _other(self, parts: list[str], scope: Scope, send: Send) -> None:
        door = self._door
        if parts[-1] == "" and len(parts) > 2:
            parts = parts[:-1]
        match parts[1:]:
            case ["metrics"]:
                _only(scope, "GET")
                body, kind = exposition(door.metrics.registry)
                await respond(send, 200, [(b"content-type", kind.encode())], body)
            case ["v2"]:
                _only(scope, "GET")
                await respond_json(send, 200, server_metadata())
            case ["v2", "health", "live"]:
                _only(scope, "GET")
                await respond(send, 200, [])
            case ["v2", "health", "ready"]:
                _only(scope, "GET")
                if not door.ready:
                    raise Refused(Reason.NOT_READY, "the door has no snapshot from the control plane yet")
                await respond(send, 200, [])
            case ["v2", "models", endpoint]:
                await self._document(endpoint, "", scope, send)
            case ["v2", "models", endpoint, ("stats" | "config") as what]:
                await self._document(endpoint, what, scope, send)
            case ["v2", "models", endpoint, "ready"]:
                _only(scope, "GET")
                target, response = await self._get(endpoint, b"/ready")
                if response.status != 200:
                    raise Refused(Reason.NOT_READY, f"endpoint {endpoint!r}: its server says {response.status}")
                await respond(send, 200, _answered_by(target))
            case ["v2", "models", endpoint, "versions", *_]:
                door.target(endpoint)
                raise door.refuse_version(endpoint)
            case _:
                raise Refused(
                    Reason.UNKNOWN_ROUTE,
                    f"the door has no {scope['method']} {scope['path'][:200]}; it has /v2, /v2/health/live, /v2/health/ready, "
                    "/v2/models/{endpoint}[/infer|/ready|/config|/stats] and /metrics",
                )

    async def _get(self, endpoint: str, what: bytes) -> tuple[Target, Response]:
        deadline = asyncio.get_running_loop().time() + self._door.settings.deadline_s

        async def call(server: Server, target: Target) -> Response:
            return await _exchange(server, target, b"GET", what, (), b"", deadline)

        return await self._door.ask(endpoint, "rest", call)

    async def _document(self, endpoint: str, what: str, scope: Scope, send: Send) -> None:
        """Triton's own description of the model, under the endpoint's name."""
        _only(scope, "GET")
        target, response = await self._get(endpoint, _DOCUMENTS[what])
        try:
            document = json.loads(response.body)
        except ValueError:
            raise Refused(
                Reason.BAD_UPSTREAM, f"endpoint {endpoint!r}: its server answered with what is not JSON"
            ) from None
        if response.status == 200 and isinstance(document, dict):
            _rename_document(document, target)
        await respond_json(send, response.status, document, _answered_by(target))


def _rename_document(document: dict[str, Any], target: Target) -> None:
    for described in (document, *document.get("model_stats", ())):
        if described.get("name") == target.triton_model:
            described["name"] = target.endpoint
    if "versions" in document:
        document["versions"] = [target.version_text]


def _answered_by(target: Target) -> Headers:
    return [(MODEL_HEADER.encode(), target.serving.model.encode()), (_VERSION, target.version_text.encode())]


async def _exchange(
    server: Server, target: Target, method: bytes, what: bytes, headers: Any, body: bytes, deadline: float
) -> Response:
    try:
        response = await server.pool.request(method, target.http_base + what, headers, body, deadline=deadline)
    except (ConnectFailed, ConnectionLost) as error:
        raise Lost(error.message) from error
    except DeadlineExceeded as error:
        raise Refused(
            Reason.DEADLINE, f"endpoint {target.endpoint!r} did not answer before the deadline ({error})"
        ) from error
    except PoolBusy as error:
        raise Refused(Reason.OVERLOADED, f"endpoint {target.endpoint!r} is overloaded: {error}") from error
    except (ProtocolViolation, ResponseTooLarge) as error:
        raise Refused(Reason.BAD_UPSTREAM, f"endpoint {target.endpoint!r}: {error}") from error
    if response.status >= 400 and _lacks_model(response):
        raise Lost(_error_text(response))
    if response.status == 500 and _NOT_JSON in response.body[:512]:
        return response._replace(status=400)  # Triton calls a client's broken JSON its own internal error
    return response


def _lacks_model(response: Response) -> bool:
    """The server does not hold the version although it was reported ready: it has just restarted, or is full."""
    return response.status in (404, 503) or (response.status == 400 and b"unknown model" in response.body[:512])


def _error_text(response: Response) -> str:
    try:
        document = json.loads(response.body)
        return str(document["error"])[:300]
    except (ValueError, KeyError, TypeError):
        return f"HTTP {response.status}"


async def _pass_on(send: Send, target: Target, response: Response, extra: Headers) -> None:
    """The model's answer under the endpoint's name. Only the head of a plain body is touched."""
    body = response.body
    headers: Headers = [pair for pair in response.headers if pair[0] in _RETURNED]
    length = response.header(_HEADER_LENGTH)
    if response.status == 200 and response.header(b"content-encoding") is None:
        renamed = rename_json(body, target.triton_model, target.endpoint)
        if length is not None and length.isdigit():
            length = b"%d" % (int(length) + len(renamed) - len(body))
        body = renamed
    if length is not None:
        headers.append((_HEADER_LENGTH, length))
    await respond(send, response.status, headers + extra, body)


async def _refuse(send: Send, refused: Refused, extra: Headers) -> None:
    reason = refused.refusal.reason
    headers = list(extra)
    if (seconds := refused.refusal.retry_after) is not None:
        headers.append((b"retry-after", b"%d" % max(1, ceil(seconds))))
        headers.append((b"retry-after-ms", b"%d" % max(1, ceil(seconds * 1000))))
    await respond_json(send, reason.http_status, {"error": refused.refusal.message}, headers)


def _only(scope: Mapping[str, Any], method: str) -> None:
    if scope["method"] != method:
        raise Refused(Reason.WRONG_METHOD, f"{scope['path'][:200]} takes {method}, not {scope['method']}")
