"""Our own HTTP/1.1 server: an asyncio protocol over httptools, for applications that answer whole requests.

Half the cost of a request under a general server is what stands between its parser and the application (a dictionary per request,
a coroutine per message, two writes per answer). docs/design/door.md has the measurement. For TLS and HTTP/2 the same application runs
under any ASGI server: `asgi.as_asgi`.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from typing import cast

from .messages import Application, Beginner
from .server_connection import ServerConnection

__all__ = ["Limits", "Server"]

_SWEEP_S = 0.1


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may send and how long it may take; bytes and seconds."""

    head_bytes: int = 64 << 10
    headers: int = 100
    target_bytes: int = 16 << 10
    body_bytes: int = 64 << 20
    head_s: float = 10.0
    body_s: float = 30.0
    idle_s: float = 75.0
    write_s: float = 30.0
    linger_s: float = 2.0
    connections: int = 10_000


class Server:
    """Serves an application on sockets that are bound already."""

    def __init__(self, application: Application, limits: Limits | None = None) -> None:
        self.application = application
        self.begin = cast(Beginner, application).begin if hasattr(application, "begin") else None
        self.limits = limits or Limits()
        self.loop = asyncio.get_running_loop()
        self.draining = False
        self._connections: set[ServerConnection] = set()
        self._servers: list[asyncio.Server] = []
        self._sweeping: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()

    async def start(self, *sockets: socket.socket, backlog: int = 2048) -> None:
        """Listen."""
        for listening in sockets:
            self._servers.append(
                await self.loop.create_server(lambda: ServerConnection(self), sock=listening, backlog=backlog)
            )
        self._sweep()

    async def stop(self, drain_s: float = 10.0) -> None:
        """Accept nothing more, let what is under way end, close what is left after `drain_s`."""
        self.draining = True
        for server in self._servers:
            server.close()
        for connection in list(self._connections):
            connection.drain()
        if self._connections:
            self._empty.clear()
            try:
                async with asyncio.timeout(drain_s):
                    await self._empty.wait()
            except TimeoutError:
                for connection in list(self._connections):
                    connection.abort()
        if self._sweeping is not None:
            self._sweeping.cancel()
        await asyncio.sleep(0)

    @property
    def connections(self) -> int:
        return len(self._connections)

    def add(self, connection: ServerConnection) -> bool:
        """Whether there is room for it."""
        self._connections.add(connection)
        return len(self._connections) <= self.limits.connections

    def remove(self, connection: ServerConnection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    def _sweep(self) -> None:
        now = self.loop.time()
        for connection in [one for one in self._connections if one.deadline < now]:
            connection.expire(now)
        if self.draining:
            for connection in list(self._connections):
                connection.drain()
        self._sweeping = self.loop.call_later(_SWEEP_S, self._sweep)
