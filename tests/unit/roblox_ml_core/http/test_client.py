"""The pooled client against an upstream that misbehaves on purpose, byte by byte."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from roblox_ml_core.http import (
    ConnectFailed,
    ConnectionLost,
    DeadlineExceeded,
    Pool,
    PoolBusy,
    ProtocolViolation,
    ResponseTooLarge,
)

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter, int], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


async def read_request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next((int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length:")), 0)
    return head, await reader.readexactly(length)


@asynccontextmanager
async def upstream(script: Script):
    """A server that runs `script(reader, writer, connection_number)`; yields (url, number of connections so far)."""
    seen: list[asyncio.StreamWriter] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(writer)
        try:
            await script(reader, writer, len(seen))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}", seen
    finally:
        server.close()
        for writer in seen:
            writer.close()


def answering(*answers: bytes) -> Script:
    """Answer each request of a connection with the next of `answers`, then close it."""

    async def script(reader, writer, number) -> None:
        for answer in answers:
            await read_request(reader)
            writer.write(answer)
            await writer.drain()

    return script


async def forever(reader, writer, number) -> None:
    while True:
        await read_request(reader)
        writer.write(OK)


LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
loop_kind = "asyncio"


@pytest.fixture(params=LOOPS, autouse=True)
def event_loop_kind(request) -> None:
    """Every test runs on both event loops: their transports and their order of callbacks differ."""
    global loop_kind
    loop_kind = request.param


def run(coroutine) -> None:
    with asyncio.Runner(loop_factory=LOOPS[loop_kind]) as runner:
        runner.run(asyncio.wait_for(coroutine, 20))


def test_connections_are_reused_and_sent_bytes_are_what_was_asked() -> None:
    async def main() -> None:
        heads = []

        async def script(reader, writer, number) -> None:
            while True:
                heads.append(await read_request(reader))
                writer.write(OK)

        async with upstream(script) as (url, seen):
            pool = Pool(url)
            for _ in range(3):
                response = await pool.request(b"POST", b"/x?y=1", [(b"a-b", b"c")], b"body", timeout=5)
                assert (response.status, response.body, response.header(b"content-length")) == (200, b"ok", b"2")
            assert len(seen) == 1 == pool.connections
            assert heads[0] == heads[2]
            host = url.removeprefix("http://").encode()
            assert heads[0] == (
                b"POST /x?y=1 HTTP/1.1\r\nhost: " + host + b"\r\na-b: c\r\ncontent-length: 4\r\n\r\n",
                b"body",
            )
            await pool.close()

    run(main())


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", b"abcde"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nz", b"z"),
        (b"HTTP/1.1 200 OK\r\n\r\nto the end", b"to the end"),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\nold", b"old"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\nbye", b"bye"),
    ],
)
@pytest.mark.parametrize("piece", [1, 7, 10_000])
def test_every_framing_in_any_pieces(raw: bytes, body: bytes, piece: int) -> None:
    async def main() -> None:
        async def script(reader, writer, number) -> None:
            await read_request(reader)
            for start in range(0, len(raw), piece):
                writer.write(raw[start : start + piece])
                await writer.drain()
                await asyncio.sleep(0)

        async with upstream(script) as (url, _):
            pool = Pool(url)
            response = await pool.request(b"GET", b"/", timeout=5)
            assert response.body == body
            await pool.close()

    run(main())


def test_a_stale_connection_is_replaced_once_and_only_when_the_request_may_be_sent_twice() -> None:
    async def main() -> None:
        # Each connection answers one request and then, on the second, closes without a byte: a restarted server.
        async def script(reader, writer, number) -> None:
            await read_request(reader)
            writer.write(OK)
            await read_request(reader)

        async with upstream(script) as (url, seen):
            pool = Pool(url)
            await pool.request(b"POST", b"/", body=b"1", timeout=5)
            assert (await pool.request(b"POST", b"/", body=b"2", timeout=5)).body == b"ok"
            assert len(seen) == 2
            with pytest.raises(ConnectionLost) as lost:
                await pool.request(b"POST", b"/", body=b"3", timeout=5, resend_safe=False)
            assert not lost.value.response_started
            assert len(seen) == 2
            assert pool.connections == 0
            await pool.close()

    run(main())


def test_a_fresh_connection_that_is_lost_is_not_asked_again() -> None:
    async def main() -> None:
        async def script(reader, writer, number) -> None:
            await read_request(reader)

        async with upstream(script) as (url, seen):
            pool = Pool(url)
            with pytest.raises(ConnectionLost):
                await pool.request(b"GET", b"/", timeout=5)
            assert len(seen) == 1

    run(main())


def test_half_an_answer_is_never_retried_nor_returned() -> None:
    async def main() -> None:
        async def script(reader, writer, number) -> None:
            await read_request(reader)
            writer.write(OK)
            await read_request(reader)
            writer.write(OK[:-1])

        async with upstream(script) as (url, seen):
            pool = Pool(url)
            await pool.request(b"GET", b"/", timeout=5)
            with pytest.raises(ConnectionLost) as lost:
                await pool.request(b"GET", b"/", timeout=5)
            assert lost.value.response_started
            assert len(seen) == 1

    run(main())


def test_an_idle_connection_that_the_upstream_closes_is_forgotten() -> None:
    async def main() -> None:
        async with upstream(answering(OK)) as (url, seen):
            pool = Pool(url)
            await pool.request(b"GET", b"/", timeout=5)
            while pool.connections:
                await asyncio.sleep(0.005)
            await pool.request(b"GET", b"/", timeout=5, resend_safe=False)
            assert len(seen) == 2

    run(main())


def test_bytes_nobody_asked_for_never_become_an_answer() -> None:
    async def main() -> None:
        async def script(reader, writer, number) -> None:
            await read_request(reader)
            writer.write(OK + b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")
            await read_request(reader)
            writer.write(OK)

        async with upstream(script) as (url, seen):
            pool = Pool(url)
            for _ in range(2):
                assert (await pool.request(b"GET", b"/", timeout=5)).body == b"ok"
            assert len(seen) == 2

    run(main())


def test_the_deadline_ends_connecting_waiting_and_reading() -> None:
    async def main() -> None:
        async def silent(reader, writer, number) -> None:
            await read_request(reader)
            await asyncio.sleep(60)

        async with upstream(silent) as (url, _):
            pool = Pool(url, max_connections=1)
            first = asyncio.create_task(pool.request(b"GET", b"/", timeout=0.3))
            await asyncio.sleep(0)
            with pytest.raises(DeadlineExceeded, match="no connection became free"):
                await pool.request(b"GET", b"/", timeout=0.05)
            with pytest.raises(DeadlineExceeded, match="did not answer in time"):
                await first
            assert (pool.connections, pool.in_flight) == (0, 0)

    run(main())


def test_connections_are_bounded_and_the_line_has_an_end() -> None:
    async def main() -> None:
        gate = asyncio.Event()

        async def script(reader, writer, number) -> None:
            while True:
                await read_request(reader)
                await gate.wait()
                writer.write(OK)

        async with upstream(script) as (url, seen):
            pool = Pool(url, max_connections=2, max_waiting=3)
            tasks = [asyncio.create_task(pool.request(b"GET", b"/", timeout=10)) for _ in range(5)]
            while len(seen) < 2:
                await asyncio.sleep(0.005)
            with pytest.raises(PoolBusy):
                await pool.request(b"GET", b"/", timeout=10)
            gate.set()
            assert [(await task).status for task in tasks] == [200] * 5
            assert len(seen) == 2
            await pool.close()
            assert pool.connections == 0

    run(main())


def test_a_cancelled_caller_leaves_no_answer_for_the_next_one_and_frees_its_slot() -> None:
    async def main() -> None:
        async def script(reader, writer, number) -> None:
            head, _ = await read_request(reader)
            if b"/slow" in head:
                await asyncio.sleep(60)
            writer.write(OK)
            await read_request(reader)

        async with upstream(script) as (url, seen):
            pool = Pool(url, max_connections=1)
            slow = asyncio.create_task(pool.request(b"GET", b"/slow", timeout=30))
            while not seen:
                await asyncio.sleep(0.005)
            waiting = asyncio.create_task(pool.request(b"GET", b"/", timeout=30))
            given_up = asyncio.create_task(pool.request(b"GET", b"/", timeout=30))
            await asyncio.sleep(0.01)
            given_up.cancel()
            slow.cancel()
            assert (await waiting).body == b"ok"
            assert len(seen) == 2
            await asyncio.gather(slow, given_up, return_exceptions=True)
            assert (pool.connections, pool.in_flight) == (1, 0)

    run(main())


def test_limits_and_garbage_are_named() -> None:
    async def main() -> None:
        cases = [
            (b"SSH-2.0-OpenSSH\r\n", ProtocolViolation),
            (b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", ProtocolViolation),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n" + 11 * b"x", ResponseTooLarge),
            (b"HTTP/1.1 200 OK\r\n" + b"a: " + 70_000 * b"x" + b"\r\n\r\n", ResponseTooLarge),
        ]
        for raw, expected in cases:
            async with upstream(answering(raw)) as (url, _):
                pool = Pool(url, max_response_bytes=10)
                with pytest.raises(expected):
                    await pool.request(b"GET", b"/", timeout=5)
                assert pool.connections == 0

    run(main())


def test_nobody_listens(free_port) -> None:
    async def main() -> None:
        pool = Pool(f"127.0.0.1:{free_port()}")
        with pytest.raises(ConnectFailed, match="does not accept connections"):
            await pool.request(b"GET", b"/", timeout=5)
        assert pool.connections == 0

    run(main())


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://x/path", ""])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="no upstream address"):
        Pool(url)


@given(value=st.binary(max_size=20), where=st.sampled_from(["value", "name", "target"]))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_input_can_add_a_header(value: bytes, where: str) -> None:
    pool = Pool("http://127.0.0.1:1")
    name, text, target = b"x", b"y", b"/"
    if where == "value":
        text = value
    elif where == "name":
        name = value
    else:
        target = value
    dangerous = b"\r" in value or b"\n" in value or (where == "target" and b" " in value)
    if dangerous:
        with pytest.raises(ValueError, match="line break or a space"):
            pool._encode(b"GET", target, [(name, text)], b"")
    else:
        head = pool._encode(b"GET", target, [(name, text)], b"")
        assert head.count(b"\r\n") == 4
        assert head.endswith(b"\r\n\r\n")


@given(data=st.binary(max_size=300), pieces=st.integers(1, 5))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_arbitrary_upstream_bytes_end_in_an_answer_or_a_named_error(data: bytes, pieces: int) -> None:
    from roblox_ml_core.http import UpstreamError
    from roblox_ml_core.http.connection import Connection

    class Transport(asyncio.Transport):
        closed = False

        def write(self, data: bytes) -> None: ...
        def abort(self) -> None:
            self.closed = True

        def is_closing(self) -> bool:
            return self.closed

        def get_write_buffer_size(self) -> int:
            return 0

    async def main() -> None:
        connection = Connection("stub", max_body=100)
        connection.connection_made(Transport())
        exchange = asyncio.ensure_future(connection.exchange(b"", asyncio.get_running_loop().time() + 5))
        await asyncio.sleep(0)
        step = max(1, len(data) // pieces)
        for start in range(0, len(data), step):
            connection.data_received(b"HTTP/1.1 200 OK\r\n"[: 17 if start == 0 else 0] + data[start : start + step])
        connection.eof_received()
        connection.connection_lost(None)
        try:
            assert (await exchange).status == 200
        except UpstreamError:
            assert not connection.reusable

    run(main())


def test_bytes_on_an_idle_connection_end_it() -> None:
    async def main() -> None:
        later = asyncio.Event()

        async def script(reader, writer, number) -> None:
            await read_request(reader)
            writer.write(OK)
            if number == 1:
                await later.wait()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")
                await writer.drain()
            await reader.read()

        async with upstream(script) as (url, seen):
            pool = Pool(url)
            assert (await pool.request(b"GET", b"/", timeout=5)).body == b"ok"
            later.set()
            while pool.connections:  # seen and closed without anybody asking
                await asyncio.sleep(0.005)
            assert (await pool.request(b"GET", b"/", timeout=5, resend_safe=False)).body == b"ok"
            assert len(seen) == 2

    run(main())


def test_a_slot_handed_to_a_caller_who_gives_up_in_that_moment_is_not_lost() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        pool = Pool("http://127.0.0.1:1", max_connections=1)
        assert await pool._acquire(loop, loop.time() + 5) is None
        waiting = asyncio.create_task(pool._acquire(loop, loop.time() + 5))
        await asyncio.sleep(0)
        pool._release(loop, None)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert pool.connections == 0

    run(main())
