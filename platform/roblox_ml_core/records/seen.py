"""Which exposures were logged already: a unit that asks a thousand times a day is exposed once."""

from __future__ import annotations

from collections import OrderedDict

__all__ = ["Seen"]


class Seen:
    """The last `capacity` (experiment, unit) pairs, and the arm and the day they were logged with.

    A changed arm is logged again, because it is what an analysis looks for. So is another day, because what was logged
    before is deleted one day.
    """

    __slots__ = ("_capacity", "_seen")

    def __init__(self, capacity: int = 200_000) -> None:
        self._capacity = max(1, capacity)
        self._seen: OrderedDict[tuple[str, str], tuple[str, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._seen)

    def first(self, experiment: str, unit: str, arm: str, day: int = 0) -> bool:
        """Whether this is to be logged; it is taken as logged from now on."""
        key, value = (experiment, unit), (arm, day)
        seen = self._seen
        known = seen.get(key)
        if known is not None:
            seen.move_to_end(key)
            if known == value:
                return False
        seen[key] = value
        if len(seen) > self._capacity:
            seen.popitem(last=False)
        return True

    def forget(self, experiment: str, unit: str) -> None:
        """It could not be logged after all: try again next time."""
        self._seen.pop((experiment, unit), None)
