"""One exchange with a model server, whatever the socket does: an answer, or lost, or late."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from roblox_ml._direct import rest
from roblox_ml._direct.rest import Connections, Late, Lost

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nX-Which: %d\r\n\r\nok"
Talk = Callable[[socket.socket, int], None]


@pytest.fixture
def server() -> Iterator[Callable[[Talk], Connections]]:
    """Connections to a server that talks as the test says: (the connection, how many were before)."""
    stop: list[Callable[[], None]] = []

    def start(talk: Talk) -> Connections:
        listener = socket.create_server(("127.0.0.1", 0))

        def accept() -> None:
            for number in range(100):
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=one, args=(connection, number), daemon=True).start()

        def one(connection: socket.socket, number: int) -> None:
            with connection, contextlib.suppress(OSError):
                talk(connection, number)

        threading.Thread(target=accept, daemon=True).start()
        stop.append(listener.close)
        return Connections(f"127.0.0.1:{listener.getsockname()[1]}")

    yield start
    for close in stop:
        close()


def heard(connection: socket.socket) -> bytes:
    """One request, of which the body is `{}`."""
    said = b""
    while not said.endswith(b"\r\n\r\n{}"):
        part = connection.recv(65536)
        if not part:
            raise ConnectionError
        said += part
    return said


def post(connections: Connections, seconds: float = 5.0) -> Any:
    return connections.post("/v2/x", {"content-type": "application/json"}, b"{}", time.monotonic() + seconds)


def test_a_connection_serves_one_after_the_other(server: Any) -> None:
    def talk(connection: socket.socket, number: int) -> None:
        while heard(connection):
            connection.sendall(OK % number)

    connections = server(talk)
    for _ in range(3):
        reply = post(connections)
        assert reply == (200, {"content-length": "2", "x-which": "0"}, b"ok")
    connections.close()
    assert post(connections).headers["x-which"] == "1"


def test_an_idle_connection_that_ended_is_replaced(server: Any) -> None:
    def talk(connection: socket.socket, number: int) -> None:
        heard(connection)
        connection.sendall(OK % number)  # and the end, without a word

    connections = server(talk)
    assert [post(connections).headers["x-which"] for _ in range(3)] == ["0", "1", "2"]


def test_one_that_says_it_ends_is_not_kept(server: Any) -> None:
    def talk(connection: socket.socket, number: int) -> None:
        heard(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nto the end")

    connections = server(talk)
    assert post(connections).body == b"to the end" and not connections._idle


def test_what_comes_behind_an_answer_reaches_nobody(server: Any) -> None:
    def talk(connection: socket.socket, number: int) -> None:
        while heard(connection):
            connection.sendall(OK % number + b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nforeign")

    connections = server(talk)
    assert [post(connections).headers["x-which"] for _ in range(2)] == ["0", "1"]


def test_a_large_body_goes_and_comes_whole(server: Any) -> None:
    def talk(connection: socket.socket, number: int) -> None:
        size, said = 3_000_000, b""
        while not said.endswith(b"z" * 10) or len(said) < size:
            said += connection.recv(1 << 20)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + said[-size:])

    sent = b"y" * 2_999_990 + b"z" * 10
    assert server(talk).post("/v2/x", {}, sent, time.monotonic() + 20).body == sent


def test_chunks_are_put_together(server: Any) -> None:
    def talk(connection: socket.socket, number: int) -> None:
        while heard(connection):
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            connection.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")

    connections = server(talk)
    assert [post(connections).body for _ in range(2)] == [b"abcde", b"abcde"] and len(connections._idle) == 1


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nshort",
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 200 OK\r\nx: y",
        b"HTTP/1.1 101 Go\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    ],
)
def test_what_is_no_answer_is_lost(server: Any, said: bytes) -> None:
    def talk(connection: socket.socket, number: int) -> None:
        heard(connection)
        connection.sendall(said)

    connections = server(talk)
    with pytest.raises(Lost, match=r"127\.0\.0\.1"):
        post(connections)
    assert not connections._idle


@pytest.mark.parametrize("drip", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n"])
def test_the_deadline_holds_for_silence_and_for_drops(server: Any, drip: bytes) -> None:
    over = threading.Event()

    def talk(connection: socket.socket, number: int) -> None:
        heard(connection)
        connection.sendall(drip)
        while not over.wait(0.02):
            if drip:
                connection.sendall(b".")

    connections = server(talk)
    with pytest.raises(Late):
        post(connections, 0.3)
    over.set()
    assert not connections._idle
    with pytest.raises(Late):
        post(connections, -1.0)


def test_nobody_there_is_lost_and_no_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Lost, match="cannot connect"):
        post(Connections("127.0.0.1:9"))
    for wrong in ("", "ftp://h:1", "h:1/path", "h:port"):
        with pytest.raises(ValueError):
            Connections(wrong)
    assert Connections("https://h")._port == 443


def test_one_that_was_idle_for_long_is_not_trusted(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def talk(connection: socket.socket, number: int) -> None:
        while heard(connection):
            connection.sendall(OK % number)

    connections = server(talk)
    post(connections)
    monkeypatch.setattr(rest, "_IDLE_S", -1.0)
    assert post(connections).headers["x-which"] == "1"
