"""One inference over REST, from its head to its reply.

The usual one needs no task and no future: the decision, one write to an idle connection, a callback with the answer. Everything else (a
handler, no idle connection, a second attempt, the champion's answer in place of a challenger's) goes on in a task from where the first
attempt got to.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import perf_counter

from roblox_ml_core.http import ConnectionLost, Exchange, Response, UpstreamError
from roblox_ml_core.http.messages import Header, Reply, json_reply
from roblox_ml_core.policy import Decision

from ..preprocess.kinds import Call
from . import inference_id
from .bodies import decode_body
from .exchange import exchange, judge, pass_on, refuse
from .fleet import Server
from .metrics import Meter
from .recording import Served
from .refusals import Reason, Refused
from .service import ARMS_HEADER, FALLBACK_HEADER, VERSION_HEADER, Door, Lost
from .snapshot import Target
from .tracing import Span, Tracing

__all__ = ["Inference"]

logger = logging.getLogger(__name__)
_ID, _VERSION = inference_id.HEADER.encode(), VERSION_HEADER.encode()
_ARMS, _FALLBACK = ARMS_HEADER.encode(), (FALLBACK_HEADER.encode(), b"1")
# A challenger that does not answer must leave the champion time to.
_CHALLENGERS_PART = 0.5
_EMPTY = (
    'the body is empty; send {"inputs": [{"name": …, "datatype": …, "shape": […], "data": […]}]}: '
    "GET /v2/models/{endpoint} says which inputs there are"
)
_HUNG_UP = 499


class Inference:
    """State by lifetime: what the head said, what was decided, the attempt under way."""

    __slots__ = (
        "_body", "_challenges", "_decision", "_done", "_door", "_drawn", "_early", "_exchange", "_loop", "_meter", "_sent_at",
        "_served", "_server", "_span", "_target", "_task", "arrived", "context", "endpoint", "forward", "identity", "proved",
        "started", "timeout", "unit",
    )  # fmt: skip

    _decision: Decision
    _target: Target
    _challenges: bool
    _meter: Meter
    _served: Served
    _server: Server
    _sent_at: float

    def __init__(
        self,
        door: Door,
        loop: asyncio.AbstractEventLoop,
        endpoint: str,
        *,
        identity: str,
        context: str | None,
        forward: list[Header],
    ) -> None:
        self._door, self._loop = door, loop
        self.endpoint, self.identity, self.context, self.forward = endpoint, identity, context, forward
        self.unit: str | None = None
        self.timeout = 0.0
        self.proved = True  # who asks is known, and may
        self.arrived = loop.time()  # for deadlines
        self.started = perf_counter()  # a finer clock: the loop's counts milliseconds
        self._early: Refused | tuple[Server, Lost] | None = None  # what came of a first attempt
        self._drawn: Server | None = None  # whose turn it is, where no connection to it was idle
        self._exchange: Exchange | None = None
        self._task: asyncio.Task[None] | None = None
        self._span: Span | None = None

    @property
    def extra(self) -> list[Header]:
        """What every answer says, refusals too."""
        return [(_ID, self.identity.encode())]

    def begin(self, body: bytes, done: Callable[[Reply], None]) -> Inference | Reply:
        """Decide and send. `done` gets the reply, later, unless the client goes away (`cancel`)."""
        door = self._door
        try:
            decision, target = door.decide(self.endpoint, self.unit, self.context, self.identity)
            if not body and door.handler(target) is None:  # Triton answers none with tensors of no rows, and 200
                raise Refused(Reason.BAD_REQUEST, _EMPTY)
        except Refused as refused:
            return refuse(refused, self.extra)
        self._body, self._done = body, done
        self._decision, self._target = decision, target
        self._challenges = decision.role != "champion" and target.serving.key != decision.champion.key
        meter = self._meter = door.metrics.meter(
            self.endpoint, target.version_text, "rest", decision.role, decision.chosen
        )
        meter.in_flight += 1
        if door.tracing is not None:
            self._trace(door.tracing)
        served = self._served = Served(self.identity, "rest", self.unit, decision)
        served.forward = self.forward
        if not (door.handler(target) is None and self._send()):
            self._task = self._loop.create_task(self._go_on())
        return self

    def _trace(self, tracing: Tracing) -> None:
        given = next((value for name, value in self.forward if name == b"traceparent"), None)
        self._span = tracing.start("http", None if given is None else given.decode("latin-1"), self.identity)
        self.forward = self._span.headers(self.forward)

    def cancel(self) -> None:
        """The client has gone away: so does the question at the model server."""
        if self._task is not None:
            self._task.cancel()
        elif self._exchange is not None:
            self._exchange.cancel()
            self._door.give_back(self._server, self._target)
            self._count(self._target, _HUNG_UP, _HUNG_UP, failed=False)

    # The first attempt

    def _send(self) -> bool:
        """Whether the request is on its way."""
        door, target = self._door, self._target
        try:
            server = door.lease(target)
        except Refused as refused:
            self._early = refused
            return False
        self._exchange = server.pool.start(
            b"POST", target.infer_path, self.forward, self._body, self._until(self._challenges), self._heard
        )
        if self._exchange is None:
            door.give_back(server, target)
            self._drawn = server  # drawing again would pass over whoever has no connection: one that is new, or back
            return False
        self._server, self._sent_at = server, perf_counter()
        return True

    def _heard(self, answer: Response | UpstreamError) -> None:
        door, server, target = self._door, self._server, self._target
        self._exchange = None
        door.give_back(server, target)
        if not (
            isinstance(answer, ConnectionLost) and not answer.response_started
        ):  # else it was stale, and nothing was tried
            door.retries.earn()
            try:
                response = judge(target, answer)
            except Lost as lost:
                door.fleet.failed(server, lost=True)
                self._early = server, lost
            except Refused as refused:
                if refused.refusal.reason is Reason.DEADLINE:
                    door.fleet.failed(server, lost=False)
                self._early = refused
            else:
                server.health.succeeded(perf_counter() - self._sent_at)
                reply = pass_on(target, response)
                if not (self._challenges and reply.status >= 500):
                    self._finish(target, reply, None)
                    return
                self._early = _failure(target, reply)
        self._task = self._loop.create_task(self._go_on())

    # What goes on in a task

    async def _go_on(self) -> None:
        try:
            reached, reply, why = await self._door.with_fallback(self._decision, self._target, self._ask)
        except Refused as refused:
            status = refused.refusal.reason.http_status
            self._done(refuse(refused, self.extra))
            self._count(self._target, status, status, failed=status >= 500)
        except asyncio.CancelledError:
            self._count(self._target, _HUNG_UP, _HUNG_UP, failed=False)
            raise
        except Exception:
            logger.exception("an inference of %s failed", self.endpoint)
            self._done(json_reply(500, {"error": "the server failed; its log has the details"}, self.extra))
            self._count(self._target, 500, 500, failed=True)
        else:
            self._finish(reached, reply, why)

    async def _ask(self, target: Target, challenges: bool) -> Reply:
        """The answer of one version; the first time from where the first attempt got to."""
        early, self._early = self._early, None
        drawn, self._drawn = self._drawn, None
        if isinstance(early, Refused):
            raise early
        door, until = self._door, self._until(challenges)
        handler = door.handler(target)
        if handler is not None:
            plain, json_length = decode_body(self.forward, self._body, door.settings.max_body_bytes)
            call = Call(self.identity, self.unit, self._decision.params)
            headers, answer = await handler.rest(plain, json_length, until, call)
            return Reply(200, headers, answer)

        async def call_server(server: Server, target: Target) -> Response:
            return await exchange(server, target, b"POST", b"/infer", self.forward, self._body, until)

        reply = pass_on(target, await door.ask(target, "rest", call_server, lost=early, drawn=drawn))
        if challenges and reply.status >= 500:
            raise _failure(target, reply)
        return reply

    def _until(self, challenges: bool) -> float:
        return self.arrived + (_CHALLENGERS_PART * self.timeout if challenges else self.timeout)

    # The end

    def _finish(self, reached: Target, reply: Reply, why: Refused | None) -> None:
        headers = [*reply.headers, (_ID, self.identity.encode())]
        code, failed = reply.status, reply.status >= 500
        if why is not None:
            # Counted as the challenger's failure; that the champion was asked too is no request of its own.
            code, failed = why.refusal.reason.http_status, True
            headers.append(_FALLBACK)
        if self._served.arms:
            headers.append((_ARMS, self._served.arms.encode()))
        headers.append((_VERSION, reached.version_bytes))
        self._served.answer_headers = reply.headers
        self._served.fallback = why is not None
        self._done(Reply(reply.status, headers, reply.body))
        self._count(reached, reply.status, code, reply.body, failed=failed)

    def _count(self, reached: Target, status: int, code: int, answer: bytes = b"", *, failed: bool) -> None:
        """Metrics and records: when the reply is on its way. `status` is what the client got, `code` what is counted."""
        self._meter.in_flight -= 1
        seconds = perf_counter() - self.started
        self._meter.done(str(code), seconds, failed=failed)
        served = self._served
        served.target, served.status = reached, status
        self._door.recorder.record(served, seconds, self._body, answer)
        if self._span is not None:
            self._span.end(
                endpoint=self.endpoint, version=reached.version_text, role=self._decision.role, arms=served.arms, code=str(code),
                failed=failed, fallback=served.fallback,
            )  # fmt: skip


def _failure(target: Target, reply: Reply) -> Refused:
    said = reply.body[:200].decode("utf-8", "replace")
    return Refused(Reason.BAD_UPSTREAM, f"{target.serving.key} answered {reply.status}: {said}")
