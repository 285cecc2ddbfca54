"""What became of every row that was offered, in counters that outlive the process.

The counters are a small file mapped into memory: an increment is a store into the page cache, which the kernel keeps when
the process is killed. Nothing is ever reset. When a door starts again, what the counters cannot place was in memory when
the one before it ended: that is `lost`.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from .schema import STREAMS

__all__ = ["LOST", "OFFERED", "REASONS", "SAMPLED", "SEQUENCE", "WRITTEN", "Accounts", "Counters", "slot_of"]

#: Why a row is dropped: too many rows in memory; too many bytes; the disk is full or fails; a value has another type than
#: its field; the door has ended.
REASONS = ("full", "bytes", "disk", "invalid", "closed")
OFFERED, SAMPLED, WRITTEN, LOST, SEQUENCE, _FIRST_REASON = range(6)
_SLOTS = 16  # of 8 bytes for each stream, and as many in front
_MAGIC = 0x31_53_44_52_4C_4D_52  # "RMLRDS1"
_SIZE = 8 * _SLOTS * (1 + len(STREAMS))


def slot_of(reason: str) -> int:
    """The counter of a reason."""
    return _FIRST_REASON + REASONS.index(reason)


@dataclass(frozen=True, slots=True)
class Accounts:
    """One stream's rows since its door first started: `offered = written + buffered + dropped + sampled_out + lost`."""

    offered: int = 0
    written: int = 0
    buffered: int = 0
    sampled_out: int = 0
    lost: int = 0
    dropped: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def balanced(self) -> bool:
        """Every row is accounted for."""
        known = self.written + self.buffered + self.sampled_out + self.lost + sum(self.dropped.values())
        return self.offered == known

    def to_json(self) -> dict[str, Any]:
        return {
            "offered": self.offered, "written": self.written, "buffered": self.buffered, "sampled_out": self.sampled_out,
            "lost": self.lost, "dropped": dict(self.dropped),
        }  # fmt: skip

    @classmethod
    def of(cls, slots: Any, buffered: int) -> Accounts:
        """The accounts of a stream's counters."""
        dropped = {reason: slots[_FIRST_REASON + n] for n, reason in enumerate(REASONS) if slots[_FIRST_REASON + n]}
        return cls(slots[OFFERED], slots[WRITTEN], buffered, slots[SAMPLED], slots[LOST], MappingProxyType(dropped))

    @classmethod
    def total(cls, several: Iterable[Accounts]) -> Accounts:
        """The sum of several doors' accounts."""
        found = list(several)

        def add(name: str) -> int:
            return sum(int(getattr(one, name)) for one in found)

        sums = {reason: sum(one.dropped.get(reason, 0) for one in found) for reason in REASONS}
        dropped = MappingProxyType({reason: rows for reason, rows in sums.items() if rows})
        return cls(add("offered"), add("written"), add("buffered"), add("sampled_out"), add("lost"), dropped)


class Counters:
    """The counters of one door. `durable` is False where they could not be mapped: then they end with the process."""

    def __init__(self, handle: int | None) -> None:
        self._handle = handle
        self._map = mmap.mmap(-1 if handle is None else handle, _SIZE)
        self._view = memoryview(self._map)
        self._slots = self._view.cast("Q")
        if self._slots[0] != _MAGIC:  # new, or not ours
            self._map[:] = bytes(_SIZE)
            self._slots[0] = _MAGIC

    @property
    def durable(self) -> bool:
        return self._handle is not None

    @classmethod
    def claim(cls, folder: Path, door: str) -> tuple[Counters, str]:
        """The counters of the first of `door`, `door~2`, `door~3` … that no living process has, and that name.

        The lock goes with the process, however it ends.
        """
        for number in range(1, 100):
            name = door if number == 1 else f"{door}~{number}"
            try:
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                handle = os.open(folder / f"{name}.counters", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError:
                break
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Without its blocks a mapped file on a full disk would end the process at the first store.
                os.posix_fallocate(handle, 0, _SIZE)
            except BlockingIOError:
                os.close(handle)
                continue
            except OSError:
                os.close(handle)
                break
            return cls(handle), name
        return cls(None), f"{door}~{os.getpid()}"

    @classmethod
    def peek(cls, path: Path) -> dict[str, Accounts]:
        """The accounts in a counter file, whoever writes it. `buffered` are the rows that a living door has in memory."""
        data = path.read_bytes()
        slots = memoryview(data).cast("Q") if len(data) == _SIZE else memoryview(bytes(_SIZE)).cast("Q")
        found = {}
        for number, name in enumerate(STREAMS, 1):
            known = Accounts.of(slots[number * _SLOTS : (number + 1) * _SLOTS], 0)
            placed = known.written + known.sampled_out + known.lost + sum(known.dropped.values())
            found[name] = Accounts(
                max(known.offered, placed), known.written, max(0, known.offered - placed), known.sampled_out, known.lost,
                known.dropped,
            )  # fmt: skip
        return found

    def of(self, stream: str) -> Any:
        """The counters of one stream, to be changed in place."""
        start = (1 + list(STREAMS).index(stream)) * _SLOTS
        return self._slots[start : start + _SLOTS]

    def flush(self) -> None:
        """Against a loss of power."""
        with contextlib.suppress(OSError, ValueError):
            self._map.flush()

    def release(self) -> None:
        """Let another process have the name. The memory stays valid for who still counts."""
        self.flush()
        if self._handle is not None:
            fcntl.flock(self._handle, fcntl.LOCK_UN)  # closing would not do: the map holds the file open
            os.close(self._handle)
            self._handle = None
