"""How often an address may fail to prove who it is before it has to wait.

The secrets are too long to guess; what this bounds is the work and the audit rows that a broken or hostile client causes. Who
proved themselves a moment ago is not held up by a neighbour behind the same address, so one bad client cannot lock out the rest.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable

__all__ = ["Throttle"]

_WINDOW_S = 60.0
_GOOD_S = 600.0
_MOST = 10_000


class Throttle:
    """Counts failures per address over a sliding minute, and remembers which credentials were good lately (by digest)."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute, self._clock = per_minute, clock
        self._lock = threading.Lock()
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()
        self._good: OrderedDict[str, float] = OrderedDict()

    def wait_s(self, address: str, digest: str) -> float:
        """Seconds to wait before this credential is looked at again; 0: look now."""
        with self._lock:
            now = self._clock()
            recent = self._recent(address, now)
            if len(recent) < self._per_minute or self._good.get(digest, -_GOOD_S) > now - _GOOD_S:
                return 0.0
            return max(0.001, recent[0] + _WINDOW_S - now)

    def failed(self, address: str) -> None:
        with self._lock:
            now = self._clock()
            recent = self._recent(address, now)
            recent.append(now)
            self._failures[address] = recent
            self._failures.move_to_end(address)
            while len(self._failures) > _MOST:
                self._failures.popitem(last=False)

    def succeeded(self, digest: str) -> None:
        with self._lock:
            self._good[digest] = self._clock()
            self._good.move_to_end(digest)
            while len(self._good) > _MOST:
                self._good.popitem(last=False)

    def _recent(self, address: str, now: float) -> deque[float]:
        recent = self._failures.get(address, deque(maxlen=self._per_minute))
        while recent and recent[0] <= now - _WINDOW_S:
            recent.popleft()
        return recent
