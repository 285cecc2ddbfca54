"""The model's rows of what was gathered: one per candidate, defaults where there is no value, and a count of those. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .features import Gathered
from .spec import RankingSpec, View

__all__ = ["Defaulted", "Matrix", "build"]


class Defaulted(NamedTuple):
    """So many values of a feature were defaults, and why: missing, stale, not_finite or unanswered."""

    feature: str
    reason: str
    values: int


class Matrix(NamedTuple):
    """float32 [candidates, columns], how many values had to be found for it, and what of these are defaults.

    A user's value is one, whatever the number of candidates.
    """

    rows: Any
    values: int
    defaulted: Sequence[Defaulted]


def build(
    spec: RankingSpec, gathered: Sequence[Gathered], context: Mapping[str, Any], candidates: int, now: float
) -> Matrix:
    """`gathered` has a view's rows each, in the spec's order: one row of a user's views, one per candidate of items'."""
    defaulted: list[Defaulted] = []
    parts = [_view(view, one.table, now, defaulted) for view, one in zip(spec.views, gathered, strict=True)]
    if spec.context:
        parts.append(_context(spec, context, defaulted))
    rows = np.empty((candidates, sum(part.shape[1] for part in parts)), np.float32)
    starts, at = [], 0
    for part in parts:
        rows[:, at : at + part.shape[1]] = part  # a user's one row is everybody's
        starts.append(at)
        at += part.shape[1]
    if not spec.is_plain:
        rows = np.ascontiguousarray(rows[:, [starts[view] + feature for view, feature in spec.columns]])
    return Matrix(rows, sum(part.size for part in parts), defaulted)


def _view(view: View, table: Any, now: float, defaulted: list[Defaulted]) -> Any:
    values = table["values"]
    bad = ~np.isfinite(values)
    if view.max_age_s is not None:
        stale = now - table["event"] > view.max_age_s
        bad |= stale[:, None]
    if not bad.any():
        return values
    unanswered = (table["fetched"] == 0)[:, None] & bad
    odd = np.isinf(values)
    old = np.zeros_like(bad) if view.max_age_s is None else stale[:, None] & ~np.isnan(values)
    reasons = (
        ("unanswered", unanswered),
        ("stale", old),
        ("not_finite", odd & ~old),
        ("missing", np.isnan(values) & ~unanswered),
    )
    for reason, mask in reasons:
        for feature, count in zip(view.features, mask.sum(axis=0).tolist(), strict=True):
            if count:
                defaulted.append(Defaulted(f"{view.name}.{feature}", reason, count))
    return np.where(bad, np.asarray(view.defaults, np.float32), values)


def _context(spec: RankingSpec, context: Mapping[str, Any], defaulted: list[Defaulted]) -> Any:
    row = []
    for name, default in spec.context:
        given = context.get(name)
        if not isinstance(given, int | float):
            defaulted.append(Defaulted(f"context.{name}", "missing", 1))
            given = default
        try:
            number = float(given)
        except OverflowError:
            number = math.inf
        if not abs(number) <= float(np.finfo(np.float32).max):
            defaulted.append(Defaulted(f"context.{name}", "not_finite", 1))
            number = default
        row.append(number)
    return np.asarray([row], np.float32)
