"""What a server of ours hands to its application and gets back: one whole request, one whole reply."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import NamedTuple, Protocol

__all__ = ["Application", "Beginner", "Header", "Reply", "Request", "Work", "encode_reply", "json_reply"]

Header = tuple[bytes, bytes]
_STATUS_LINES = {
    status.value: b"HTTP/1.1 %d %s\r\n" % (status.value, status.phrase.encode("ascii")) for status in HTTPStatus
}
_JSON: Header = (b"content-type", b"application/json")


class Request:
    """One request. Header names are lower-case; the body has its transfer coding removed, nothing else.

    Attributes:
        target: path and query as sent. `path` is the part before the query.
        body: complete when the application is asked; empty while it is only asked to `admit`.
        body_deadline: on the loop's clock; `admit` may set another one.
        state: whatever `admit` leaves for the answer.
    """

    __slots__ = ("body", "body_deadline", "close", "headers", "http_1_0", "method", "peer", "state", "target")

    def __init__(self, method: bytes, target: bytes, headers: list[Header], peer: str) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.peer = peer
        self.body = b""
        self.body_deadline = 0.0
        self.close = False
        self.http_1_0 = False
        self.state: object = None

    @property
    def path(self) -> bytes:
        return self.target.partition(b"?")[0]

    def header(self, name: bytes) -> bytes | None:
        """The first value of a header (lower-case name), or None."""
        for key, value in self.headers:
            if key == name:
                return value
        return None


class Reply(NamedTuple):
    """One answer. `close`: the connection ends after it. `sent` is called when it has been handed to the transport."""

    status: int
    headers: Sequence[Header] = ()
    body: bytes = b""
    close: bool = False
    sent: Callable[[], None] | None = None


class Application(Protocol):
    """What a server serves."""

    def admit(self, request: Request) -> Reply | None:
        """Look at a request's head before its body is read; a reply ends it there."""

    async def answer(self, request: Request) -> Reply:
        """The reply to a whole request. Cancelled when the client goes away."""


class Work(Protocol):
    """An answer being made."""

    def cancel(self) -> object:
        """The client has gone away. Nothing is to be replied any more."""


class Beginner(Protocol):
    """What an application has besides where a task for each request is too much for it."""

    def begin(self, request: Request, done: Callable[[Reply], None]) -> Work | Reply | None:
        """The reply itself, or who makes it and will call `done` from the loop, later, once; None: `answer` is to be asked.

        Must not raise.
        """


def json_reply(status: int, document: object, headers: Sequence[Header] = (), *, close: bool = False) -> Reply:
    """A JSON document as a reply."""
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return Reply(status, [_JSON, *headers], body, close)


def encode_reply(reply: Reply, *, close: bool, keep_alive_header: bool, with_body: bool) -> bytes:
    """Head and body as one piece of bytes."""
    parts = [_STATUS_LINES.get(reply.status) or b"HTTP/1.1 %d \r\n" % reply.status]
    for name, value in reply.headers:
        parts += (name, b": ", value, b"\r\n")
    if close:
        parts.append(b"connection: close\r\n")
    elif keep_alive_header:
        parts.append(b"connection: keep-alive\r\n")
    if reply.status != 204:
        parts.append(b"content-length: %d\r\n" % len(reply.body))
    parts.append(b"\r\n")
    if with_body:
        parts.append(reply.body)
    return b"".join(parts)
