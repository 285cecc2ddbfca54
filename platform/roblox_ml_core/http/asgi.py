"""An application of ours under any ASGI server, for what our own does not do (TLS, HTTP/2). It costs more than twice as much a request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, cast

from .messages import Application, Beginner, Reply, Request, json_reply
from .server import Limits

__all__ = ["as_asgi"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
logger = logging.getLogger(__name__)


class _HungUp(Exception):
    """The client is gone: nobody is left to be answered."""


def as_asgi(
    application: Application, limits: Limits | None = None
) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """The application as an ASGI callable. Of the limits those of the body hold; the server has its own for heads and idling."""
    bounds = limits or Limits()

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            try:
                reply = await _reply(application, bounds, scope, receive)
            except _HungUp:
                return
            headers = [*reply.headers]
            if reply.status != 204:
                headers.append((b"content-length", b"%d" % len(reply.body)))
            await send({"type": "http.response.start", "status": reply.status, "headers": headers})
            await send({"type": "http.response.body", "body": reply.body})
            if reply.sent is not None:
                reply.sent()

    return serve


async def _reply(application: Application, limits: Limits, scope: Scope, receive: Receive) -> Reply:
    request = _request(scope)
    request.body_deadline = asyncio.get_running_loop().time() + limits.body_s
    if request.method == b"HEAD":
        return Reply(405, [(b"allow", b"GET, POST")])
    refusal = application.admit(request)
    if refusal is not None:
        return refusal
    try:
        async with asyncio.timeout_at(request.body_deadline):
            body = await _body(receive, limits.body_bytes)
    except TimeoutError:
        return json_reply(408, {"error": "the request's body was not complete before the deadline"})
    if body is None:
        return json_reply(413, {"error": f"the request body is larger than {limits.body_bytes} bytes"})
    request.body = body
    answer = asyncio.ensure_future(_answer(application, request))
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise _HungUp
        return answer.result()
    except (_HungUp, asyncio.CancelledError):
        raise
    except Exception:
        logger.exception("the application failed on %s", request.target[:200])
        return json_reply(500, {"error": "the server failed; its log has the details"})
    finally:
        answer.cancel()
        gone.cancel()
        await asyncio.gather(answer, gone, return_exceptions=True)


async def _answer(application: Application, request: Request) -> Reply:
    if hasattr(application, "begin"):
        made: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        work = cast(Beginner, application).begin(request, lambda reply: None if made.done() else made.set_result(reply))
        if isinstance(work, Reply):
            return work
        if work is not None:
            try:
                return await made
            except asyncio.CancelledError:
                work.cancel()
                raise
    return await application.answer(request)


def _request(scope: Scope) -> Request:
    target: bytes = scope.get("raw_path") or scope["path"].encode()
    if query := scope.get("query_string"):
        target += b"?" + query
    headers = [(bytes(name).lower(), bytes(value)) for name, value in scope["headers"]]
    client = scope.get("client")
    return Request(scope["method"].encode(), target, headers, client[0] if client else "")


async def _body(receive: Receive, limit: int) -> bytes | None:
    """The whole body; None where it is larger than `limit`."""
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _HungUp
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            return None
        more = message.get("more_body", False)
    return b"".join(parts)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
