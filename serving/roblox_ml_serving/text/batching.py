"""The queue in front of a text model, and which of its rows form the next batch. Pure: time comes in as an argument.

Order. A row is due at its request's arrival plus the work of the rows before it in the same request, times `SHARE`. A
request of one text is due when it comes; the rows of a request of ten thousand come due one after another, at the pace of
half the machine, so that others are served between them. A due time never moves and those of later requests grow with the
clock, so nothing can be overtaken for ever.

Batch. The row that has been due the longest is always in the next batch. Its company is what costs the least padding: rows
of its own width, then of the nearest widths of its bucket, due ones before others. A batch holds at most the engine's
`batch_tokens` padded tokens and takes about `TARGET_US`; where the line is longer than that, batches may be larger too,
because a machine that is behind gains more from fewer calls than a row loses by a longer one. Sizes go by the fitted cost,
not by the corrected one: a slow moment must not make batches small, which would make it slower.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

__all__ = ["SHARE", "TARGET_US", "Batch", "Cost", "Queue", "Row"]

BATCH_US = 500.0  # what a batch costs the door and the model server beside the engine's work
TARGET_US, MOST_US = 25_000.0, 100_000.0
SHARE = 2.0  # a request with many rows gets a half of the machine while others ask, all of it while nobody does
_FOLLOW = 0.1  # weight of the newest measurement in the correction
_TRUSTED = (0.02, 50.0)  # what a correction may be: one absurd measurement must not close or open the door


class Cost:
    """What a call takes on one core: fitted when the model was optimised, corrected by what is measured here."""

    __slots__ = ("call_us", "correction", "token_us")

    def __init__(self, call_us: float, token_us: float) -> None:
        self.call_us = max(call_us, 0.0)
        self.token_us = max(token_us, 1e-3)
        self.correction = 1.0

    def batch_us(self, rows: int, width: int) -> float:
        """Fitted time of one call of `rows` rows padded to `width`, before correction."""
        return self.call_us + self.token_us * rows * width

    def row_us(self, length: int) -> float:
        """A row's share of a batch of the usual size, before correction."""
        full = max(1.0, (TARGET_US - self.call_us) / self.token_us)
        return length * (self.token_us + self.call_us / max(full, length))

    def learn(self, rows: int, width: int, measured_us: float) -> None:
        """Follow what a call took."""
        seen = min(max(measured_us / self.batch_us(rows, width), _TRUSTED[0]), _TRUSTED[1])
        self.correction += _FOLLOW * (seen - self.correction)


@dataclass(slots=True, eq=False)
class Row:
    """One distinct text on its way through the queue. `owner` belongs to whoever put it in."""

    ids: bytes
    length: int
    owner: Any = None
    attempts: int = 0
    width: int = 0  # tokens computed for it when it is the longest of its call
    due: float = 0.0
    work_us: float = 0.0
    is_waiting: bool = False
    is_due: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one bucket, to be computed in one call."""

    rows: tuple[Row, ...]
    width: int
    tokens: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokens", sum(row.length for row in self.rows))

    @property
    def padding(self) -> float:
        """The share of the computed tokens that is padding."""
        return 1 - self.tokens / (self.width * len(self.rows))


class Queue:
    """Rows that wait, by width; `lanes` is how many batches can be computed at the same time.

    `width` says what the engine pads a lone row of a length to: rows of one width cost each other no padding.
    """

    def __init__(
        self,
        buckets: Sequence[int],
        batch_tokens: int,
        cost: Cost,
        lanes: int = 1,
        width: Callable[[int], int] = lambda length: length,
    ) -> None:
        self._width = width
        self._buckets = tuple(buckets)
        self._batch_tokens = batch_tokens
        self.cost = cost
        self.lanes = lanes
        self.rows = 0
        self._waiting: dict[int, list[tuple[float, int, Row]]] = {}
        self._later: list[tuple[float, int, Row]] = []  # what is not due yet, soonest first
        self._due_us = self._all_us = 0.0
        self._entries = 0  # of the lists above, the dropped ones too
        self._number = count()

    # -- in and out --------------------------------------------------------------------------------------------------

    def add(self, rows: Iterable[Row], came: float, before_us: float = 0.0) -> float:
        """Rows of one request that came at `came`, in its order; returns the work before the next of them."""
        pace = SHARE * self.cost.correction * 1e-6 / self.lanes
        for row in rows:
            row.width = self._width(row.length)
            row.work_us = self.cost.row_us(row.width)
            row.due = came + before_us * pace
            before_us += row.work_us
            self._enter(row, came)
        return before_us

    def put_back(self, rows: Iterable[Row], now: float) -> None:
        """Rows of a batch that was lost: they keep their place."""
        for row in rows:
            self._enter(row, now)

    def drop(self, row: Row) -> None:
        """Nobody waits for this row any more. One that is not in the queue stays where it is."""
        if row.is_waiting:
            self._leave(row)
            if self._entries > 4 * self.rows + 256:
                self._compact()

    def due_us(self, now: float) -> float:
        """Work that goes before a row that arrives now, uncorrected."""
        self._advance(now)
        return max(self._due_us, 0.0)

    @property
    def work_us(self) -> float:
        """All work that waits, uncorrected."""
        return max(self._all_us, 0.0)

    def take(self, now: float, idle: int = 1) -> Batch | None:
        """The next batch for one of `idle` free lanes; None when nothing waits."""
        self._advance(now)
        widths = self._widths()
        if not widths:
            return None
        first = min(widths, key=lambda width: self._waiting[width][0][:2])
        bucket = bisect_left(self._buckets, first)
        near = [width for width in widths if bisect_left(self._buckets, width) == bucket]
        near.sort(key=lambda width: (abs(width - first), width))
        full_us = min(max(TARGET_US, self._due_us / self.lanes / 2), MOST_US)
        if idle > 1:  # several lanes have nothing to do: one row of two each beats two rows on one
            full_us = min(full_us, self.cost.call_us + self._all_us / idle)
        taken = [self._pop(first)]
        width = self._fill(taken, first, near, full_us, until=now)
        # What is not due yet goes along where there is room: fewer calls. Others must not wait for it much longer.
        width = self._fill(taken, width, near, full_us / 2 if self._due_us > 0 else full_us)
        return Batch(tuple(taken), width)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _fill(self, taken: list[Row], width: int, near: list[int], full_us: float, until: float | None = None) -> int:
        for own in near:
            wider = max(width, own)
            while (head := self._head(own)) is not None and (until is None or head.due <= until):
                rows = len(taken) + 1
                together_us = self.cost.batch_us(rows, wider)
                if rows * wider > self._batch_tokens or together_us > full_us:
                    break
                if together_us > self.cost.batch_us(rows - 1, width) + self.cost.batch_us(1, own) + BATCH_US:
                    break  # padding would cost more than a batch of its own
                taken.append(self._pop(own))
                width = wider
        return width

    def _widths(self) -> list[int]:
        """Widths at which something waits; what was dropped at the front is let go on the way."""
        for width in list(self._waiting):
            if self._head(width) is None:
                del self._waiting[width]
        return list(self._waiting)

    def _head(self, width: int) -> Row | None:
        heap = self._waiting.get(width)
        while heap:
            row = heap[0][2]
            if row.is_waiting:
                return row
            heapq.heappop(heap)
            self._entries -= 1
        return None

    def _pop(self, width: int) -> Row:
        row = heapq.heappop(self._waiting[width])[2]
        self._entries -= 1
        self._leave(row)
        return row

    def _enter(self, row: Row, now: float) -> None:
        entry = (row.due, next(self._number), row)
        heapq.heappush(self._waiting.setdefault(row.width, []), entry)
        self._entries += 1
        row.is_waiting, row.is_due = True, row.due <= now
        self.rows += 1
        self._all_us += row.work_us
        if row.is_due:
            self._due_us += row.work_us
        else:
            heapq.heappush(self._later, entry)

    def _leave(self, row: Row) -> None:
        row.is_waiting = False
        self.rows -= 1
        self._all_us -= row.work_us
        if row.is_due:
            self._due_us -= row.work_us
        if not self.rows:  # sums of many small numbers drift
            self._all_us = self._due_us = 0.0

    def _advance(self, now: float) -> None:
        while self._later and (self._later[0][0] <= now or not self._later[0][2].is_waiting):
            row = heapq.heappop(self._later)[2]
            if row.is_waiting and not row.is_due:
                row.is_due = True
                self._due_us += row.work_us

    def _compact(self) -> None:
        """Let go of dropped rows in the middle of the lists: requests that are given up must not pile up."""
        for width, heap in list(self._waiting.items()):
            kept = [entry for entry in heap if entry[2].is_waiting]
            heapq.heapify(kept)
            self._waiting[width] = kept
        self._later = [entry for entry in self._later if entry[2].is_waiting and not entry[2].is_due]
        heapq.heapify(self._later)
        self._entries = sum(map(len, self._waiting.values()))
