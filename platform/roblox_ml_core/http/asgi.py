"""The little that a raw ASGI callable needs: read a body within a limit, answer, find a header.

A framework's request and response objects cost more than the door's own work; these are functions over the scope.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from .errors import ConnectionLost

__all__ = ["BodyTooLarge", "Receive", "Scope", "Send", "header", "read_body", "respond", "respond_json"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

_JSON = (b"content-type", b"application/json")


class BodyTooLarge(ValueError):
    """A request body passes the limit; `limit` is in bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the request body is larger than {limit} bytes")
        self.limit = limit


def header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """The first value of a header; ASGI servers give names in lower case."""
    for key, value in headers:
        if key == name:
            return value
    return None


async def read_body(scope: Scope, receive: Receive, limit: int, deadline: float | None = None) -> bytes:
    """The whole request body, read until `deadline` (the running loop's clock).

    Raises:
        TimeoutError: the deadline passed first: a client that sends a byte a minute must not hold memory for ever.
        BodyTooLarge: before reading when a length is declared, else as soon as the limit is passed.
        ConnectionLost: the client went away in the middle of its request.
    """
    declared = header(scope["headers"], b"content-length")
    if declared is not None and declared.isdigit() and int(declared) > limit:
        raise BodyTooLarge(limit)
    async with asyncio.timeout_at(deadline):
        return await _collect(receive, limit)


async def _collect(receive: Receive, limit: int) -> bytes:
    message = await receive()
    _still_there(message)
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        if len(body) > limit:
            raise BodyTooLarge(limit)
        return body
    parts, size = [body], len(body)
    while message.get("more_body", False):
        message = await receive()
        _still_there(message)
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            raise BodyTooLarge(limit)
    return b"".join(parts)


def _still_there(message: MutableMapping[str, Any]) -> None:
    if message["type"] == "http.disconnect":
        raise ConnectionLost("the client closed the connection before its request was complete", response_started=False)


async def respond(send: Send, status: int, headers: Headers, body: bytes = b"") -> None:
    """One whole response; `content-length` is added."""
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def respond_json(send: Send, status: int, document: object, headers: Headers | None = None) -> None:
    """One whole JSON response."""
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    await respond(send, status, [_JSON, *(headers or ())], body)
