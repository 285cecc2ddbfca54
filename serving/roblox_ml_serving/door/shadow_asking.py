"""Ask one shadow what the primary was asked. No second attempt, nothing taken from the retry budget, no server judged by it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import grpc
from roblox_ml_core.policy import Ref

from ..preprocess.kinds import Call
from .bodies import decode_body
from .exchange import HEADER_LENGTH, exchange, pass_on
from .fleet import Server
from .recording import Served
from .refusals import Reason, Refused
from .rewrite import rename_request, scan
from .service import Door
from .snapshot import Target

__all__ = ["asker"]

Answer = tuple[bytes, int | None]


def asker(door: Door, served: Served, ref: Ref, endpoint: str, request: bytes) -> Callable[[float], Awaitable[Answer]]:
    """What a shadow job runs: takes a deadline on the loop's clock, gives the answer and its JSON length."""

    async def ask(deadline: float) -> Answer:
        target = door.snapshot.target_of(endpoint, ref)
        if target is None:
            raise Refused(Reason.NOT_READY, f"no server has {ref.key} ready")
        call = Call(served.identity, served.unit, served.decision.params)
        if served.protocol == "grpc":
            return await _grpc(door, target, request, deadline, call), None
        return await _rest(door, target, served, request, deadline, call)

    return ask


async def _rest(door: Door, target: Target, served: Served, body: bytes, deadline: float, call: Call) -> Answer:
    handler = door.handler(target)
    if handler is not None:
        plain, json_length = decode_body(served.forward, body, door.settings.max_body_bytes)
        headers, answer = await handler.rest(plain, json_length, deadline, call)
        return answer, _length(headers)
    server = _server(door, target)
    server.health.in_flight += 1
    try:
        response = await exchange(server, target, b"POST", b"/infer", served.forward, body, deadline)
    finally:
        server.health.in_flight -= 1
    reply = pass_on(target, response)
    if reply.status != 200:
        said = reply.body[:200].decode("utf-8", "replace")
        raise Refused(Reason.BAD_UPSTREAM, f"{target.serving.key} answered {reply.status}: {said}")
    return reply.body, _length(reply.headers)


async def _grpc(door: Door, target: Target, message: bytes, deadline: float, call: Call) -> bytes:
    handler = door.handler(target)
    if handler is not None:
        return await handler.grpc(message, deadline, call)
    server = _server(door, target)
    payload = rename_request(message, scan(message), target.triton_model, target.version_text)
    left = deadline - asyncio.get_running_loop().time()
    server.health.in_flight += 1
    try:
        return await server.model_infer(payload, timeout=max(left, 0.001))
    except grpc.aio.AioRpcError as error:
        reason = Reason.DEADLINE if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED else Reason.BAD_UPSTREAM
        raise Refused(reason, f"{target.serving.key}: {error.code().name}: {error.details()}") from None
    finally:
        server.health.in_flight -= 1


def _server(door: Door, target: Target) -> Server:
    server = door.fleet.choose(target)
    if server is None:
        raise Refused(Reason.NOT_READY, f"the servers of {target.serving.key} have just left")
    return server


def _length(headers: Sequence[tuple[bytes, bytes]]) -> int | None:
    for name, value in headers:
        if name == HEADER_LENGTH and value.isdigit():
            return int(value)
    return None
