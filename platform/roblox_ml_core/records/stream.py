"""One stream of rows between the event loop that offers them and the thread that writes them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..policy import SCALE, bucket, seed_of
from .accounts import LOST, OFFERED, REASONS, SAMPLED, WRITTEN, Accounts, slot_of
from .schema import StreamSchema

__all__ = ["Row", "Stream", "is_sampled", "pieces"]

Row = tuple[Any, ...]
_SAMPLING = seed_of("records/sample/1")
_FULL, _BYTES, _DISK, _INVALID, _CLOSED = (slot_of(reason) for reason in REASONS)


def is_sampled(inference_id: str, rate: int) -> bool:
    """Whether a request is among the `rate` of 10,000 that are logged: by its id, so that every stream agrees."""
    return rate >= SCALE or bucket(_SAMPLING, inference_id) < rate


def pieces(rows: Sequence[Row], size: int = 512) -> Iterator[Sequence[Row]]:
    """Slices of `rows`; between two of them other threads get the interpreter, which Python would let wait for milliseconds."""
    for start in range(0, len(rows), size):
        if start:
            time.sleep(0)
        yield rows[start : start + size]


class Stream:
    """Rows wait here, bounded by number and by bytes. Every row offered is in exactly one counter, at any moment."""

    def __init__(
        self, schema: StreamSchema, slots: Any, *, rows: int, bytes: int, wake_at: int, wake: Callable[[], None]
    ) -> None:
        self.schema = schema
        self._width, self._sized = len(schema.fields), schema.sized
        self._slots = slots
        self._most_rows, self._most_bytes = rows, bytes
        self._wake_at, self._wake = min(wake_at, rows), wake
        self._lock = threading.Lock()
        self._rows: list[Row] = []
        self._held = 0  # taken by the writer and not settled
        self._bytes = 0
        self._closed = False
        self.failing = False  # the last attempt to write failed

    def offer(self, row: Row) -> bool:
        """Keep a row (the fields of the schema, in order), or count why not. Never blocks, never raises."""
        try:
            size = 0
            for at in self._sized:
                value = row[at]
                if value:
                    size += len(value)
            fits = len(row) == self._width
        except (TypeError, IndexError):
            size, fits = 0, False
        slots = self._slots
        with self._lock:
            slots[OFFERED] += 1
            if not fits:
                slots[_INVALID] += 1
            elif self._closed:
                slots[_CLOSED] += 1
            elif len(self._rows) + self._held >= self._most_rows:
                slots[_DISK if self.failing else _FULL] += 1
            elif size and self._bytes + size > self._most_bytes:
                slots[_DISK if self.failing else _BYTES] += 1
            else:
                self._rows.append(row)
                self._bytes += size
                if len(self._rows) == self._wake_at:
                    self._wake()
                return True
        return False

    def sample(self, inference_id: str, rate: int) -> bool:
        """Whether the request is to be logged; where not, it is counted as sampled out."""
        if is_sampled(inference_id, rate):
            return True
        with self._lock:
            self._slots[OFFERED] += 1
            self._slots[SAMPLED] += 1
        return False

    def accounts(self) -> Accounts:
        """The accounts of this moment."""
        with self._lock:
            return Accounts.of(self._slots, len(self._rows) + self._held)

    @property
    def buffered_bytes(self) -> int:
        return self._bytes

    # -- the writer's side -----------------------------------------------------------------------------------------

    def take(self) -> list[Row]:
        """All rows that wait; they count as buffered until they are settled."""
        with self._lock:
            rows, self._rows = self._rows, []
            self._held += len(rows)
        return rows

    def settle(self, rows: list[Row], outcome: str) -> None:
        """These rows are "written", or dropped for a reason."""
        size = sum(len(row[at]) for piece in pieces(rows) for row in piece for at in self._sized if row[at])
        with self._lock:
            self._slots[WRITTEN if outcome == "written" else slot_of(outcome)] += len(rows)
            self._held -= len(rows)
            self._bytes -= size

    def recover(self, written: int) -> int:
        """Set right what the process before left behind, of whose rows `written` are in files; returns how many were lost."""
        with self._lock:
            slots = self._slots
            slots[WRITTEN] = max(slots[WRITTEN], written)
            before = slots[LOST]
            placed = slots[WRITTEN] + slots[SAMPLED] + sum(slots[slot_of(reason)] for reason in REASONS)
            # Counters older than their files (the power went): at least what is in files was offered.
            slots[OFFERED] = max(slots[OFFERED], placed + before)
            slots[LOST] = slots[OFFERED] - placed - len(self._rows)
            return int(slots[LOST] - before)

    def close(self) -> None:
        """From now on nothing is kept."""
        with self._lock:
            self._closed = True
