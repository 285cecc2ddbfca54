"""The outermost layer of every request: who may come in, how much they may send, and how long it took.

A raw ASGI callable, so that streamed bodies stay streams. Errors raised below become one JSON form in `app`; those found here
are written here.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote

from prometheus_client import CollectorRegistry, Counter, Histogram
from roblox_ml_core.errors import RmlError, TooLarge, Unauthorized
from roblox_ml_core.telemetry import LATENCY_BUCKETS

__all__ = ["Guard", "actor_of"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_OPEN = frozenset({"/healthz", "/readyz", "/metrics"})
_STORE = "/v1/store/"


class Guard:
    """Token check in constant time, body limits (also for bodies without a length), request metrics by route."""

    def __init__(self, app: App, token: str, max_body: int, max_blob: int, registry: CollectorRegistry) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()
        self._max_body, self._max_blob = max_body, max_blob
        labels = ["method", "route", "status"]
        self._count = Counter("rml_control_requests_total", "Requests answered", labels, registry=registry)
        self._time = Histogram(
            "rml_control_request_seconds", "Time to answer; long polls wait", ["method", "route"],
            buckets=LATENCY_BUCKETS, registry=registry,
        )  # fmt: skip

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500
        meter = _Meter(receive)

        async def counted(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if meter.exceeded:
                return  # the framework calls it a body it cannot parse; the reason is ours to give
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            if scope["path"] not in _OPEN and not self._knows(scope):
                raise Unauthorized(
                    "this needs the control plane's token",
                    hint="send 'Authorization: Bearer <token>'; the token is in RML_TOKEN or $RML_HOME/token",
                )
            limit = self._max_blob if scope["path"].startswith(_STORE) else self._max_body
            meter.limit(scope, limit)
            await self._app(scope, meter, counted)
            meter.check()
        except RmlError as error:
            status = error.status
            await _answer(error, send)
        finally:
            route = getattr(scope.get("route"), "path", "unknown")
            self._count.labels(scope["method"], route, str(status)).inc()
            self._time.labels(scope["method"], route).observe(time.perf_counter() - started)

    def _knows(self, scope: Scope) -> bool:
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        return secrets.compare_digest(given, self._expected)


class _Meter:
    """`receive` that stops once more bytes came than the route allows."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._limit, self._seen = 0, 0
        self.exceeded = False

    def limit(self, scope: Scope, limit: int) -> None:
        """Set the limit; a body whose announced length is over it is refused before a byte is read."""
        self._limit = limit
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        self._seen = int(length) if length.isdigit() else 0
        self.check()
        self._seen = 0

    async def __call__(self) -> MutableMapping[str, Any]:
        message = await self._receive()
        self._seen += len(message.get("body", b""))
        self.exceeded = self._seen > self._limit
        self.check()
        return message

    def check(self) -> None:
        if self._seen > self._limit:
            raise TooLarge(
                f"the body is larger than {self._limit} bytes",
                hint="files go to /v1/store as blobs, only JSON comes here",
            )


def actor_of(headers: Any) -> str:
    """Who says to be asking (`x-rml-actor`); a claim, not a proof, since all share one token."""
    claimed = unquote(headers.get("x-rml-actor", ""))[:200]
    return claimed if claimed and claimed.isprintable() else "unknown"


async def _answer(error: RmlError, send: Send) -> None:
    body = json.dumps(error.to_json()).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
