"""Second attempts within a budget. Pure.

A server that dies under load makes every request there fail once. Asking again elsewhere hides that; asking again without a limit
doubles the load of servers that are slow because they are overloaded, which is how one sick server becomes an outage.
"""

from __future__ import annotations

__all__ = ["RetryBudget"]


class RetryBudget:
    """A bucket of second attempts: each request puts `ratio` of one in, a second attempt takes one out.

    It starts full: a door with little traffic must still be able to hide one server's death.
    """

    __slots__ = ("_most", "_ratio", "tokens")

    def __init__(self, ratio: float = 0.1, most: float = 100.0) -> None:
        self._ratio, self._most = ratio, most
        self.tokens = most

    def earn(self) -> None:
        """A request has come."""
        if self.tokens < self._most:
            self.tokens = min(self._most, self.tokens + self._ratio)

    def spend(self) -> bool:
        """Whether a second attempt is allowed; it is counted if so."""
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True
