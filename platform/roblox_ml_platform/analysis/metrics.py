"""What is measured of each unit, over time: from events to the moments of every arm at every peek. Pure.

* `count`:      how many events a unit had
* `mean`:       the sum of their values
* `conversion`: 1 if it had any
* `ratio`:      the sum of one event's values over the sum of another's, of all units together (clicks per view)

Units without events count as 0: leaving them out would compare those who stayed with those who stayed. Moments are carried forward
from peek to peek, touching only units that had an event in between, so forty peeks cost little more than one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .joining import Events, Units
from .moments import Moments

__all__ = ["DAY_US", "Measured", "measure", "peeks_of"]

DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Measured:
    """Moments at each peek, arrays (peeks, arms), and every unit's two numbers at the end. `size`: the sums of |a|."""

    moments: Moments
    size: Any
    a: Any
    b: Any
    has_covariate: bool


def peeks_of(units: Units, until_us: int, count: int) -> Any:
    """Times at which the report looks: evenly from the first exposure to the end; the last one sees everything."""
    first = int(units.at[0]) if len(units) else until_us - 1
    # Whole microseconds: searching an integer array for fractions would convert all of it each time.
    return np.linspace(first, max(first + 1, until_us), count + 1)[1:].astype(np.int64)


def measure(metric: Mapping[str, Any], events: Mapping[str, Events], units: Units, arms: int, peeks: Any) -> Measured:
    """The metric's moments. `b` is the ratio's denominator, or what the same metric was before the exposure (CUPED)."""
    kind, mine = metric["kind"], events[metric["event"]]
    unit, at, a = mine.unit, mine.at, _deltas(kind, mine)
    if kind == "ratio":
        below = events[metric["per"]]
        unit, at = np.concatenate([unit, below.unit]), np.concatenate([at, below.at])
        a, b = np.concatenate([a, np.zeros(len(below.unit))]), np.concatenate([np.zeros(len(a)), below.value])
        order = np.argsort(at, kind="stable")
        found = _carried(units, arms, peeks, unit[order], at[order], a[order], b[order], None)
        return Measured(*found, has_covariate=False)
    covariate = None
    if metric.get("cuped_days") and mine.before is not None:
        covariate = _before(kind, mine.before, units, metric["cuped_days"] * DAY_US)
    return Measured(*_carried(units, arms, peeks, unit, at, a, None, covariate), has_covariate=covariate is not None)


def _before(kind: str, events: Events, units: Units, reach_us: int) -> Any:
    """Every unit's covariate. Another metric of the same event may have asked for a longer time before: that is not this one's."""
    near = events.at >= units.at[events.unit] - reach_us
    mine = Events(events.unit[near], events.at[near], events.value[near])
    return np.bincount(mine.unit, weights=_deltas(kind, mine), minlength=len(units)).astype(float)


def _deltas(kind: str, events: Events) -> Any:
    """By how much each event raises its unit's number."""
    if kind in ("mean", "ratio"):
        return events.value
    if kind == "count":
        return np.ones(len(events.unit))
    first = np.zeros(len(events.unit))
    first[np.unique(events.unit, return_index=True)[1]] = 1.0  # events are in the order of time
    return first


def _carried(
    units: Units, arms: int, peeks: Any, unit: Any, at: Any, da: Any, db: Any | None, covariate: Any | None
) -> tuple[Moments, Any, Any, Any]:
    shape = (len(peeks), arms)
    sums = {name: np.zeros(shape) for name in ("n", "a", "aa", "b", "bb", "ab", "size")}
    a = np.zeros(len(units))
    b = np.zeros(len(units)) if covariate is None else covariate
    known, seen = 0, 0
    now = {name: np.zeros(arms) for name in sums}

    def add(name: str, arm: Any, values: Any) -> None:
        now[name] += np.bincount(arm, weights=values, minlength=arms)

    for peek, moment in enumerate(peeks):
        upto = int(np.searchsorted(units.at, moment, side="right"))
        arm = units.arm[known:upto]
        now["n"] += np.bincount(arm, minlength=arms)
        if covariate is not None:
            add("b", arm, b[known:upto])
            add("bb", arm, b[known:upto] ** 2)
        known = upto
        end = int(np.searchsorted(at, moment, side="right"))
        touched, where = np.unique(unit[seen:end], return_inverse=True)
        if len(touched):
            arm = units.arm[touched]
            old_a, old_b = a[touched], b[touched]
            new_a = old_a + np.bincount(where, weights=da[seen:end], minlength=len(touched))
            new_b = old_b if db is None else old_b + np.bincount(where, weights=db[seen:end], minlength=len(touched))
            add("a", arm, new_a - old_a)
            add("aa", arm, new_a**2 - old_a**2)
            add("size", arm, np.abs(new_a) - np.abs(old_a))
            add("ab", arm, new_a * new_b - old_a * old_b)
            a[touched] = new_a
            if db is not None:
                add("b", arm, new_b - old_b)
                add("bb", arm, new_b**2 - old_b**2)
                b[touched] = new_b
        seen = end
        for name, total in now.items():
            sums[name][peek] = total
    size = sums.pop("size")
    return Moments(**sums), size, a, b
