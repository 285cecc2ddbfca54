"""The model servers as this process knows them: how busy, whether to leave one alone, and the connections to each."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Collection, Mapping
from typing import Any

from .. import _siblings
from .._rollouts.forking import renewed_after_fork
from .rest import Connections
from .view import Address

__all__ = ["Server", "Servers"]

_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # The default back-off grows to two minutes: a restarted server would stay away long after it is back.
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),
]


class Server:
    """One of them."""

    __slots__ = ("address", "channel", "health", "name", "rest")

    def __init__(self, name: str, address: Address, health: Any) -> None:
        self.name, self.address, self.health = name, address, health
        self.rest = Connections(address.http)
        self.channel: Any = None  # of gRPC, opened by the first call

    def close(self) -> None:
        self.rest.close()
        if self.channel is not None:
            self.channel.close()


class Servers:
    """Those of the view in use. For many threads; a forked process opens its own connections."""

    def __init__(self) -> None:
        self._rules = _siblings.load("roblox_ml_core.http.health")
        self._budget_of = _siblings.load("roblox_ml_core.http.budget").RetryBudget
        self._addresses: Mapping[str, Address] = {}
        self._begin()
        renewed_after_fork(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._servers: dict[str, Server] = {}
        self._budget = self._budget_of()

    def renew(self) -> None:
        """In a forked process: connections and what is under way on them are the parent's."""
        before, addresses = self._servers, self._addresses
        self._begin()
        _KEPT.append(before)  # not closed, and never collected: gRPC's channels do not survive being closed in a child
        self.update(addresses)

    def update(self, addresses: Mapping[str, Address]) -> None:
        """Know what is new or has moved, close what is gone."""
        with self._lock:
            self._addresses = addresses
            gone = [one for name, one in self._servers.items() if addresses.get(name) != one.address]
            for server in gone:
                del self._servers[server.name]
            for name, address in addresses.items():
                if name not in self._servers:
                    try:
                        self._servers[name] = Server(name, address, self._rules.Health(time.monotonic()))
                    except ValueError:  # one server's misprint must not keep others from being asked
                        continue
        for server in gone:
            server.close()

    def lease(self, names: Collection[str], avoid: Collection[Server] = ()) -> Server | None:
        """Of two drawn at random the less busy one, with one more request counted there until `give_back`. None: there is none."""
        with self._lock:
            known = [self._servers[name] for name in names if name in self._servers]
            listed = [one for one in known if one not in avoid] or known
            if not listed:
                return None
            now = time.monotonic()
            server: Server = self._rules.pick(self._rules.usable(listed, now), now, random.getrandbits(48))
            server.health.in_flight += 1
            return server

    def give_back(self, server: Server) -> None:
        """The request that `lease` counted has ended."""
        with self._lock:
            server.health.in_flight -= 1

    def answered(self, server: Server, seconds: float) -> None:
        with self._lock:
            server.health.succeeded(seconds)

    def failed(self, server: Server, *, lost: bool) -> None:
        with self._lock:
            now = time.monotonic()
            out = sum(one.health.ejected_until > now for one in self._servers.values())
            server.health.failed(now, lost=lost, may_leave_out=2 * (out + 1) <= len(self._servers))

    def earn(self) -> None:
        """A request has come: it pays for a part of a second attempt."""
        with self._lock:
            self._budget.earn()

    def spend(self) -> bool:
        """Whether a second attempt may be made."""
        with self._lock:
            return bool(self._budget.spend())

    def channel(self, server: Server) -> Any:
        """The server's gRPC channel."""
        with self._lock:
            if server.channel is None:
                import grpc

                server.channel = grpc.insecure_channel(server.address.grpc, options=_OPTIONS)
            return server.channel

    def facts(self) -> dict[str, dict[str, Any]]:
        """By server: requests under way, and for how many seconds more it is left alone."""
        with self._lock:
            now = time.monotonic()
            return {
                name: {
                    "in_flight": one.health.in_flight, "latency_s": one.health.latency_s,
                    "left_alone_s": max(0.0, one.health.ejected_until - now),
                }
                for name, one in self._servers.items()
            }  # fmt: skip

    def close(self) -> None:
        with self._lock:
            servers, self._servers = list(self._servers.values()), {}
        for server in servers:
            server.close()


_KEPT: list[Any] = []
