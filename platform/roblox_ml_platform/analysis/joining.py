"""Exposures and outcome events as arrays: one row a unit, events only of units that were exposed and only after it. Pure.

Millions of rows: texts become numbers once (Arrow's dictionaries), everything after that is numpy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["Events", "Quality", "Units", "join", "units_of"]


@dataclass(slots=True)
class Quality:
    """What was left out, and why; every row of the input is in one of these or in the report."""

    exposures: int = 0
    repeated_exposures: int = 0
    exposures_of_unknown_arms: int = 0
    units_in_two_arms: int = 0
    events: int = 0
    repeated_events: int = 0
    events_of_others: int = 0
    events_before_exposure: int = 0
    late_events: int = 0


@dataclass(frozen=True, slots=True)
class Units:
    """Units in the order of their first exposure; those seen in two arms are in `crossed` and nowhere else."""

    names: Any
    arm: Any
    at: Any
    # First arms and times of the units that were left out, by time: the sample-ratio test counts them where they came.
    crossed: Any
    crossed_at: Any

    def __len__(self) -> int:
        return len(self.arm)


@dataclass(frozen=True, slots=True)
class Events:
    """Events of one name, by time: number of the unit, microseconds, value. `before`: those of the time before the exposure."""

    unit: Any
    at: Any
    value: Any
    before: Events | None = field(default=None)


def units_of(exposures: pa.Table, arms: Sequence[str], quality: Quality) -> Units:
    """First exposures. Who was exposed to two arms has mixed their effects: left out, and counted."""
    quality.exposures += len(exposures)
    arm = pc.index_in(exposures["arm"], value_set=pa.array(arms, pa.string()))
    known = pc.is_valid(arm)
    table = pa.table({"unit": exposures["unit"], "arm": arm, "at": exposures["at_us"]}).filter(known).combine_chunks()
    quality.exposures_of_unknown_arms += len(exposures) - len(table)
    encoded = _encoded(table["unit"])
    code, arm, at = encoded.indices.to_numpy(zero_copy_only=False), table["arm"].to_numpy(), table["at"].to_numpy()
    order = np.argsort(at, kind="stable")
    count = len(encoded.dictionary)
    first: Any = np.zeros(count, dtype=np.int64)
    first[code[order[::-1]]] = order[::-1]  # the last one written is the earliest
    quality.repeated_exposures += len(code) - count
    unit_arm, unit_at = arm[first].astype(np.int64), at[first]
    crossed: Any = np.zeros(count, dtype=bool)
    crossed[code[arm != unit_arm[code]]] = True
    quality.units_in_two_arms += int(crossed.sum())
    kept = np.flatnonzero(~crossed)
    kept = kept[np.argsort(unit_at[kept], kind="stable")]
    out = np.flatnonzero(crossed)
    out = out[np.argsort(unit_at[out], kind="stable")]
    return Units(encoded.dictionary.take(pa.array(kept)), unit_arm[kept], unit_at[kept], unit_arm[out], unit_at[out])


def join(
    events: pa.Table,
    units: Units,
    names: Sequence[str],
    quality: Quality,
    *,
    until_us: int,
    before_us: Mapping[str, int],
) -> dict[str, Events]:
    """Events by name. `before_us`: for which names, and for how long, the time before a unit's exposure is wanted too."""
    quality.events += len(events)
    table = events.select(["at_us", "event_id", "unit", "event", "value"])
    number = pc.index_in(table["unit"], value_set=units.names)
    which = pc.index_in(table["event"], value_set=pa.array(names, pa.string()))
    mine = pc.and_(pc.is_valid(number), pc.is_valid(which))
    quality.events_of_others += len(table) - int(pc.sum(mine).as_py() or 0)
    number, which = (_numpy(pc.filter(column, mine)) for column in (number, which))
    table = table.filter(mine)
    at = _numpy(table["at_us"])
    value = _numpy(pc.fill_null(table["value"], 1.0))
    once = _first_of_each(table["event_id"], at)
    quality.repeated_events += len(at) - len(once)
    order = once[np.argsort(at[once], kind="stable")]
    number, which, at, value = (column[order] for column in (number, which, at, value))
    exposed = units.at[number] if len(units) else np.zeros(0, dtype=np.int64)
    after, late = at >= exposed, at >= until_us
    quality.late_events += int((after & late).sum())
    used: Any = np.zeros(len(at), dtype=bool)
    found = {}
    for index, name in enumerate(names):
        is_it = which == index
        counted = is_it & after & ~late
        reach = before_us.get(name, 0)
        earlier = is_it & ~after & (at >= exposed - reach) if reach else np.zeros(len(at), dtype=bool)
        used |= earlier
        before = Events(number[earlier], at[earlier], value[earlier]) if reach else None
        found[name] = Events(number[counted], at[counted], value[counted], before)
    quality.events_before_exposure += int((~after & ~used).sum())
    return found


def _first_of_each(ids: Any, at: Any) -> Any:
    """Positions of each id's earliest row."""
    if not len(at):
        return np.zeros(0, dtype=np.int64)
    encoded = _encoded(ids)
    if len(encoded.dictionary) == len(at):
        return np.arange(len(at))
    code = encoded.indices.to_numpy(zero_copy_only=False)
    order = np.argsort(at, kind="stable")[::-1]
    first: Any = np.zeros(len(encoded.dictionary), dtype=np.int64)
    first[code[order]] = order
    return first


def _encoded(column: Any) -> Any:
    """A column as one dictionary array."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(whole, pa.ChunkedArray):
        whole = pa.concat_arrays(whole.chunks) if whole.num_chunks else pa.array([], pa.string())
    return whole if pa.types.is_dictionary(whole.type) else whole.dictionary_encode()


def _numpy(column: Any) -> Any:
    return column.to_numpy() if isinstance(column, pa.ChunkedArray) else column.to_numpy(zero_copy_only=False)
