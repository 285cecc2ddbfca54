"""Send an answer's head and body in one write.

uvicorn writes the head when a response starts and the body when it comes: two system calls and, without delay on the
socket, two packets per answer. They are the largest single cost of a request through the door, and a short answer needs
only one of them.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["OneWriteProtocol"]

_JOIN_UP_TO = 64 * 1024  # a larger body is not worth a copy
_INTERIM = b"HTTP/1.1 100"


class _Transport:
    """The connection's transport, except that the head of a final answer waits for what is written next."""

    __slots__ = ("_head", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._head:
            if data.startswith(b"HTTP/1.1 ") and not data.startswith(_INTERIM):
                self._head = data
            else:
                self._transport.write(data)
            return
        if len(data) <= _JOIN_UP_TO:
            head, self._head = self._head, b""
            self._transport.write(head + data)
        else:
            self.flush()
            self._transport.write(data)

    def flush(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)

    def close(self) -> None:
        self.flush()
        self._transport.close()


class OneWriteProtocol(HttpToolsProtocol):  # type: ignore[misc]
    """uvicorn's HTTP/1.1 protocol over such a transport."""

    transport: Any

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(_Transport(transport))

    def on_response_complete(self) -> None:
        self.transport.flush()  # an answer to HEAD has no body that would take its head along
        super().on_response_complete()
