"""Answers that were computed before, bounded by entries and bytes, for one endpoint.

Eviction is S3-FIFO (Yang, Zhang, Qiu, Yue, Rashmi: FIFO queues are all you need for cache eviction, SOSP 2023): newcomers
enter a small queue of a tenth of the room; who is asked for again there, or soon after leaving it, moves to the main queue;
the rest pass through. So a scan of texts that come once pushes out nothing that is asked for again. A hit moves nothing: it
counts up to three in one byte.

A million entries must neither weigh much nor make the garbage collector pause: keys and values are `bytes`, the counter
is the value's last byte, no object is tracked. Keys hold the token ids themselves, so different texts never share an
answer. One event loop owns a cache; it takes no lock.
"""

from __future__ import annotations

from array import array
from collections import deque
from dataclasses import dataclass
from itertools import count

__all__ = ["ENTRY_BYTES", "AnswerCache", "CacheCounts"]

SMALL_SHARE = 0.1  # the paper's: a tenth for newcomers
MAX_USES = 3
MOVES_UP = 1  # uses that carry a newcomer into the main queue
#: Bytes that an entry costs beside its token ids and its value: objects, table slot, queue slot, memory of who left.
ENTRY_BYTES = 200
#: Tables grow by copying; this many of them keep one copy short at a million entries.
TABLES = 64
#: Entries looked at per put while those of an invalidated package are cleared away.
SWEEP = 64
LARGEST_SHARE = 0.125  # an answer that would take more of the room than this is not kept
_PACKAGE_BYTES = 4

_USES, _MAIN = 3, 4  # bits of the last byte
_META = [bytes([value]) for value in range(8)]


@dataclass(frozen=True, slots=True)
class CacheCounts:
    """What happened since the start. hits + misses = gets; puts = kept + updated + declined."""

    hits: int
    misses: int
    kept: int
    updated: int
    declined: int  # too large, or of a package invalidated while its answer was computed
    evicted: int
    invalidated: int


class AnswerCache:
    """At most `entries` answers and about `max_bytes` of memory, whichever is less; with either 0 it keeps nothing.

    >>> cache = AnswerCache(entries=1000, max_bytes=1_000_000)
    >>> key = cache.key("digest of the package", b"token ids")
    >>> cache.put(key, b"logits")
    >>> cache.get(key)
    b'logits'
    """

    def __init__(self, entries: int, max_bytes: int) -> None:
        if entries < 0 or max_bytes < 0:
            raise ValueError(f"a cache holds 0 or more entries and bytes, not {entries} and {max_bytes}")
        self.max_entries, self.max_bytes = entries, max_bytes
        self._tables: tuple[dict[bytes, bytes], ...] = tuple({} for _ in range(TABLES))
        self._small: deque[bytes] = deque()
        self._main: deque[bytes] = deque()
        self._bytes = self._small_bytes = 0
        # Who left the small queue lately, as fingerprints: a wrong one keeps an entry longer, no more.
        room = min(entries, max_bytes // ENTRY_BYTES)
        self._left = array("I", bytes(4 * max(room, 1)))
        self._packages: dict[str, bytes] = {}
        self._numbers = count(1)
        self._live: dict[bytes, int] = {}  # entries per package
        self._retired: dict[bytes, int] = {}  # the same of invalidated ones, until the last is cleared away
        self._unswept_small = self._unswept_main = 0
        self._hits = self._misses = self._kept = self._updated = self._declined = 0
        self._evicted = self._invalidated = 0

    def __len__(self) -> int:
        """Entries that can be found, those waiting to be cleared away not counted."""
        return len(self._small) + len(self._main) - sum(self._retired.values())

    @property
    def used_bytes(self) -> int:
        """About the memory the entries take, those waiting to be cleared away included."""
        return self._bytes

    @property
    def counts(self) -> CacheCounts:
        return CacheCounts(
            self._hits, self._misses, self._kept, self._updated, self._declined, self._evicted, self._invalidated
        )

    def key(self, package: str, ids: bytes) -> bytes:
        """The key of a text's token ids under a package (its digest)."""
        prefix = self._packages.get(package)
        if prefix is None:
            prefix = self._packages[package] = next(self._numbers).to_bytes(_PACKAGE_BYTES, "little")
            self._live[prefix] = 0
        return prefix + ids

    def get(self, key: bytes) -> bytes | None:
        """The answer kept under `key`, or None."""
        table = self._tables[hash(key) % TABLES]
        stored = table.get(key)
        if stored is None or (self._retired and key[:_PACKAGE_BYTES] not in self._live):
            self._misses += 1
            return None
        self._hits += 1
        value, meta = stored[:-1], stored[-1]
        if meta & _USES != MAX_USES:
            table[key] = value + _META[meta + 1]
        return value

    def put(self, key: bytes, value: bytes) -> None:
        """Keep `value` under `key`, in place of what is there; may make others leave."""
        if self._retired:
            self.sweep(SWEEP)
        size = len(key) + len(value) + ENTRY_BYTES
        if (
            self.max_entries == 0
            or size > max(self.max_bytes * LARGEST_SHARE, min(self.max_bytes, 1024))
            or key[:_PACKAGE_BYTES] not in self._live
        ):
            self._declined += 1
            return
        table = self._tables[hash(key) % TABLES]
        stored = table.get(key)
        if stored is not None:
            self._updated += 1
            table[key] = value + _META[stored[-1]]
            self._grow(len(value) + 1 - len(stored), bool(stored[-1] & _MAIN))
            self._make_room(0, 0)
            return
        self._make_room(1, size)
        main = self._came_back(key)
        table[key] = value + _META[_MAIN if main else 0]
        (self._main if main else self._small).append(key)
        self._grow(size, main)
        self._live[key[:_PACKAGE_BYTES]] += 1
        self._kept += 1

    def invalidate(self, package: str) -> int:
        """Forget every answer of a package, at once: also one that is computed now and arrives later is not kept.

        The memory is given back in slices by the puts that follow (or by `sweep`). Returns the number of answers forgotten.
        """
        prefix = self._packages.pop(package, None)
        if prefix is None:
            return 0
        entries = self._live.pop(prefix)
        if entries:
            self._retired[prefix] = entries
            self._unswept_small, self._unswept_main = len(self._small), len(self._main)
        self._invalidated += entries
        return entries

    def sweep(self, steps: int) -> None:
        """Clear away what was invalidated, looking at no more than `steps` entries."""
        # Every entry there was comes by once, and those that stay keep their order; newer ones come behind and need no look.
        self._unswept_small -= (done := self._turn(self._small, min(steps, self._unswept_small)))
        self._unswept_main -= self._turn(self._main, min(steps - done, self._unswept_main))

    def _turn(self, queue: deque[bytes], steps: int) -> int:
        for _ in range(steps):
            if not queue or not self._retired:
                break
            key = queue.popleft()
            if key[:_PACKAGE_BYTES] in self._retired:
                self._drop(key)
            else:
                queue.append(key)
        return steps

    def _make_room(self, entries: int, size: int) -> None:
        while self._bytes + size > self.max_bytes or len(self._small) + len(self._main) + entries > self.max_entries:
            if self._small and (
                not self._main
                or self._small_bytes >= self.max_bytes * SMALL_SHARE
                or len(self._small) >= self.max_entries * SMALL_SHARE
            ):
                self._shrink_small()
            else:
                self._shrink_main()

    def _shrink_small(self) -> None:
        """The oldest newcomer leaves, or moves up if it was asked for again."""
        key = self._small.popleft()
        table = self._tables[hash(key) % TABLES]
        stored = table[key]
        if stored[-1] & _USES >= MOVES_UP and key[:_PACKAGE_BYTES] in self._live:
            table[key] = stored[:-1] + _META[_MAIN]
            self._main.append(key)
            self._small_bytes -= len(key) + len(stored) - 1 + ENTRY_BYTES
            return
        if self._drop(key):
            slot, fingerprint = self._trace(key)
            self._left[slot] = fingerprint

    def _shrink_main(self) -> None:
        """The oldest leaves, or goes to the end of the line once for each use."""
        key = self._main.popleft()
        table = self._tables[hash(key) % TABLES]
        stored = table[key]
        if stored[-1] & _USES and key[:_PACKAGE_BYTES] in self._live:
            table[key] = stored[:-1] + _META[stored[-1] - 1]
            self._main.append(key)
        else:
            self._drop(key)

    def _drop(self, key: bytes) -> bool:
        """Remove an entry that is in no queue any more; False if its package was invalidated before."""
        stored = self._tables[hash(key) % TABLES].pop(key)
        self._grow(-(len(key) + len(stored) - 1 + ENTRY_BYTES), bool(stored[-1] & _MAIN))
        prefix = key[:_PACKAGE_BYTES]
        if prefix in self._live:
            self._live[prefix] -= 1
            self._evicted += 1
            return True
        self._retired[prefix] -= 1
        if not self._retired[prefix]:
            del self._retired[prefix]
        return False

    def _grow(self, size: int, main: bool) -> None:
        self._bytes += size
        if not main:
            self._small_bytes += size

    def _came_back(self, key: bytes) -> bool:
        slot, fingerprint = self._trace(key)
        if self._left[slot] != fingerprint:
            return False
        self._left[slot] = 0
        return True

    def _trace(self, key: bytes) -> tuple[int, int]:
        number = hash(key)
        return (number & 0xFFFFFFFF) % len(self._left), (number >> 32 & 0xFFFFFFFF) | 1
