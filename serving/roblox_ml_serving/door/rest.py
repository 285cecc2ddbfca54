"""The REST side: whole requests in, whole replies out. A body without preprocessing is read once, sent on once, and never parsed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any, NamedTuple

from roblox_ml_core.http import Response
from roblox_ml_core.http.messages import Header, Reply, Request, json_reply
from roblox_ml_core.policy import Decision

from ..preprocess.kinds import Call
from . import inference_id
from .bodies import decode_body
from .documents import Documents, only
from .exchange import exchange, pass_on, refuse
from .fleet import Server
from .recording import Served
from .refusals import Reason, Refused
from .service import (
    ARMS_HEADER,
    CONTEXT_HEADER,
    FALLBACK_HEADER,
    TIMEOUT_HEADER,
    UNIT_HEADER,
    VERSION_HEADER,
    Door,
    arms_text,
    read_unit,
    timeout_seconds,
)
from .snapshot import Target

__all__ = ["RestDoor"]

_FORWARDED = frozenset(
    (b"content-type", b"inference-header-content-length", b"content-encoding", b"traceparent", b"tracestate")
)
_CODINGS = frozenset((b"gzip", b"deflate", b"identity"))
_OURS = {
    TIMEOUT_HEADER.encode(): "timeout",
    inference_id.HEADER.encode(): "id",
    UNIT_HEADER.encode(): "unit",
    CONTEXT_HEADER.encode(): "context",
    b"authorization": "authorization",
}
_ID, _VERSION = inference_id.HEADER.encode(), VERSION_HEADER.encode()
_ARMS, _FALLBACK = ARMS_HEADER.encode(), (FALLBACK_HEADER.encode(), b"1")
_PREFIX, _SUFFIX = b"/v2/models/", b"/infer"
# A challenger that does not answer must leave the champion time to.
_CHALLENGERS_PART = 0.5


class _Inference(NamedTuple):
    """What `admit` has read of a request's head."""

    endpoint: str
    unit: str | None
    context: str | None
    identity: str
    timeout: float
    arrived: float  # the loop's clock, for deadlines
    started: float  # a finer clock: the loop's counts milliseconds
    forward: list[Header]
    extra: list[Header]


class RestDoor:
    """The application behind the REST socket."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._documents = Documents(door)
        self._loop = asyncio.get_running_loop()

    def admit(self, request: Request) -> Reply | None:
        """Refuse from the head alone: an unknown endpoint's body is not read."""
        target = request.target
        if not (target.startswith(_PREFIX) and target.endswith(_SUFFIX)):
            return None
        endpoint = target[len(_PREFIX) : -len(_SUFFIX)].decode("latin-1")
        if "/" in endpoint or "?" in endpoint:
            return None
        extra: list[Header] = []
        try:
            self._admit(request, endpoint, extra)
        except Refused as refused:
            return refuse(refused, extra)
        return None

    def _admit(self, request: Request, endpoint: str, extra: list[Header]) -> None:
        only(request, b"POST")
        forward: list[Header] = []
        found: dict[str, str] = {}
        for pair in request.headers:
            key = pair[0]
            if key in _FORWARDED:
                if key == b"content-encoding" and pair[1].lower() not in _CODINGS:
                    raise Refused(
                        Reason.UNSUPPORTED_CODING, f"content-encoding {pair[1][:40]!r}: use gzip, deflate or none"
                    )
                forward.append(pair)
            elif (ours := _OURS.get(key)) is not None:
                found[ours] = pair[1].decode("utf-8", "replace")
        identity = inference_id.keep_or_make(found.get("id"))
        extra.append((_ID, identity.encode()))
        door = self._door
        target = door.target(endpoint)
        door.auth.check(found.get("authorization"), target.serving.model)
        timeout = timeout_seconds(found.get("timeout"), door.settings.deadline_s)
        now = self._loop.time()
        request.body_deadline = now + timeout
        request.state = _Inference(
            endpoint,
            read_unit(found.get("unit")),
            found.get("context"),
            identity,
            timeout,
            now,
            perf_counter(),
            forward,
            extra,
        )

    async def answer(self, request: Request) -> Reply:
        """The reply to a whole request."""
        state = request.state
        try:
            if isinstance(state, _Inference):
                return await self._infer(request.body, state)
            if request.path == b"/v1/track":
                return self._take(request, self._door.recorder.track)
            if request.path == b"/v1/exposures":
                return self._take(request, self._door.recorder.expose)
            return await self._documents.answer(request)
        except Refused as refused:
            return refuse(refused, state.extra if isinstance(state, _Inference) else ())

    async def _infer(self, body: bytes, asked: _Inference) -> Reply:
        door = self._door
        decision, target = door.decide(asked.endpoint, asked.unit, asked.context, asked.identity)
        meter = door.metrics.meter(asked.endpoint, target.version_text, "rest", decision.role, decision.chosen)
        meter.in_flight += 1
        code, failed = "500", True
        served = Served(asked.identity, "rest", asked.unit, decision)
        served.forward = asked.forward
        answered: Reply | None = None
        try:
            reached, answered, why = await self._ask(decision, target, asked, body)
            code, failed = str(answered.status), answered.status >= 500
            extra = asked.extra
            if why is not None:
                # Counted as the challenger's failure; that the champion was asked too is no request of its own.
                code, failed = str(why.refusal.reason.http_status), True
                extra.append(_FALLBACK)
            if decision.arms:
                extra.append((_ARMS, arms_text(decision)))
            extra.append((_VERSION, reached.version_text.encode()))
            served.reached(reached, answered.status, fallback=why is not None)
            served.answer_headers = answered.headers
            return answered._replace(headers=[*answered.headers, *extra])
        except Refused as refused:
            code = str(refused.refusal.reason.http_status)
            failed = refused.refusal.reason.http_status >= 500
            served.reached(target, refused.refusal.reason.http_status, fallback=False)
            raise
        except asyncio.CancelledError:
            code, failed = "499", False  # the client went away
            served.reached(target, 499, fallback=False)
            raise
        finally:
            meter.in_flight -= 1
            seconds = perf_counter() - asked.started
            meter.done(code, seconds, failed=failed)
            door.recorder.record(served, seconds, body, answered.body if answered is not None else b"")

    async def _ask(
        self, decision: Decision, target: Target, asked: _Inference, body: bytes
    ) -> tuple[Target, Reply, Refused | None]:
        deadline = asked.arrived + asked.timeout

        async def ask(target: Target, challenges: bool) -> Reply:
            until = deadline - _CHALLENGERS_PART * asked.timeout if challenges else deadline
            reply = await self._ask_one(target, asked, body, until, decision.params)
            if challenges and reply.status >= 500:
                said = reply.body[:200].decode("utf-8", "replace")
                raise Refused(Reason.BAD_UPSTREAM, f"{target.serving.key} answered {reply.status}: {said}")
            return reply

        return await self._door.with_fallback(decision, target, ask)

    async def _ask_one(
        self, target: Target, asked: _Inference, body: bytes, deadline: float, params: Mapping[str, Any]
    ) -> Reply:
        door = self._door
        handler = door.handler(target)
        if handler is not None:
            plain, json_length = decode_body(asked.forward, body, door.settings.max_body_bytes)
            headers, answer = await handler.rest(plain, json_length, deadline, Call(asked.identity, asked.unit, params))
            return Reply(200, headers, answer)

        async def call(server: Server, target: Target) -> Response:
            return await exchange(server, target, b"POST", b"/infer", asked.forward, body, deadline)

        return pass_on(target, await door.ask(target, "rest", call))

    def _take(self, request: Request, take: Callable[[bytes], tuple[int, int]]) -> Reply:
        only(request, b"POST")
        authorization = request.header(b"authorization")
        self._door.auth.check_client(None if authorization is None else authorization.decode("latin-1"))
        accepted, dropped = take(request.body)
        return json_reply(202, {"accepted": accepted, "dropped": dropped})
