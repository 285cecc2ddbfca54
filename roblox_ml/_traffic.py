"""How an endpoint treats its requests: what its door may keep, and how long its line may be.

    rml.deploy("comment-sentiment@champion", cache=rml.cache(megabytes=256), queue=rml.queue(max_wait_ms=100))

Off by default: an answer that is kept stays in a door's memory, which is the owner's decision, not the platform's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Cache", "Queue", "cache", "queue"]

_MEGABYTE = 1_000_000


@dataclass(frozen=True, slots=True)
class Cache:
    """Answers kept by each door; nothing is kept where either number is zero."""

    entries: int
    megabytes: float

    def to_json(self) -> dict[str, Any]:
        return {"entries": self.entries, "bytes": int(self.megabytes * _MEGABYTE)}


@dataclass(frozen=True, slots=True)
class Queue:
    """The line in front of a model."""

    max_wait_ms: float
    max_rows: int

    def to_json(self) -> dict[str, Any]:
        return {"max_wait_ms": self.max_wait_ms, "max_rows": self.max_rows}


def cache(entries: int = 1_000_000, megabytes: float = 256) -> Cache:
    """Keep answers to equal texts (equal token ids, same version of the model), at most this many and this much per door.

    `rml.cache(entries=0)` switches it off again.

    Raises:
        ValueError: a number is out of its range.
    """
    if not 0 <= entries <= 100_000_000 or not 0 <= megabytes <= 1_000_000:
        raise ValueError(
            f"a cache of {entries} entries and {megabytes} megabytes cannot be: give 0 to 100,000,000 entries and 0 to "
            "1,000,000 megabytes, for example rml.cache(entries=1_000_000, megabytes=256)"
        )
    return Cache(int(entries), float(megabytes))


def queue(max_wait_ms: float = 200, max_rows: int = 10_000) -> Queue:
    """Refuse a request at once (429 with a time to come back) when its wait would be longer than this.

    Raises:
        ValueError: a number is out of its range.
    """
    if not 0 < max_wait_ms <= 3_600_000 or not 1 <= max_rows <= 100_000:
        raise ValueError(
            f"a queue of {max_wait_ms} ms and {max_rows} rows cannot be: give more than 0 up to 3,600,000 ms and 1 to 100,000 "
            "rows, for example rml.queue(max_wait_ms=200)"
        )
    return Queue(float(max_wait_ms), int(max_rows))
