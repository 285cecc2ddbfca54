"""The comparisons that differed most, a bounded number of them."""

from __future__ import annotations

import heapq
from typing import Any

from .compare import Comparison

__all__ = ["Worst"]


class Worst:
    """Keeps the `most` largest distances; of equal ones the earlier."""

    def __init__(self, most: int = 20) -> None:
        self._most = most
        self._count = 0
        self._heap: list[tuple[float, int, str, Comparison]] = []

    def add(self, inference_id: str, comparison: Comparison) -> None:
        """Consider one; the same answers are never among the worst."""
        distance = comparison.distance
        if distance <= 0.0:
            return
        self._count -= 1
        entry = (distance, self._count, inference_id, comparison)
        if len(self._heap) < self._most:
            heapq.heappush(self._heap, entry)
        elif entry > self._heap[0]:
            heapq.heapreplace(self._heap, entry)

    def listed(self) -> list[dict[str, Any]]:
        """The largest first."""
        return [
            {"inference_id": identity, **comparison.to_json()}
            for _, _, identity, comparison in sorted(self._heap, reverse=True, key=lambda entry: entry[:2])
        ]
