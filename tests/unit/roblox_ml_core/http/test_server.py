"""The server against clients that misbehave: over real sockets, byte by byte, on both event loops."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import h11
import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from roblox_ml_core.http.messages import Reply, Request, json_reply
from roblox_ml_core.http.server import Limits, Server

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
LIMITS = Limits(
    head_bytes=2000, headers=20, target_bytes=300, body_bytes=1000, head_s=0.3, body_s=0.3, idle_s=0.4, write_s=0.3
)
loop_kind = "asyncio"


@pytest.fixture(params=LOOPS, autouse=True)
def event_loop_kind(request) -> None:
    global loop_kind
    loop_kind = request.param


def run(coroutine: Awaitable[None]) -> None:
    with asyncio.Runner(loop_factory=LOOPS[loop_kind]) as runner:
        runner.run(asyncio.wait_for(coroutine, 20))  # type: ignore[arg-type]


class Echo:
    """Says what it was asked. `/slow` waits for `go`, `/later` answers by a callback, `/breaks` and `/breaks-early` fail."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.cancelled = 0
        self.started = asyncio.Event()
        self.go = asyncio.Event()

    def admit(self, request: Request) -> Reply | None:
        return json_reply(404, {"error": "nothing there"}) if request.path == b"/nothing" else None

    def begin(self, request: Request, done: Callable[[Reply], None]) -> Reply | asyncio.TimerHandle | None:
        if request.path == b"/at-once":
            return Reply(200, [], b"at once")
        if request.path == b"/later":
            return asyncio.get_running_loop().call_later(0.005, lambda: done(Reply(200, [], b"later")))
        if request.path == b"/breaks-early":
            raise RuntimeError("secret of begin")
        return None

    async def answer(self, request: Request) -> Reply:
        self.asked.append(request)
        if request.path == b"/breaks":
            raise RuntimeError("secret of answer")
        if request.path == b"/slow":
            self.started.set()
            try:
                await self.go.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        if request.path == b"/large":
            return Reply(200, [], b"x" * (8 << 20))
        if request.path == b"/empty":
            return Reply(204)
        return json_reply(200, {"target": request.target.decode("latin-1"), "body": request.body.decode("latin-1")})


@asynccontextmanager
async def serving(limits: Limits = LIMITS) -> AsyncIterator[tuple[Server, Echo, int]]:
    application = Echo()
    server = Server(application, limits)
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    await server.start(listening)
    try:
        yield server, application, listening.getsockname()[1]
    finally:
        await server.stop(drain_s=0)


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def replies(
    reader: asyncio.StreamReader, count: int, method: bytes = b"POST"
) -> list[tuple[int, bytes, dict[bytes, bytes]]]:
    """The next replies, read by another implementation; fewer where the connection ends."""
    parser = h11.Connection(h11.CLIENT)
    found: list[tuple[int, bytes, dict[bytes, bytes]]] = []

    def ask() -> None:
        parser.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
        parser.send(h11.EndOfMessage())

    ask()
    status, body, headers = 0, b"", {}
    while len(found) < count:
        event = parser.next_event()
        if event is h11.NEED_DATA:
            data = await reader.read(65536)
            if not data and parser.their_state is h11.SEND_RESPONSE:
                break
            parser.receive_data(data)
        elif isinstance(event, h11.Response):
            status, body, headers = event.status_code, b"", dict(event.headers)
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            found.append((status, body, headers))
            if parser.their_state is h11.MUST_CLOSE or parser.our_state is h11.MUST_CLOSE:
                break
            parser.start_next_cycle()
            if len(found) < count:
                ask()
    return found


def request(target: str = "/a", body: bytes = b"", *lines: str, method: str = "POST") -> bytes:
    head = [f"{method} {target} HTTP/1.1", "host: x", f"content-length: {len(body)}", *lines]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


async def say(port: int, data: bytes, *, eof: bool = False) -> list[tuple[int, bytes, dict[bytes, bytes]]]:
    """Everything the server says to these bytes until it closes or has answered once."""
    async with connected(port) as (reader, writer):
        writer.write(data)
        if eof:
            writer.write_eof()
        return await replies(reader, 1)


def test_requests_that_come_at_once_are_answered_in_order_on_one_connection() -> None:
    async def scenario() -> None:
        async with serving() as (server, _application, port), connected(port) as (reader, writer):
            wanted = [f"/{number}" if number % 3 else "/at-once" if number % 2 else "/later" for number in range(40)]
            writer.write(b"".join(request(target, b"b%d" % number) for number, target in enumerate(wanted)))
            got = await replies(reader, 40)
            assert [status for status, _, _ in got] == [200] * 40
            for (_, body, _), (number, target) in zip(got, enumerate(wanted), strict=True):
                special = {"/at-once": b"at once", "/later": b"later"}.get(target)
                assert body == special or json.loads(body) == {"target": target, "body": f"b{number}"}
            assert server.connections == 1

    run(scenario())


BAD = {
    "no HTTP": (b"hello\r\n\r\n", 400),
    "two different lengths": (b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab", 400),
    "a length and chunks": (
        b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400,
    ),
    "a length that is none": (b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: +3\r\n\r\nabc", 400),
    "a coding that is none of ours": (b"POST /a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\n\r\nabc", 400),
    "a space before the colon": (b"POST /a HTTP/1.1\r\nhost : x\r\n\r\n", 400),
    "a folded line": (b"POST /a HTTP/1.1\r\nhost: x\r\na: b\r\n c: d\r\ncontent-length: 0\r\n\r\n", 400),
    "a NUL in a value": (b"POST /a HTTP/1.1\r\nhost: x\r\na: b\x00c\r\n\r\n", 400),
    "chunk sizes that are none": (b"POST /a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", 400),
    "chunks in HTTP/1.0": (b"POST /a HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "another version": (b"POST /a HTTP/3.7\r\nhost: x\r\n\r\n", 400),
    "a long target": (b"GET /" + b"a" * 400 + b" HTTP/1.1\r\nhost: x\r\n\r\n", 414),
    "a long header": (b"GET /a HTTP/1.1\r\nhost: x\r\na: " + b"b" * 3000 + b"\r\n\r\n", 431),
    "many headers": (b"GET /a HTTP/1.1\r\n" + b"a: b\r\n" * 30 + b"\r\n", 431),
    "a body that says it is too long": (b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n", 413),
    "chunks that grow too long": (
        b"POST /a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" + b"100\r\n" + b"x" * 256 + b"\r\n" + b"300\r\n", 413,
    ),
    "an expectation that is none of ours": (b"POST /a HTTP/1.1\r\nhost: x\r\nexpect: tea\r\ncontent-length: 1\r\n\r\n", 417),
    "HEAD": (b"HEAD /a HTTP/1.1\r\nhost: x\r\n\r\n", 405),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_request_is_told_so_and_never_reaches_the_application(what: str) -> None:
    data, status = BAD[what]
    if what == "chunks that grow too long":
        data += b"x" * 0x300 + b"\r\n"

    async def scenario() -> None:
        async with serving() as (_, application, port), connected(port) as (reader, writer):
            # Another request behind it: smuggled or not, it must not be taken for one.
            writer.write(data if status == 405 else data + request("/smuggled"))
            (got, *rest) = await replies(reader, 2, b"HEAD" if status == 405 else b"POST")
            assert got[0] == status and not rest
            with contextlib.suppress(OSError):
                writer.write(request("/smuggled"))
                await writer.drain()
                await reader.read()
            assert application.asked == [] or status == 405
            if status != 405:
                assert got[2][b"connection"] == b"close"
                assert "error" in json.loads(got[1])

    run(scenario())


def test_a_refusal_from_the_head_leaves_the_connection_usable_when_its_body_is_small() -> None:
    async def scenario() -> None:
        async with serving() as (_, application, port), connected(port) as (reader, writer):
            writer.write(request("/nothing", b"x" * 500) + request("/there"))
            got = await replies(reader, 2)
            assert [status for status, _, _ in got] == [404, 200]
            assert [one.target for one in application.asked] == [b"/there"]

    run(scenario())


def test_whoever_expects_100_gets_it_only_where_the_body_is_wanted() -> None:
    async def scenario() -> None:
        async with serving() as (_, _application, port):
            async with connected(port) as (reader, writer):
                writer.write(request("/a", b"", "expect: 100-continue").replace(b"length: 0", b"length: 3"))
                assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
                writer.write(b"abc")
                assert json.loads((await replies(reader, 1))[0][1])["body"] == "abc"
            async with connected(port) as (reader, writer):
                writer.write(request("/nothing", b"", "expect: 100-continue").replace(b"length: 0", b"length: 3"))
                ((status, _, headers),) = await replies(reader, 1)
                assert (status, headers[b"connection"]) == (404, b"close")

    run(scenario())


def test_http_1_0_and_connection_close_end_the_connection_after_the_answer() -> None:
    async def scenario() -> None:
        async with serving() as (_server, _, port):
            for data in (b"GET /a HTTP/1.0\r\n\r\n", request("/a", b"", "connection: close")):
                async with connected(port) as (reader, writer):
                    writer.write(data)
                    answer = await reader.read()
                    assert answer.startswith(b"HTTP/1.1 200") and b'"target":"/a"' in answer
            async with connected(port) as (reader, writer):
                writer.write(b"GET /a HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
                answer = await reader.readuntil(b'""}')
                assert b"connection: keep-alive" in answer
                writer.write(b"GET /b HTTP/1.0\r\n\r\n")
                assert b'"target":"/b"' in await reader.read()

    run(scenario())


def test_an_offer_of_another_protocol_is_answered_in_this_one() -> None:
    async def scenario() -> None:
        async with serving() as (_, application, port), connected(port) as (reader, writer):
            writer.write(request("/a", b"abc", "connection: upgrade", "upgrade: h2c") + request("/b"))
            got = await replies(reader, 2)
            assert [json.loads(body)["target"] for _, body, _ in got] == ["/a", "/b"]
            assert application.asked[0].body == b"abc"

    run(scenario())


def test_a_client_that_only_stops_sending_still_gets_its_answer() -> None:
    async def scenario() -> None:
        async with serving() as (_, application, port), connected(port) as (reader, writer):
            writer.write(request("/slow"))
            writer.write_eof()
            await application.started.wait()
            await asyncio.sleep(0.05)
            application.go.set()
            answer = await reader.read()
            assert answer.endswith(b'{"target":"/slow","body":""}')
            assert application.cancelled == 0

    run(scenario())


def test_a_client_that_goes_away_takes_its_question_back() -> None:
    async def scenario() -> None:
        async with serving() as (_server, application, port):
            async with connected(port) as (_, writer):
                writer.write(request("/slow"))
                await application.started.wait()
                writer.transport.abort()
            while not application.cancelled:
                await asyncio.sleep(0.005)
            assert await say(port, request("/a")) != []

    run(scenario())


def test_slow_heads_and_bodies_end_and_idle_connections_are_closed() -> None:
    async def scenario() -> None:
        async with serving() as (_server, application, port):
            assert (await say(port, b"POST /a HTTP/1.1\r\nhos"))[0][0] == 408
            assert (await say(port, request("/a", b"abc")[:-1]))[0][0] == 408
            async with connected(port) as (reader, writer):
                writer.write(request("/a"))
                assert len(await replies(reader, 1)) == 1
                assert await reader.read() == b""
            async with connected(port) as (reader, _):
                assert await reader.read() == b""
            assert [one.target for one in application.asked] == [b"/a"]

    run(scenario())


def test_a_client_that_does_not_read_is_given_up() -> None:
    async def scenario() -> None:
        async with serving() as (server, _, port):
            silent = socket.socket()
            silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            silent.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                silent.connect(("127.0.0.1", port))
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(silent, request("/large") * 3)
            while not server.connections:
                await asyncio.sleep(0.005)
            while server.connections:  # it waits for nobody for ever
                await asyncio.sleep(0.01)
            silent.close()

    run(scenario())


def test_failures_of_the_application_are_500_and_say_nothing_of_their_inside(caplog) -> None:
    async def scenario() -> None:
        async with serving() as (_, _, port), connected(port) as (reader, writer):
            writer.write(request("/breaks") + request("/breaks-early") + request("/fine") + request("/empty"))
            got = await replies(reader, 4)
            assert [status for status, _, _ in got] == [500, 500, 200, 204]
            assert b"secret" not in b"".join(body for _, body, _ in got)

    run(scenario())
    assert "secret of answer" in caplog.text and "secret of begin" in caplog.text


def test_an_end_lets_what_is_under_way_finish_and_takes_nothing_new() -> None:
    async def scenario() -> None:
        async with (
            serving() as (server, application, port),
            connected(port) as (reader, writer),
            connected(port) as (idle, _),
        ):
            writer.write(request("/slow"))
            await application.started.wait()
            ending = asyncio.create_task(server.stop(5))
            assert await idle.read() == b""
            with pytest.raises(OSError):
                await asyncio.open_connection("127.0.0.1", port)
            application.go.set()
            ((status, _, headers),) = await replies(reader, 1)
            assert (status, headers[b"connection"]) == (200, b"close")
            await ending
            assert server.connections == 0

    run(scenario())


def test_more_connections_than_allowed_are_told_so() -> None:
    async def scenario() -> None:
        async with serving(Limits(connections=1)) as (_, _, port), connected(port) as (reader, writer):
            writer.write(request("/a"))
            assert (await replies(reader, 1))[0][0] == 200
            assert (await say(port, request("/b")))[0][0] == 503

    run(scenario())


STREAM = (
    request("/one", b"abc")
    + b"POST /two HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\ndef\r\n2;ext=1\r\ngh\r\n0\r\ntrailer: t\r\n\r\n"
    + request("/nothing", b"thrown away")
    + request("/at-once")
    + request("/three", b"\x00\xff")
)
ANSWERS = [
    (200, {"target": "/one", "body": "abc"}), (200, {"target": "/two", "body": "defgh"}), (404, {"error": "nothing there"}),
    (200, b"at once"), (200, {"target": "/three", "body": "\x00\xff"}),
]  # fmt: skip


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.integers(1, len(STREAM) - 1), max_size=12))
def test_wherever_the_bytes_are_cut_the_answers_are_the_same(cuts: set[int]) -> None:
    async def scenario() -> None:
        async with serving() as (_, _, port), connected(port) as (reader, writer):
            writer.transport.set_write_buffer_limits(0)
            marks = [0, *sorted(cuts), len(STREAM)]
            for start, end in itertools.pairwise(marks):
                writer.write(STREAM[start:end])
                await writer.drain()
                await asyncio.sleep(0)
            got = await replies(reader, len(ANSWERS))
            assert [(status, body if isinstance(wanted, bytes) else json.loads(body)) for (status, body, _), (_, wanted) in
                    zip(got, ANSWERS, strict=True)] == ANSWERS  # fmt: skip

    run(scenario())


PIECES = st.sampled_from([
    b"GET / HTTP/1.1\r\n", b"POST /a HTTP/1.1\r\n", b"host: x\r\n", b"content-length: 5\r\n", b"transfer-encoding: chunked\r\n",
    b"connection: close\r\n", b"upgrade: x\r\nconnection: upgrade\r\n", b"expect: 100-continue\r\n", b"\r\n", b"5\r\nabcde\r\n",
    b"0\r\n\r\n", b"abcde", b"\x00", b"\n", b":",
])  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PIECES | st.binary(max_size=30), max_size=12))
def test_no_bytes_bring_it_down_or_hold_it(pieces: list[bytes]) -> None:
    async def scenario() -> None:
        limits = Limits(head_s=0.02, body_s=0.02, idle_s=0.02, linger_s=0.02)
        async with serving(limits) as (_server, _, port):
            async with connected(port) as (reader, writer):
                writer.write(b"".join(pieces))
                answer = await reader.read()  # it answers or closes, by itself
                assert answer == b"" or answer.startswith(b"HTTP/1.1 ")
            assert (await say(port, request("/after")))[0][0] == 200

    run(scenario())
