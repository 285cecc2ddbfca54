"""What a client (a door, the SDK) knows of one model server from its own requests: how busy, whether to leave it alone. Pure.

Of two drawn at random the one with fewer requests under way is asked, which spreads load nearly as well as looking at all and does
not send everybody to the one that has just become free. A server that is new or back gets traffic that grows. One that loses
connections, or fails several times in a row, is left out for a while, longer each time; for failures without a lost connection that is
never more than half of the servers: if most seem sick, the trouble is elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

__all__ = ["Health", "Observed", "pick", "usable"]

_SMOOTHING = 0.1
_IN_A_ROW = 3
_FIRST_S, _LONGEST_S = 1.0, 30.0
_SLOW_START_S = 5.0
_LEAST_WARMTH = 0.1


class Health:
    """One server's record. Times are seconds on any one clock."""

    __slots__ = ("ejected_until", "ejections", "failures", "in_flight", "latency_s", "since")

    def __init__(self, now: float) -> None:
        self.in_flight = 0
        self.latency_s = 0.0
        self.failures = 0
        self.ejections = 0
        self.ejected_until = 0.0
        self.since = now  # new, or back: traffic grows from here

    def succeeded(self, seconds: float) -> None:
        """It answered, whatever it answered."""
        self.failures = 0
        self.latency_s += _SMOOTHING * (seconds - self.latency_s) if self.latency_s else seconds
        if self.ejections and not self.ejected_until:
            self.ejections -= 1

    def failed(self, now: float, *, lost: bool, may_leave_out: bool = True) -> None:
        """It did not answer. A lost connection says more than a slow answer: one is enough."""
        self.failures += 1
        if lost or (self.failures >= _IN_A_ROW and may_leave_out):
            pause = min(_LONGEST_S, _FIRST_S * 2.0 ** min(self.ejections, 10))
            self.ejections += 1
            self.ejected_until = now + pause
            self.failures = 0

    def is_out(self, now: float) -> bool:
        """Left alone at this moment. When the pause is over it starts slowly."""
        if not self.ejected_until:
            return False
        if now < self.ejected_until:
            return True
        self.since, self.ejected_until = now, 0.0
        return False

    def warmth(self, now: float) -> float:
        """How much of its share it gets: grows to 1 in the first seconds."""
        age = now - self.since
        return 1.0 if age >= _SLOW_START_S else max(_LEAST_WARMTH, age / _SLOW_START_S)


class Observed(Protocol):
    """A server with a record."""

    health: Health


S = TypeVar("S", bound=Observed)


def usable(servers: Sequence[S], now: float) -> Sequence[S]:
    """Those that are not left out; all of them where none would be left."""
    return [server for server in servers if not server.health.is_out(now)] or servers


def pick(servers: Sequence[S], now: float, draw: int) -> S:
    """The less busy of two; `draw` is any number of 48 bits, for example a random one."""
    count = len(servers)
    first = (draw & 0xFFFF) % count
    one = servers[first]
    if count == 1:
        return one
    other = servers[(first + 1 + (draw >> 16 & 0xFFFF) % (count - 1)) % count]
    if other.health.in_flight < one.health.in_flight:
        one, other = other, one
    # One that warms up passes on what is not its share yet.
    return one if (draw >> 32) / 65536 < one.health.warmth(now) else other
