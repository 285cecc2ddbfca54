"""A bounded pool of keep-alive connections to one upstream.

Last in, first out: the connection used most recently is the least likely to be stale, and the others grow old enough to
be closed. A connection that turns out to be dead although nothing of an answer was read is replaced by a new one, once,
when the request may be sent twice; everything else is the caller's decision.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Iterable
from urllib.parse import urlsplit

from .connection import Answer, Connection, Done, Response
from .errors import ConnectFailed, ConnectionLost, DeadlineExceeded, PoolBusy

__all__ = ["Exchange", "Pool", "Response"]

DEFAULT_MAX_RESPONSE = 256 * 1024 * 1024
# How late a deadline may be noticed. One look at all connections costs less than a timer for each exchange.
_TICK_S = 0.01
_MOST_HEADS = 4096


class Exchange:
    """An exchange under way that nobody waits for; `done` hears of its end unless it is cancelled."""

    __slots__ = ("_connection", "_done", "_pool")

    def __init__(self, pool: Pool, connection: Connection, done: Done) -> None:
        self._pool, self._connection, self._done = pool, connection, done

    def heard(self, answer: Answer) -> None:
        self._pool._give_back(self._connection)
        self._done(answer)

    def cancel(self) -> None:
        """Give it up: the upstream sees the connection end."""
        self._connection.close()
        self._pool._give_back(self._connection)


class Pool:
    """Connections to one upstream.

    Args:
        url: `http://host:port` or `https://host`; a path in it is refused. `host:port` means http.
        max_connections: requests on the wire at the same time; HTTP/1.1 carries one per connection.
        max_waiting: callers that may wait for a free connection; the next one gets PoolBusy.
        connect_timeout: seconds to wait for one connection (the caller's deadline may be earlier).
        idle_seconds: an idle connection older than this is not used again.
        max_response_bytes: the largest body accepted.
    """

    def __init__(
        self,
        url: str,
        *,
        max_connections: int = 128,
        max_waiting: int = 1024,
        connect_timeout: float = 1.0,
        idle_seconds: float = 30.0,
        max_response_bytes: int = DEFAULT_MAX_RESPONSE,
    ) -> None:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
            raise ValueError(f"{url!r} is no upstream address: expected http://host:port")
        self.url = f"{parts.scheme}://{parts.netloc}"
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._host = parts.hostname
        self._port = parts.port or (443 if self._tls else 80)
        self._host_header = b"host: " + parts.netloc.rpartition("@")[2].encode("ascii") + b"\r\n"
        self._max_connections = max_connections
        self._max_waiting = max_waiting
        self._connect_timeout = connect_timeout
        self._idle_seconds = idle_seconds
        self._max_response = max_response_bytes
        self._idle: deque[Connection] = deque()
        self._waiting: deque[asyncio.Future[Connection | None]] = deque()
        self._slots = 0  # connections open or being opened
        self._busy = 0
        self._closed = False
        self._heads: dict[tuple[bytes, bytes], bytes] = {}
        self._under_way: set[Connection] = set()
        self._ticking = False

    @property
    def in_flight(self) -> int:
        """Requests under way or waiting: what least-in-flight balancing compares."""
        return self._busy

    @property
    def connections(self) -> int:
        """Connections open or being opened."""
        return self._slots

    async def request(
        self,
        method: bytes,
        target: bytes,
        headers: Iterable[tuple[bytes, bytes]] = (),
        body: bytes = b"",
        *,
        timeout: float | None = None,
        deadline: float | None = None,
        resend_safe: bool = True,
    ) -> Response:
        """One exchange. Give `timeout` in seconds or `deadline` on the running loop's clock.

        `resend_safe=False` forbids the second attempt after a stale connection (the request must not run twice).

        Raises:
            UpstreamError: one of its subclasses, when no complete answer came.
        """
        loop = asyncio.get_running_loop()
        if deadline is None:
            if timeout is None:
                raise TypeError("a request needs a timeout or a deadline")
            deadline = loop.time() + timeout
        payload = self._encode(method, target, headers, body)
        self._busy += 1
        connection: Connection | None = None
        try:
            connection = await self._acquire(loop, deadline)
            reused = connection is not None
            try:
                if connection is None:
                    connection = await self._connect(loop, deadline)
                return await self._exchange(loop, connection, payload, deadline)
            except ConnectionLost as lost:
                if not (reused and resend_safe and not lost.response_started):
                    raise
                connection = await self._connect(loop, deadline)
                return await self._exchange(loop, connection, payload, deadline)
            finally:
                self._release(loop, connection)
        finally:
            self._busy -= 1

    def start(
        self,
        method: bytes,
        target: bytes,
        headers: Iterable[tuple[bytes, bytes]],
        body: bytes,
        deadline: float,
        done: Done,
    ) -> Exchange | None:
        """Send a request at once if a connection is idle, without a task and without a future; None where none is: use `request`.

        `done` is called from the loop with a Response or an UpstreamError. A ConnectionLost before the answer started may only mean
        that the connection was stale: `request` would have tried a new one.
        """
        if not self._idle:
            return None
        loop = self._idle[-1].loop  # asking asyncio for it is a system call
        payload = self._encode(method, target, headers, body)
        connection = self._idle_connection(loop)
        if connection is None:
            return None
        exchange = Exchange(self, connection, done)
        connection.start(payload, deadline, exchange.heard)
        self._busy += 1
        self._watch(loop, connection)
        return exchange

    async def close(self) -> None:
        """Close idle connections and refuse waiting callers; exchanges under way end with their own deadline."""
        self._closed = True
        while self._idle:
            connection = self._idle.pop()
            self._slots -= 1
            connection.close()
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_exception(ConnectFailed(f"the pool of {self.url} was closed"))
        await asyncio.sleep(0)  # transports close in the loop's next turn

    async def _exchange(
        self, loop: asyncio.AbstractEventLoop, connection: Connection, payload: bytes, deadline: float
    ) -> Response:
        self._watch(loop, connection)
        try:
            return await connection.exchange(payload, deadline)
        finally:
            self._under_way.discard(connection)

    def _give_back(self, connection: Connection) -> None:
        """An exchange that was started has ended."""
        self._under_way.discard(connection)
        self._busy -= 1
        self._release(connection.loop, connection)

    def _watch(self, loop: asyncio.AbstractEventLoop, connection: Connection) -> None:
        self._under_way.add(connection)
        if not self._ticking:
            self._ticking = True
            loop.call_later(_TICK_S, self._tick, loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look for exchanges whose time is over, as long as there are any."""
        if not self._under_way:
            self._ticking = False
            return
        now = loop.time()
        for connection in [one for one in self._under_way if one.deadline <= now]:
            connection.expire()
        loop.call_later(_TICK_S, self._tick, loop)

    def _encode(self, method: bytes, target: bytes, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bytes:
        head = self._heads.get((method, target))
        if head is None:
            head = self._head(method, target)
        lines = [b"%b: %b\r\n" % header for header in headers]
        if body or method not in (b"GET", b"DELETE"):
            lines.append(b"content-length: %d\r\n" % len(body))
        rest = b"".join(lines)
        # A line break inside a value would be a header of the attacker's choice.
        if rest.count(b"\n") != len(lines) or rest.count(b"\r") != len(lines):
            raise ValueError("a header or the target contains a line break or a space")
        return b"".join((head, rest, b"\r\n", body))

    def _head(self, method: bytes, target: bytes) -> bytes:
        """The request line and the host, kept: there are few."""
        if method == b"HEAD":
            raise ValueError("HEAD is not supported: its answer cannot be told from a truncated one")
        if target.count(b"\n") or target.count(b"\r") or target.count(b" "):
            raise ValueError("a header or the target contains a line break or a space")
        if len(self._heads) >= _MOST_HEADS:
            self._heads.clear()
        head = self._heads[method, target] = b"%b %b HTTP/1.1\r\n%b" % (method, target, self._host_header)
        return head

    def _idle_connection(self, loop: asyncio.AbstractEventLoop) -> Connection | None:
        """The idle connection used most recently that is still good."""
        oldest = loop.time() - self._idle_seconds
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable and connection.idle_since >= oldest:
                return connection
            self._slots -= 1
            connection.close()
        return None

    async def _acquire(self, loop: asyncio.AbstractEventLoop, deadline: float) -> Connection | None:
        """An idle connection, or None: the right (a slot) to open one."""
        if self._closed:
            raise ConnectFailed(f"the pool of {self.url} was closed")
        connection = self._idle_connection(loop)
        if connection is not None:
            return connection
        if self._slots < self._max_connections:
            self._slots += 1
            return None
        if len(self._waiting) >= self._max_waiting:
            raise PoolBusy(
                f"{self.url}: all {self._max_connections} connections are in use and {len(self._waiting)} callers wait"
            )
        return await self._wait_for_slot(loop, deadline)

    async def _wait_for_slot(self, loop: asyncio.AbstractEventLoop, deadline: float) -> Connection | None:
        waiter: asyncio.Future[Connection | None] = loop.create_future()
        self._waiting.append(waiter)
        try:
            async with asyncio.timeout_at(deadline):
                return await waiter
        except BaseException as error:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._release(loop, waiter.result())  # handed over in the moment in which we gave up
            elif waiter in self._waiting:
                self._waiting.remove(waiter)
            if isinstance(error, TimeoutError):
                raise DeadlineExceeded(f"{self.url}: no connection became free in time") from None
            raise

    async def _connect(self, loop: asyncio.AbstractEventLoop, deadline: float) -> Connection:
        until = min(deadline, loop.time() + self._connect_timeout)
        try:
            async with asyncio.timeout_at(until):
                _, connection = await loop.create_connection(
                    lambda: Connection(self.url, max_body=self._max_response, on_idle_close=self._forget),
                    self._host, self._port, ssl=self._tls,
                )  # fmt: skip
                return connection
        except TimeoutError:
            if loop.time() >= deadline:
                raise DeadlineExceeded(f"{self.url} did not accept a connection in time") from None
            raise ConnectFailed(f"{self.url} did not accept a connection within {self._connect_timeout:g} s") from None
        except OSError as error:
            raise ConnectFailed(f"{self.url} does not accept connections: {error}") from error

    def _release(self, loop: asyncio.AbstractEventLoop, connection: Connection | None) -> None:
        """Give back a connection, or (None, or one that is spent) the slot it had."""
        usable = connection is not None and connection.reusable and not self._closed
        if not usable and connection is not None:
            connection.close()
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(connection if usable else None)
                return
        if usable and connection is not None:
            connection.idle_since = loop.time()
            self._idle.append(connection)
        else:
            self._slots -= 1

    def _forget(self, connection: Connection) -> None:
        """An idle connection was closed by the upstream."""
        try:
            self._idle.remove(connection)
        except ValueError:
            return  # in use or already taken out: whoever holds it releases its slot
        self._slots -= 1
