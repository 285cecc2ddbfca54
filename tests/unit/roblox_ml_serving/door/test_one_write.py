"""An answer leaves the door in one write, whole, in order, whatever its method, length or ending."""

from __future__ import annotations

import asyncio

import pytest
from roblox_ml_serving.door.one_write import _Transport


class Wire:
    """A transport that remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[bytes | str] = []

    def write(self, data: bytes) -> None:
        self.told.append(data)

    def close(self) -> None:
        self.told.append("close")

    def is_closing(self) -> bool:
        return "close" in self.told


HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"


def test_head_and_body_are_one_write_and_nothing_is_kept_back() -> None:
    wire = Wire()
    transport = _Transport(wire)  # type: ignore[arg-type]
    transport.write(HEAD)
    transport.write(b"{}")
    transport.write(HEAD)
    transport.write(b"")
    large = bytes(100_000)
    transport.write(HEAD)
    transport.write(large)
    transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    transport.write(HEAD)
    transport.close()
    assert transport.is_closing()
    assert wire.told == [HEAD + b"{}", HEAD, HEAD, large, b"HTTP/1.1 100 Continue\r\n\r\n", HEAD, "close"]


@pytest.mark.parametrize(
    ("request_lines", "status", "closes"),
    [
        ("HEAD /v2 HTTP/1.1\r\nhost: x\r\n\r\n", b"405", False),
        ("GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n", b"200", False),
        ("GET /v2/health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", b"200", True),
        ("not http at all\r\n\r\n", b"400", True),
        (
            "POST /v2/models/sentiment/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
            b"400",
            True,
        ),
    ],
)
def test_every_kind_of_answer_arrives(with_world, request_lines: str, status: bytes, closes: bool) -> None:
    async def scenario(world) -> None:
        host, _, port = world.url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(request_lines.encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.split()[1] == status
        if closes:
            await reader.read()
            assert reader.at_eof()
        writer.close()

    with_world(scenario)
