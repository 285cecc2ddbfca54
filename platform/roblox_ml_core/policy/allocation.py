"""Which buckets of a layer belong to which experiment. Pure; used where experiments are made, never where requests are.

An experiment's ranges only ever grow by buckets that nobody has, so growing moves no unit that is already in: not to another
experiment, and (since arms are chosen by a hash of their own) not to another arm. Shrinking gives back what was given last.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .hashing import SCALE

__all__ = ["NoRoom", "Range", "allocate", "free", "size"]

#: Buckets from (included) to (excluded).
Range = tuple[int, int]


class NoRoom(ValueError):
    """The layer has fewer free buckets than asked for; `free` says how many."""

    def __init__(self, wanted: int, free: int) -> None:
        super().__init__(f"{wanted / 100:g} % of the layer are wanted and {free / 100:g} % are free")
        self.wanted, self.free = wanted, free


def size(ranges: Iterable[Range]) -> int:
    """How many buckets the ranges hold."""
    return sum(high - low for low, high in ranges)


def free(taken: Iterable[Range]) -> list[Range]:
    """What is left of the layer, in order."""
    left, at = [], 0
    for low, high in sorted(taken):
        if low > at:
            left.append((at, low))
        at = max(at, high)
    if at < SCALE:
        left.append((at, SCALE))
    return left


def allocate(taken: Iterable[Range], own: Sequence[Range], share: int) -> tuple[Range, ...]:
    """The ranges of an experiment that has `own` and wants `share` buckets, while others have `taken`.

    Order is history: what was given first stands first, so shrinking and growing again leads back to the same units.

    Raises:
        NoRoom: there are not so many free buckets.
        ValueError: `share` is no share.
    """
    if not 0 <= share <= SCALE:
        raise ValueError(f"a share of {share} is not between 0 and {SCALE}")
    have = size(own)
    if share <= have:
        return _first(own, share)
    room = free([*taken, *own])
    if size(room) < share - have:
        raise NoRoom(share - have, size(room))
    return (*own, *_first(room, share - have))


def _first(ranges: Sequence[Range], count: int) -> tuple[Range, ...]:
    kept: list[Range] = []
    for low, high in ranges:
        if count <= 0:
            break
        high = min(high, low + count)
        kept.append((low, high))
        count -= high - low
    return tuple(kept)
