"""Rows of features that were fetched before, bounded by bytes, for one view.

Two generations: rows are found in the young or the old one, what is found in the old one moves to the young one, and when the young
one has filled its half the old one is dropped as a whole. That keeps what is used, like a least-recently-used list, without moving
a link at every hit: a ranking asks for hundreds of rows at once. A row is one `bytes` (when it was fetched, when its event was, its
values), so a request's rows become an array by one join, and freshness is compared for all of them at once.

A generation that is dropped is found no more at once, and its rows are given back a few for each new one: half a million at once would
stop the event loop for tens of milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .wire import Key, Rows

__all__ = ["ROW_BYTES", "FeatureCache", "empty_row", "row_type", "rows_of"]

#: What an entry costs beside its key's text and its values: objects and a slot of the table.
ROW_BYTES = 150
#: Rows of a dropped generation that are given back for each one that comes: it is gone before the next one is full.
_GIVE_BACK = 3


def row_type(features: int) -> Any:
    """A row as it lies in memory. Values: NaN where there is none, infinite where there is no number."""
    return np.dtype([("fetched", "<f8"), ("event", "<f8"), ("values", "<f4", (features,))])


def rows_of(rows: Rows, now: float) -> list[bytes]:
    """A view's answer as rows; `now` is when it was asked, so nothing looks younger than it is."""
    features, count = rows.values.shape
    table = np.empty(count, row_type(features))
    table["fetched"] = now
    table["event"] = now - rows.ages.astype(np.float64)  # NaN: there is none
    table["values"] = rows.values.T
    table["values"][np.isnan(rows.ages)] = np.nan
    data, size = table.tobytes(), table.dtype.itemsize
    return [data[at : at + size] for at in range(0, len(data), size)]


def empty_row(features: int, *, answered: bool) -> bytes:
    """The row of a key that has none; `answered` False: nobody said so, nobody said anything."""
    row = np.zeros((), row_type(features))
    row["fetched"], row["event"], row["values"] = float(answered), np.nan, np.nan
    return bytes(row.tobytes())


class FeatureCache:
    """At most about `max_bytes` of memory. One event loop owns it."""

    def __init__(self, max_bytes: int) -> None:
        self._half = max_bytes // 2
        self._young: dict[Key, bytes] = {}
        self._old: dict[Key, bytes] = {}
        self._young_bytes = self._old_bytes = 0
        self._dropped: dict[Key, bytes] = {}
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    @property
    def used_bytes(self) -> int:
        return self._young_bytes + self._old_bytes

    @property
    def dropped(self) -> int:
        """Rows that are found no more and still in memory."""
        return len(self._dropped)

    def resize(self, max_bytes: int) -> None:
        """Hold at most about so much from now on."""
        self._half = max_bytes // 2
        if self._old_bytes > self._half:
            self._drop_old()
        if self._young_bytes > self._half:
            self.evicted += len(self._young)
            self._young, self._young_bytes = {}, 0

    def get(self, keys: Sequence[Key]) -> list[bytes | None]:
        """The rows kept under the keys, fresh or not."""
        found = list(map(self._young.get, keys))
        if self._old and None in found:
            for place, key in enumerate(keys):
                if found[place] is None and (row := self._old.pop(key, None)) is not None:
                    self._old_bytes -= _size(key, row)
                    self._add(key, row)
                    found[place] = row
        return found

    def put(self, keys: Sequence[Key], rows: Sequence[bytes]) -> None:
        """Keep the rows, in place of those that are there."""
        for key, row in zip(keys, rows, strict=True):
            if (before := self._young.pop(key, None)) is not None:
                self._young_bytes -= _size(key, before)
            elif (before := self._old.pop(key, None)) is not None:
                self._old_bytes -= _size(key, before)
            self._add(key, row)

    def _add(self, key: Key, row: bytes) -> None:
        size = _size(key, row)
        if self._young_bytes + size > self._half:
            if size > self._half:
                return
            self._drop_old()
            self._old, self._old_bytes = self._young, self._young_bytes
            self._young, self._young_bytes = {}, 0
        self._young[key] = row
        self._young_bytes += size
        if self._dropped:
            self._give_back()

    def _give_back(self) -> None:
        for _ in range(min(_GIVE_BACK, len(self._dropped))):
            self._dropped.popitem()
        if not self._dropped:
            self._dropped = {}  # its empty table is as large as it was

    def _drop_old(self) -> None:
        self.evicted += len(self._old)
        self._dropped, self._old, self._old_bytes = self._old, {}, 0


def _size(key: Key, row: bytes) -> int:
    return ROW_BYTES + len(row) + (len(key) if isinstance(key, bytes) else 0)
