"""The model servers behind the door: their connections, and which of the ready ones takes the next request (`http.health` of core)."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Any

import grpc
from roblox_ml_core.http import Pool
from roblox_ml_core.http.health import Health, pick, usable
from roblox_ml_core.telemetry import log

from .snapshot import ServerAddress, Snapshot, Target

__all__ = ["Fleet", "Server"]

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
        self.health = Health(time.monotonic())
        self.under_way: dict[str, int] = {}  # by Triton's name of the version

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

    def __contains__(self, server: Server) -> bool:
        return self._servers.get(server.name) is server

    def choose(self, target: Target, avoid: Collection[Server] = ()) -> Server | None:
        """One of the ready servers: of two drawn at random the less busy one."""
        names = target.replicas
        if len(names) == 1:
            found = self._servers.get(names[0])
            return None if found is None or found in avoid else found
        servers = [server for name in names if (server := self._servers.get(name)) is not None and server not in avoid]
        if not servers:
            return None
        now = time.monotonic()
        return pick(usable(servers, now), now, random.getrandbits(48))

    def failed(self, server: Server, *, lost: bool) -> None:
        """A request to this server did not come back."""
        now = time.monotonic()
        out = sum(one.health.ejected_until > now for one in self._servers.values())
        server.health.failed(now, lost=lost, may_leave_out=2 * (out + 1) <= len(self._servers))

    def in_flight(self) -> int:
        """Requests under way at all servers."""
        return sum(server.health.in_flight for server in self._servers.values())

    def named(self, names: Iterable[str]) -> list[Server]:
        """Those of `names` that there are."""
        return [found for name in names if (found := self._servers.get(name)) is not None]

    async def close(self) -> None:
        await asyncio.gather(*(server.close() for server in self._servers.values()), *self._closing)
        self._servers.clear()

    def _drain(self, server: Server | None) -> None:
        if server is not None:
            task = asyncio.ensure_future(server.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
