"""The REST side: whole requests in, whole replies out. A body without preprocessing is read once, sent on once, and never parsed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from roblox_ml_core.http.messages import Header, Reply, Request, json_reply

from . import inference_id
from .documents import Documents, only
from .exchange import refuse
from .inference import Inference
from .refusals import Reason, Refused
from .service import CONTEXT_HEADER, TIMEOUT_HEADER, UNIT_HEADER, Door, read_unit, timeout_seconds

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
_PREFIX, _SUFFIX = b"/v2/models/", b"/infer"


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
        try:
            self._admit(request, endpoint)
        except Refused as refused:
            asked = request.state
            return refuse(refused, asked.extra if isinstance(asked, Inference) else ())
        return None

    def _admit(self, request: Request, endpoint: str) -> None:
        only(request, b"POST")
        forward: list[Header] = []
        found: dict[str, str] = {}
        for pair in request.headers:
            key = pair[0]
            if key in _FORWARDED:
                if key == b"content-encoding" and pair[1].lower() not in _CODINGS:
                    raise Refused(
                        Reason.UNSUPPORTED_CODING,
                        f"content-encoding {pair[1][:40].decode('latin-1')!r}: use gzip, deflate or none",
                    )
                forward.append(pair)
            elif (ours := _OURS.get(key)) is not None:
                found[ours] = pair[1].decode("utf-8", "replace")
        door, get = self._door, found.get
        asked = request.state = Inference(
            door, self._loop, endpoint, identity=inference_id.keep_or_make(get("id")), context=get("context"), forward=forward
        )  # fmt: skip
        authorization = get("authorization")
        if door.auth.unproved(authorization):
            asked.proved = False  # `answer` may wait for who it is; this must not
        else:
            door.admit(authorization, endpoint)
        asked.timeout = timeout_seconds(get("timeout"), door.settings.deadline_s)
        asked.unit = read_unit(get("unit"))
        request.body_deadline = asked.arrived + asked.timeout

    def begin(self, request: Request, done: Callable[[Reply], None]) -> Inference | Reply | None:
        """Inferences; everything else may take its time."""
        asked = request.state
        return asked.begin(request.body, done) if isinstance(asked, Inference) and asked.proved else None

    async def answer(self, request: Request) -> Reply:
        """The reply to what is no inference, or whose sender must be asked for first."""
        try:
            await self._door.auth.prove(_authorization(request))
            if isinstance(request.state, Inference):
                return await self._infer(request, request.state)
            if request.path == b"/v1/track":
                return self._take(request, self._door.recorder.track)
            if request.path == b"/v1/exposures":
                return self._take(request, self._door.recorder.expose)
            return await self._documents.answer(request)
        except Refused as refused:
            return refuse(refused, request.state.extra if isinstance(request.state, Inference) else ())

    async def _infer(self, request: Request, asked: Inference) -> Reply:
        self._door.admit(_authorization(request), asked.endpoint)
        made: asyncio.Future[Reply] = self._loop.create_future()
        work = asked.begin(request.body, lambda reply: None if made.done() else made.set_result(reply))
        if isinstance(work, Reply):
            return work
        try:
            return await made
        except asyncio.CancelledError:
            work.cancel()
            raise

    def _take(self, request: Request, take: Callable[[bytes], tuple[int, int]]) -> Reply:
        only(request, b"POST")
        self._door.auth.check_client(_authorization(request))
        accepted, dropped = take(request.body)
        return json_reply(202, {"accepted": accepted, "dropped": dropped})


def _authorization(request: Request) -> str | None:
    found = request.header(b"authorization")
    return None if found is None else found.decode("utf-8", "replace")
