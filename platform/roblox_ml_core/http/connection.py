"""One keep-alive connection to an upstream: send a request, collect one whole response.

An asyncio protocol with httptools' response parser and one callback per exchange. There is no queue, no task, no future, no timer and
no stream object per request, which is where general clients spend their time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple, cast

import httptools

from .errors import ConnectionLost, DeadlineExceeded, ProtocolViolation, ResponseTooLarge, UpstreamError

__all__ = ["Answer", "Connection", "Done", "Response"]

MAX_HEAD_BYTES = 64 * 1024
_FRAMING = frozenset((b"content-length", b"transfer-encoding"))


class Response(NamedTuple):
    """A complete answer. Header names are lower-case; the body has its transfer coding removed, nothing else."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def header(self, name: bytes) -> bytes | None:
        """The first value of a header (lower-case name), or None."""
        for key, value in self.headers:
            if key == name:
                return value
        return None


#: How an exchange ends.
Answer = Response | UpstreamError
Done = Callable[[Answer], None]


class Connection(asyncio.Protocol):
    """A connection that carries one exchange at a time.

    `on_idle_close` is called when the connection ends while no exchange is under way, so that a pool can forget it. Its owner looks at
    `deadline` (the loop's clock) now and then and calls `expire` when it has passed.
    """

    __slots__ = (
        "_body",
        "_body_bytes",
        "_complete",
        "_done",
        "_framed",
        "_head_bytes",
        "_headers",
        "_headers_done",
        "_max_body",
        "_on_idle_close",
        "_parser",
        "_poisoned",
        "_started",
        "_status",
        "_transport",
        "deadline",
        "idle_since",
        "loop",
        "name",
    )
    _headers: list[tuple[bytes, bytes]]
    _body: list[bytes]
    _head_bytes: int
    _body_bytes: int
    _status: int
    _started: bool  # a byte of the answer has come
    _headers_done: bool
    _framed: bool  # the answer says where it ends
    _complete: bool

    def __init__(self, name: str, *, max_body: int, on_idle_close: Callable[[Connection], None] | None = None) -> None:
        self.name = name
        self.idle_since = 0.0
        self.loop = asyncio.get_running_loop()
        self._max_body = max_body
        self._on_idle_close = on_idle_close
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._done: Done | None = None
        self.deadline = 0.0
        self._poisoned = False
        self._clear()

    @property
    def reusable(self) -> bool:
        """Whether another request may be sent on it."""
        return not self._poisoned and self._transport is not None and not self._transport.is_closing()

    def start(self, payload: bytes, deadline: float, done: Done) -> None:
        """Send one encoded request; `done` is called once with its whole answer, or with why there is none.

        Not after `close`, which is how an exchange is given up. Whenever there is no answer, the connection is closed.

        Raises:
            ConnectionLost: it had been closed already.
        """
        if self._done is not None:
            raise RuntimeError("a connection carries one exchange at a time")
        if not self.reusable or self._transport is None:
            raise ConnectionLost(f"{self.name} had closed the connection", response_started=False)
        self._clear()
        self._done = done
        self.deadline = deadline
        self._transport.write(payload)

    async def exchange(self, payload: bytes, deadline: float) -> Response:
        """The same, waited for.

        Raises:
            ConnectionLost, DeadlineExceeded, ProtocolViolation, ResponseTooLarge: the connection is closed then.
        """
        waiter: asyncio.Future[Answer] = self.loop.create_future()

        def done(answer: Answer) -> None:
            if not waiter.done():  # a caller that was cancelled and does not run yet
                waiter.set_result(answer)

        self.start(payload, deadline, done)
        try:
            answer = await waiter
        except BaseException:
            # A cancelled caller: half an answer is still on its way, nobody may read it as the next one.
            self.close()
            raise
        if isinstance(answer, UpstreamError):
            raise answer
        return answer

    def expire(self) -> None:
        """The deadline has passed."""
        self._fail(DeadlineExceeded(f"{self.name} did not answer in time"))

    def close(self) -> None:
        """Close at once, without waiting for anything. Who waits for an answer is not told."""
        self._poisoned = True
        self._done = None
        if self._transport is not None:
            self._transport.abort()

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are of no class of asyncio's

    def data_received(self, data: bytes) -> None:
        if self._done is None:
            # Nobody asked: an answer we do not know the question of must never reach the next caller.
            self.close()
            return
        self._started = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail(ProtocolViolation(f"{self.name} asked for a protocol upgrade"))
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            self._fail(cause if isinstance(cause, UpstreamError) else ProtocolViolation(f"{self.name}: {error}"))
        except httptools.HttpParserError as error:
            self._poisoned = True
            if not self._complete:
                self._fail(ProtocolViolation(f"{self.name} sent what is not an HTTP/1.1 response: {error}"))
        if self._complete:
            self._finish()

    def eof_received(self) -> None:
        if self._done is not None and self._headers_done and not self._framed and not self._poisoned:
            # Neither length nor chunks: the end of the connection is the end of the body (RFC 9112, 6.3).
            self._poisoned = True
            self._finish()

    def connection_lost(self, exc: Exception | None) -> None:
        self._poisoned = True
        if self._done is not None:
            state = "in the middle of its answer" if self._started else "before it answered"
            message = f"{self.name} closed the connection {state}" + (f": {exc}" if exc else "")
            self._fail(ConnectionLost(message, response_started=self._started))
        elif self._on_idle_close is not None:
            self._on_idle_close(self)

    # httptools' side

    def on_message_begin(self) -> None:
        if self._complete:
            self._poisoned = True  # a second answer to one question

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._complete:
            return
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > MAX_HEAD_BYTES:
            raise ResponseTooLarge(f"{self.name} sent more than {MAX_HEAD_BYTES} bytes of headers")
        name = name.lower()
        if name in _FRAMING:
            self._framed = True
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._complete:
            return
        self._status = self._parser.get_status_code()
        if self._status in (204, 304):
            self._framed = True
        self._headers_done = True

    def on_body(self, part: bytes) -> None:
        if self._complete:
            return
        self._body_bytes += len(part)
        if self._body_bytes > self._max_body:
            raise ResponseTooLarge(f"{self.name} sent more than {self._max_body} bytes")
        self._body.append(part)

    def on_message_complete(self) -> None:
        if self._complete:
            return
        if self._status < 200:
            self._clear()  # an interim answer (100, 103): the real one follows
            self._started = True
            return
        self._complete = True
        transport = self._transport
        unsent = transport is not None and transport.get_write_buffer_size() > 0
        if unsent or not self._parser.should_keep_alive():
            self._poisoned = True
        # The answer is delivered by data_received: bytes behind this message in the same packet poison the connection
        # before anybody else can have it.

    # inside

    def _clear(self) -> None:
        self._headers = []
        self._body = []
        self._head_bytes = self._body_bytes = self._status = 0
        self._started = self._framed = self._complete = self._headers_done = False

    def _finish(self) -> None:
        done, self._done = self._done, None
        if done is None:
            return
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        if self._poisoned and self._transport is not None:
            self._transport.abort()
        done(Response(self._status, self._headers, body))

    def _fail(self, error: UpstreamError) -> None:
        self._poisoned = True
        done, self._done = self._done, None
        if self._transport is not None:
            self._transport.abort()
        if done is not None:
            done(error)
