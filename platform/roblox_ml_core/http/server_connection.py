"""One client's connection: bytes in, whole requests to the application, replies out in the order of the requests.

At most one task per request and one write per reply. Time limits are not timers of a request's own (each costs as much as parsing it) but
a deadline that the server's sweep looks at.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, cast

import httptools

from .messages import Header, Reply, Request, Work, encode_reply, json_reply

if TYPE_CHECKING:
    from .server import Server

__all__ = ["ServerConnection"]

logger = logging.getLogger(__name__)
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_PROBE = b"HTTP/1.1 102 Processing\r\n\r\n"
_PROBES_S = (0.0, 0.02, 0.2, 1.0)
_MAX_PIPELINED = 16
_FRAMING = frozenset((b"content-length", b"transfer-encoding", b"expect"))
_DISCARD_UP_TO = 1 << 20  # of a refused request's body, so that its sender gets to read the refusal


class _Refuse(Exception):
    """Ends the connection with a reply; raised inside the parser's callbacks."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.reply = json_reply(status, {"error": message}, close=True)


class ServerConnection(asyncio.Protocol):
    """State by lifetime: of the connection, of the request being read, of the reply being made."""

    __slots__ = (
        "_answering",
        "_body",
        "_body_bytes",
        "_continue",
        "_deaf",
        "_eof",
        "_head_bytes",
        "_headers",
        "_keep",
        "_loop",
        "_most_head",
        "_most_headers",
        "_parser",
        "_paused",
        "_peer",
        "_queue",
        "_raw_left",
        "_reading",
        "_request",
        "_server",
        "_skip",
        "_target",
        "_transport",
        "_work",
        "deadline",
    )  # fmt: skip

    def __init__(self, server: Server) -> None:
        self._server = server
        self._loop = server.loop
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._peer = ""
        self._most_head, self._most_headers = server.limits.head_bytes, server.limits.headers
        self._queue: deque[Request | Reply] = deque()
        self._work: Work | None = None
        self._answering: Request | None = None
        self._deaf = False  # the last reply is decided: what still comes is read and thrown away
        self._eof = False
        self._paused = False
        self._reading = True
        self.deadline = 0.0
        self._begin()

    def _begin(self) -> None:
        self._target = b""
        self._headers: list[Header] = []
        self._head_bytes = 0
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._request: Request | None = None
        self._skip = False  # the request has its reply already: its body is read and thrown away
        self._continue = False
        self._keep = True
        self._raw_left = 0  # of a body that the parser does not read

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self._peer = peer[0] if isinstance(peer, tuple) else ""
        self.deadline = self._loop.time() + self._server.limits.head_s
        if not self._server.add(self):
            self._end_with(json_reply(503, {"error": "too many connections; try again"}, close=True))

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.remove(self)
        self._transport = None
        self._queue.clear()
        if self._work is not None:
            self._work.cancel()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        try:
            if self._raw_left:
                data = self._read_raw(data)
            if data:
                self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # A client that offers another protocol is answered in this one.
            self._parser = httptools.HttpRequestParser(self)
            if rest := data[upgrade.args[0] :]:
                self.data_received(rest)
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            if isinstance(cause, _Refuse):
                self._end_with(cause.reply)
            else:
                logger.error("a request could not be read", exc_info=cause)
                self._end_with(json_reply(500, {"error": "the server failed to read the request"}, close=True))
        except _Refuse as refusal:
            self._end_with(refusal.reply)
        except httptools.HttpParserError as error:
            self._end_with(json_reply(400, {"error": f"this is not an HTTP/1.1 request: {error}"}, close=True))

    def eof_received(self) -> bool:
        """The client will send no more. It may still read (a half-closed connection), or be gone: a probe tells."""
        self._eof = True
        if self._work is None and not self._queue:
            return False
        self._probe(0)
        return True

    def pause_writing(self) -> None:
        self._paused = True
        self.deadline = self._loop.time() + self._server.limits.write_s

    def resume_writing(self) -> None:
        self._paused = False
        self._next()

    # httptools' side

    def on_message_begin(self) -> None:
        self.deadline = self._loop.time() + self._server.limits.head_s

    def on_url(self, url: bytes) -> None:
        self._target += url
        if len(self._target) > self._server.limits.target_bytes:
            raise _Refuse(414, f"the request target is longer than {self._server.limits.target_bytes} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > self._most_head or len(self._headers) > self._most_headers:
            limits = self._server.limits
            raise _Refuse(431, f"the request head has more than {limits.head_bytes} bytes or {limits.headers} headers")

    def on_headers_complete(self) -> None:
        parser = self._parser
        request = Request(parser.get_method(), self._target, self._headers, self._peer)
        offers = parser.should_upgrade()
        self._keep = bool(parser.should_keep_alive() or offers)
        request.http_1_0 = parser.get_http_version() == "1.0"
        length, chunked = b"", False
        for name, value in self._headers:
            if name not in _FRAMING:
                continue
            if name == b"content-length":
                if length and length != value:
                    raise _Refuse(400, "two content-length headers contradict each other")
                length = value
            elif name == b"transfer-encoding":
                chunked = True
            else:
                if value.lower() != b"100-continue":
                    raise _Refuse(417, "the only expectation this server knows is 100-continue")
                self._continue = not request.http_1_0
        if chunked and (length or request.http_1_0):
            raise _Refuse(400, "a request has a content-length or a transfer-encoding, not both")
        expected = int(length) if length.isdigit() else 0
        if expected > self._server.limits.body_bytes:
            raise _Refuse(413, f"the request body is larger than {self._server.limits.body_bytes} bytes")
        now = self._loop.time()
        request.body_deadline = now + self._server.limits.body_s
        self._request = request
        if request.method == b"HEAD":
            refusal: Reply | None = Reply(405, [(b"allow", b"GET, POST")])
        else:
            refusal = self._server.application.admit(request)
        self.deadline = request.body_deadline
        if offers:
            if chunked:
                raise _Refuse(400, "a request that offers another protocol cannot have a chunked body")
            self._raw_left = expected
        if refusal is not None:
            self._refuse(request, refusal, expected, chunked)
        elif self._continue and (expected or chunked):
            self._say_continue()

    def on_body(self, part: bytes) -> None:
        if self._skip:
            return
        self._continue = False
        self._body_bytes += len(part)
        if self._body_bytes > self._server.limits.body_bytes:
            raise _Refuse(413, f"the request body is larger than {self._server.limits.body_bytes} bytes")
        self._body.append(part)

    def on_message_complete(self) -> None:
        if self._raw_left:
            return
        request, skip = self._request, self._skip
        assert request is not None
        if not skip:
            request.body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        request.close = not self._keep or self._server.draining
        self._begin()
        if not skip:
            self._queue.append(request)
        if len(self._queue) >= _MAX_PIPELINED and self._reading and self._transport is not None:
            self._transport.pause_reading()
            self._reading = False
        self._next()

    # inside

    def _refuse(self, request: Request, reply: Reply, expected: int, chunked: bool) -> None:
        """Answer a head. A small body that follows is read and thrown away; a large one ends the connection."""
        if chunked or expected > _DISCARD_UP_TO or (self._continue and expected):
            self._end_with(reply._replace(close=True), request)
            return
        self._skip, self._continue = True, False
        self._queue.append(self._shaped(reply, request))
        if not expected:
            return  # the end of the message comes in the same breath, and starts the answer
        self._next()

    def _shaped(self, reply: Reply, request: Request) -> Reply:
        close = reply.close or request.http_1_0 or not self._keep
        return reply._replace(close=close, body=b"" if request.method == b"HEAD" else reply.body)

    def _end_with(self, reply: Reply, request: Request | None = None) -> None:
        """Nothing after this is understood: answer it in its turn, then close."""
        self._deaf = True
        if request is not None:
            reply = self._shaped(reply, request)
        self._queue.append(reply._replace(close=True))
        self._next()

    def _read_raw(self, data: bytes) -> bytes:
        """The body of a request that offered another protocol: the parser leaves it to whoever would speak that."""
        taken, rest = data[: self._raw_left], data[self._raw_left :]
        self._raw_left -= len(taken)
        self.on_body(taken)
        if not self._raw_left:
            self.on_message_complete()
        return rest

    def _say_continue(self) -> None:
        if self._work is None and not self._queue and self._transport is not None:
            self._continue = False
            self._transport.write(_CONTINUE)

    def _next(self) -> None:
        """Begin the next reply, if none is being made and the client reads."""
        begin = self._server.begin
        while self._work is None and self._queue and not self._paused and self._transport is not None:
            item = self._queue.popleft()
            if isinstance(item, Reply):
                self._write(item, None)
                continue
            try:
                work = None if begin is None else begin(item, self._replied)
            except Exception:
                logger.exception("the application failed on %s", item.target[:200])
                work = json_reply(500, {"error": "the server failed; its log has the details"})
            if isinstance(work, Reply):
                self._write(work, item)
                continue
            self._answering = item
            self._work = work or self._loop.create_task(self._answer(item))
        if self._work is not None or self._transport is None:
            return
        if not self._reading and len(self._queue) < _MAX_PIPELINED // 2:
            self._transport.resume_reading()
            self._reading = True
        if self._continue and self._request is not None:
            self._say_continue()
        if self._eof and not self._queue:
            self._transport.close()

    async def _answer(self, request: Request) -> None:
        try:
            reply = await self._server.application.answer(request)
        except asyncio.CancelledError:
            if self._transport is not None:  # not the client's doing: the server ends
                self._transport.abort()
            raise
        except Exception:
            logger.exception("the application failed on %s", request.target[:200])
            reply = json_reply(500, {"error": "the server failed; its log has the details"})
        self._replied(reply)

    def _replied(self, reply: Reply) -> None:
        """The answer under way is made."""
        request, self._work, self._answering = self._answering, None, None
        self._write(reply, request)
        if self._queue or self._eof or self._continue or not self._reading:
            self._next()

    def _write(self, reply: Reply, request: Request | None) -> None:
        transport = self._transport
        if transport is None:
            return
        close = reply.close or (request is not None and request.close) or self._server.draining
        data = encode_reply(
            reply,
            close=close,
            keep_alive_header=request is not None and request.http_1_0 and not close,
            with_body=reply.status != 204,
        )
        transport.write(data)
        if reply.sent is not None:
            reply.sent()
        if not close:
            if self._request is None and not self._queue:
                self.deadline = self._loop.time() + self._server.limits.idle_s
            return
        self._queue.clear()
        if self._deaf and not self._eof:
            # Bytes that nobody reads would reset the connection before the client has read the reply.
            self.deadline = self._loop.time() + self._server.limits.linger_s
            if transport.can_write_eof():
                transport.write_eof()
            return
        transport.close()

    def _probe(self, count: int) -> None:
        """An interim response is ignored by who only stopped sending, and reset by who is gone."""
        if self._answering is None or self._transport is None or self._answering.http_1_0:
            return
        self._transport.write(_PROBE)
        later = _PROBES_S[min(count + 1, len(_PROBES_S) - 1)]
        self._loop.call_later(later, self._probe, count + 1)

    def expire(self, now: float) -> None:
        """The sweep found the deadline passed."""
        if self._transport is None:
            return
        if self._paused or self._deaf:
            self._transport.abort()
        elif self._work is not None or self._queue:
            self.deadline = now + self._server.limits.idle_s  # the application has deadlines of its own
        elif self._request is not None:
            message = "the request's body was not complete before the deadline"
            self._end_with(json_reply(408, {"error": message}, close=True))
        elif self._head_bytes or self._target:
            self._end_with(json_reply(408, {"error": "the request's head was not complete in time"}, close=True))
        else:
            self._transport.close()

    def drain(self) -> None:
        """The server ends: close as soon as nothing is under way."""
        if self._transport is not None and self._work is None and not self._queue and self._request is None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
