"""One REST exchange with a model server, and its answer under the endpoint's name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import ceil

from roblox_ml_core.http import (
    ConnectFailed,
    ConnectionLost,
    DeadlineExceeded,
    PoolBusy,
    Response,
    UpstreamError,
)
from roblox_ml_core.http.messages import Header, Reply, json_reply
from roblox_ml_core.http.v2 import lacks_model

from .fleet import Server
from .refusals import Reason, Refused
from .rewrite import rename_json
from .service import Lost
from .snapshot import Target

__all__ = ["HEADER_LENGTH", "exchange", "judge", "pass_on", "refuse"]

HEADER_LENGTH = b"inference-header-content-length"
_RETURNED = frozenset((b"content-type", b"content-encoding"))
# What Triton calls its own internal error, and is a client's broken request. Only so beginning: a model's error may quote anything.
_NOT_V2 = tuple(
    b'{"error":"' + words
    for words in (b"failed to parse the request JSON", b"Unable to parse '", b"failed to get request params")
)


async def exchange(
    server: Server, target: Target, method: bytes, what: bytes, headers: Sequence[Header], body: bytes, deadline: float
) -> Response:
    """Ask one server; `what` is the path behind the version's.

    Raises:
        Lost: it did not answer, or does not hold the version.
        Refused: it did, in a way that asking another one does not mend.
    """
    try:
        answer: Response | UpstreamError = await server.pool.request(
            method, target.http_base + what, headers, body, deadline=deadline
        )
    except UpstreamError as error:
        answer = error
    return judge(target, answer)


def judge(target: Target, answer: Response | UpstreamError) -> Response:
    """What has come of an exchange.

    Raises:
        Lost, Refused: as `exchange` does.
    """
    if isinstance(answer, UpstreamError):
        raise _unanswered(target, answer) from answer
    if answer.status >= 400:
        if lacks_model(answer.status, answer.body):
            raise Lost(_error_text(answer))
        if answer.status == 500 and answer.body.startswith(_NOT_V2):
            return answer._replace(status=400)  # else one client could take a canary back
    return answer


def _unanswered(target: Target, error: UpstreamError) -> Lost | Refused:
    match error:
        case ConnectFailed() | ConnectionLost():
            return Lost(error.message)
        case DeadlineExceeded():
            said = f"endpoint {target.endpoint!r} did not answer before the deadline ({error})"
            return Refused(Reason.DEADLINE, said)
        case PoolBusy():
            return Refused(Reason.OVERLOADED, f"endpoint {target.endpoint!r} is overloaded: {error}")
        case _:
            return Refused(Reason.BAD_UPSTREAM, f"endpoint {target.endpoint!r}: {error}")


def pass_on(target: Target, response: Response) -> Reply:
    """The model's answer under the endpoint's name. Only the head of a plain body is touched."""
    body = response.body
    headers: list[Header] = []
    length, coded = None, False
    for pair in response.headers:
        name = pair[0]
        if name in _RETURNED:
            headers.append(pair)
            coded = coded or name == b"content-encoding"
        elif name == HEADER_LENGTH:
            length = pair[1]
    if response.status == 200 and not coded:
        renamed = rename_json(body, target.triton_model, target.endpoint)
        if length is not None and length.isdigit():
            length = b"%d" % (int(length) + len(renamed) - len(body))
        body = renamed
    if length is not None:
        headers.append((HEADER_LENGTH, length))
    return Reply(response.status, headers, body)


def refuse(refused: Refused, extra: Sequence[Header] = ()) -> Reply:
    """The door's own answer."""
    reason = refused.refusal.reason
    headers = list(extra)
    if (seconds := refused.refusal.retry_after) is not None:
        headers.append((b"retry-after", b"%d" % max(1, ceil(seconds))))
        headers.append((b"retry-after-ms", b"%d" % max(1, ceil(seconds * 1000))))
    if reason is Reason.UNAUTHENTICATED:
        headers.append((b"www-authenticate", b"Bearer"))
    return json_reply(reason.http_status, {"error": refused.refusal.message}, headers)


def _error_text(response: Response) -> str:
    try:
        document = json.loads(response.body)
        return str(document["error"])[:300]
    except (ValueError, KeyError, TypeError):
        return f"HTTP {response.status}"
