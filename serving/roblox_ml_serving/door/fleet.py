"""The model servers behind the door: their connections, and which of the ready ones takes the next request."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Any

import grpc
from roblox_ml_core.http import Pool
from roblox_ml_core.telemetry import log

from .snapshot import ServerAddress, Snapshot, Target

__all__ = ["Fleet", "Server"]

REST_S = 1.0  # how long a server that lost a connection is asked last
_DRAIN_S = 30.0
_GRPC_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # The default back-off grows to two minutes: a restarted server would stay away long after it is back.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),
)
UnaryCall = Callable[..., Awaitable[bytes]]
logger = logging.getLogger(__name__)


class Server:
    """One model server: a pool of HTTP connections and a gRPC channel that moves bytes."""

    def __init__(self, name: str, address: ServerAddress) -> None:
        self.name = name
        self.address = address
        self.pool = Pool(address.http)
        self.channel: Any = grpc.aio.insecure_channel(address.grpc, options=_GRPC_OPTIONS)
        self.model_infer = self.unary("ModelInfer")
        self.in_flight = 0
        self.resting_until = 0.0

    def unary(self, method: str) -> UnaryCall:
        """A call of a v2 method whose request and answer stay bytes."""
        call: UnaryCall = self.channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
        return call

    async def close(self) -> None:
        await asyncio.gather(self.pool.close(), self.channel.close(_DRAIN_S))


class Fleet:
    """All servers of the snapshot in use."""

    def __init__(self) -> None:
        self._servers: dict[str, Server] = {}
        self._turn = 0
        self._closing: set[asyncio.Task[None]] = set()

    def update(self, snapshot: Snapshot) -> None:
        """Open what is new or has moved, close what is gone; requests under way there end by themselves."""
        for name, address in snapshot.servers.items():
            known = self._servers.get(name)
            if known is None or known.address != address:
                try:
                    self._servers[name] = Server(name, address)
                except ValueError as error:  # one server's misprint must not keep every endpoint from its news
                    log(
                        logger,
                        logging.ERROR,
                        "server ignored: it reports no usable address",
                        server=name,
                        reason=str(error),
                    )
                    self._servers.pop(name, None)
                self._drain(known)
        for name in [name for name in self._servers if name not in snapshot.servers]:
            self._drain(self._servers.pop(name))

    def choose(self, target: Target, avoid: Collection[Server] = ()) -> Server | None:
        """The ready server with the fewest requests in flight, in turn among equals.

        One that has just lost a connection comes last: it fails fast, so it would always look the least busy.
        """
        servers = [
            found for name in target.replicas if (found := self._servers.get(name)) is not None and found not in avoid
        ]
        if len(servers) < 2:
            return servers[0] if servers else None
        now = time.monotonic()
        self._turn += 1
        offset = self._turn % len(servers)
        in_turn = servers[offset:] + servers[:offset]
        return min(in_turn, key=lambda server: (server.resting_until > now, server.in_flight))

    def named(self, names: Iterable[str]) -> list[Server]:
        """Those of `names` that there are."""
        return [found for name in names if (found := self._servers.get(name)) is not None]

    @staticmethod
    def rest(server: Server) -> None:
        """Ask this server last for a moment."""
        server.resting_until = time.monotonic() + REST_S

    async def close(self) -> None:
        await asyncio.gather(*(server.close() for server in self._servers.values()), *self._closing)
        self._servers.clear()

    def _drain(self, server: Server | None) -> None:
        if server is not None:
            task = asyncio.ensure_future(server.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
