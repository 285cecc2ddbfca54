"""From rows to files: one attempt at a time, and an exact account of each.

A group (endpoint, day) that cannot be written stays in memory and is tried again; while it stays, it takes its part of the
buffer, so that memory is bounded whatever the disk does. What the disk costs is counted where a row finds no place.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from errno import ENOSPC
from typing import Any

import pyarrow as pa

from ..policy import LogPolicy
from ..telemetry import log
from .accounts import SEQUENCE
from .layout import Layout, file_name
from .schema import DAY_US, NO_ENDPOINT
from .stream import Row, Stream, pieces
from .tables import metadata_of, table_of, to_parquet, usable

__all__ = ["Disk", "StreamWriter"]

logger = logging.getLogger(__name__)
_UNUSABLE = (pa.ArrowException, TypeError, ValueError, OverflowError)


class Disk:
    """Where the writer puts files; keeps `keep_free` bytes for others."""

    def __init__(self, layout: Layout, keep_free: int = 0) -> None:
        self.layout = layout
        self._keep_free = keep_free

    def put(self, path: str, data: bytes) -> None:
        """Raises OSError: it is not there."""
        if self._keep_free and self.layout.local is not None:
            self.layout.local.mkdir(parents=True, exist_ok=True, mode=0o700)
            state = os.statvfs(self.layout.local)
            if state.f_bavail * state.f_frsize < self._keep_free + len(data):
                raise OSError(ENOSPC, f"less than {self._keep_free} bytes would be left")
        self.layout.put(path, data)


class StreamWriter:
    """Writes one stream. Only the writer thread calls it."""

    def __init__(self, stream: Stream, slots: Any, door: str, disk: Disk, rows_per_file: int) -> None:
        self._stream, self._slots, self._door, self._disk = stream, slots, door, disk
        self._most = rows_per_file
        self._held: dict[tuple[str, int], list[Row]] = {}
        self.failures = 0
        self.last_written = 0.0

    def recover(self) -> int:
        """What the process before had written and not counted any more is counted; returns how many rows it lost."""
        slots, schema, layout = self._slots, self._stream.schema, self._disk.layout
        written = 0
        for file in layout.files(schema.name):
            if file.door == self._door and file.sequence >= slots[SEQUENCE]:
                slots[SEQUENCE] = max(slots[SEQUENCE], file.sequence)
                written = max(written, self._written_with(layout, file.path))
        # Without counters from before: a moment no earlier door has counted up to, so that no file is ever replaced.
        slots[SEQUENCE] = slots[SEQUENCE] or int(time.time() * 1000)
        return self._stream.recover(written)

    def _written_with(self, layout: Layout, path: str) -> int:
        try:
            return int(metadata_of(layout, path).get("rml.written", 0))
        except (OSError, ValueError, pa.ArrowException):
            return 0

    def flush(self, policies: Mapping[str, LogPolicy], default: LogPolicy) -> bool:
        """Write what waits. Returns whether everything is written."""
        self._group()
        for key in list(self._held):
            policy = policies.get(key[0], default) if key[0] != NO_ENDPOINT else default
            while rows := self._held[key]:
                part, rest = rows[: self._most], rows[self._most :]
                try:
                    self._write(key, part, policy)
                except OSError as error:
                    self._failed(error)
                    return False
                except _UNUSABLE:
                    good, bad = usable(self._stream.schema, part)
                    self._settle_as_invalid(bad or part)
                    self._held[key] = good + rest if bad else rest
                except Exception:  # such rows must not be tried for ever
                    logger.exception("records: %d rows of %s could not be written", len(part), key)
                    self._settle_as_invalid(part)
                    self._held[key] = rest
                else:
                    self._held[key] = rest
            del self._held[key]
        if self._stream.failing:
            log(logger, logging.INFO, "records are written again", stream=self._stream.schema.name)
        self._stream.failing = False
        return True

    def give_up(self) -> None:
        """The door ends and the disk does not take it: counted, and gone."""
        self._group()
        for rows in self._held.values():
            self._stream.settle(rows, "disk")
        self._held.clear()

    def _group(self) -> None:
        schema = self._stream.schema
        bad: list[Row] = []
        keys: dict[tuple[Any, int], tuple[str, int]] = {}  # there are few, and many rows
        for piece in pieces(self._stream.take()):
            for row in piece:
                try:
                    short = (
                        (row[schema.endpoint_at], row[0] // DAY_US)
                        if schema.endpoint_at >= 0
                        else ("", row[0] // DAY_US)
                    )
                    key = keys.get(short)
                    if key is None:
                        key = keys[short] = schema.partition(row)
                except (TypeError, ValueError, IndexError):
                    bad.append(row)
                else:
                    self._held.setdefault(key, []).append(row)
        if bad:
            self._settle_as_invalid(bad)

    def _settle_as_invalid(self, rows: list[Row]) -> None:
        log(
            logger, logging.WARNING, "records with values of another type than their field's are dropped",
            stream=self._stream.schema.name, rows=len(rows), first=repr(rows[0])[:200],
        )  # fmt: skip
        self._stream.settle(rows, "invalid")

    def _write(self, key: tuple[str, int], rows: list[Row], policy: LogPolicy) -> None:
        endpoint, day = key
        name = self._stream.schema.name
        table = table_of(self._stream.schema, rows)
        self._slots[SEQUENCE] += 1  # first: a name is never used twice, whatever happens next
        about = {
            "rml.stream": name, "rml.endpoint": endpoint, "rml.door": self._door,
            "rml.data_class": policy.data_class, "rml.retention_days": str(policy.retention_days),
            # With this file, so many rows of this door are in files: what a killed door did not get to count.
            "rml.written": str(self._stream.accounts().written + len(rows)),
        }  # fmt: skip
        folder = self._disk.layout.partition(name, endpoint, day)
        self._disk.put(f"{folder}/{file_name(self._door, self._slots[SEQUENCE])}", to_parquet(table, about))
        self._stream.settle(rows, "written")
        self.last_written = time.time()

    def _failed(self, error: OSError) -> None:
        self.failures += 1
        if not self._stream.failing:
            log(
                logger, logging.WARNING, "records cannot be written; they wait in memory, and are dropped when it is full",
                stream=self._stream.schema.name, url=self._disk.layout.url, reason=str(error),
            )  # fmt: skip
        self._stream.failing = True
