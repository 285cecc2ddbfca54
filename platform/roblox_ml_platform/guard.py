"""The outermost layer of every request: who may come in, how much they may send, and how long it took.

A raw ASGI callable, so that streamed bodies stay streams. Errors raised below become one JSON form in `app`; those found here
are written here.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote

from prometheus_client import CollectorRegistry, Counter, Histogram
from roblox_ml_core.auth.principal import LOCAL, Principal
from roblox_ml_core.errors import RmlError, Throttled, TooLarge, Unauthorized
from roblox_ml_core.telemetry import LATENCY_BUCKETS

from .identity.authenticate import Authenticator
from .identity.current import CURRENT
from .identity.refusals import Refusals

__all__ = ["Guard", "actor_of"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_OPEN = frozenset({"/healthz", "/readyz", "/metrics", "/v1/auth", "/n"})  # /n checks its link's signature itself
_IN_QUERY = re.compile(rb"(?:^|&)(?:access_token|id_token|token|bearer)=|rml_[0-9A-Za-z]{12}_[0-9A-Za-z]{20}")
_STORE = "/v1/store/"


class Guard:
    """Who asks is proved, or the request ends here; body limits (also for bodies without a length); metrics by route."""

    def __init__(
        self,
        app: App,
        authenticator: Authenticator,
        refusals: Refusals,
        max_body: int,
        max_blob: int,
        registry: CollectorRegistry,
    ) -> None:
        self._app = app
        self._authenticator, self._refusals = authenticator, refusals
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
        current = None

        async def counted(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if meter.exceeded:
                return  # the framework calls it a body it cannot parse; the reason is ours to give
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            if scope["path"] not in _OPEN:
                scope["rml.principal"] = principal = await self._prove(scope)
                current = CURRENT.set(principal)
            limit = self._max_blob if scope["path"].startswith(_STORE) else self._max_body
            meter.limit(scope, limit)
            await self._app(scope, meter, counted)
            meter.check()
        except RmlError as error:
            status = error.status
            await _answer(error, send)
        finally:
            if current is not None:
                CURRENT.reset(current)
            route = getattr(scope.get("route"), "path", "unknown")
            self._count.labels(scope["method"], route, str(status)).inc()
            self._time.labels(scope["method"], route).observe(time.perf_counter() - started)

    async def _prove(self, scope: Scope) -> Principal:
        """The principal of a request; what does not prove one is refused, and kept in the audit trail."""
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        query = scope.get("query_string", b"")
        if not given and not _carries_token(query):
            raise Unauthorized(
                "this needs a token",
                hint="rml login; or send 'Authorization: Bearer <token>', from RML_TOKEN or $RML_HOME/token",
            )
        try:
            if _carries_token(query):
                raise Unauthorized(
                    "a token was sent in the address, where logs and proxies keep it",
                    hint="send it as 'Authorization: Bearer <token>', and revoke this one: rml tokens revoke",
                )
            scheme, _, token = given[0].partition(b" ")
            if len(given) > 1 or scheme != b"Bearer" or not token:
                raise Unauthorized("the authorization header cannot be read", hint="send 'Bearer <token>', once")
            principal = self._authenticator.local(token)
            if principal is None:
                principal = await asyncio.to_thread(self._authenticator.prove, token, _address(scope))
            return principal
        except (Unauthorized, Throttled) as error:
            await asyncio.to_thread(
                self._refusals.record, error, scope["method"], scope["path"], principal=None, address=_address(scope)
            )
            raise


def _carries_token(query: bytes) -> bool:
    """Whether somebody put a credential into the address."""
    return bool(query) and _IN_QUERY.search(query) is not None


def _address(scope: Scope) -> str:
    """Where the connection comes from. Not what a header says of it: that is the sender's to choose."""
    client = scope.get("client")
    return str(client[0]) if client else "unknown"


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


def actor_of(headers: Any, principal: Principal = LOCAL) -> str:
    """Who the histories name: the proved principal. Who holds the home's token may say whom they act for (`x-rml-actor`)."""
    if not principal.is_local:
        return principal.id
    claimed = unquote(headers.get("x-rml-actor", ""))[:200]
    return claimed if claimed and claimed.isprintable() else "unknown"


async def _answer(error: RmlError, send: Send) -> None:
    body = json.dumps(error.to_json()).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if isinstance(error, Unauthorized):
        headers.append((b"www-authenticate", b"Bearer"))
    if isinstance(error, Throttled):
        headers.append((b"retry-after", str(error.details.get("retry_after_s", 60)).encode()))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
