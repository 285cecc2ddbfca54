"""Do two experiments in different layers change each other's effect? Layers are independent by design; effects need not be.

The contrast of the four cells, (ȳ₁₁ − ȳ₁₀) − (ȳ₀₁ − ȳ₀₀), is how much the effect of one experiment's arm changes with
the other's arm. Its confidence
sequence at a level shared by all pairs (Bonferroni) warns; it decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from . import estimates, sequences
from .comparing import ENOUGH_UNITS
from .moments import Moments

__all__ = ["Interaction", "interaction"]


@dataclass(frozen=True, slots=True)
class Interaction:
    estimate: float
    low: float
    high: float
    units: int

    @property
    def found(self) -> bool:
        return self.low > 0 or self.high < 0


def interaction(first: Any, second: Any, a: Any, b: Any | None, alpha: float, rho: float) -> Interaction | None:
    """`first`, `second`: 0 (control), 1 (the arm) or −1 (neither) of each unit in each experiment; `b` makes it a ratio. None: too few."""
    both = (first >= 0) & (second >= 0)
    cell = 2 * first[both] + second[both]
    m = Moments.of(cell, 4, a[both], None if b is None else b[both])
    if m.n.min() < ENOUGH_UNITS:
        return None
    each = estimates.mean(m) if b is None else estimates.ratio(m)
    value = float(each.value[3] - each.value[2] - each.value[1] + each.value[0])
    variance, units = float(each.variance.sum()), int(m.n.sum())
    if not np.isfinite(value) or variance <= 0:
        return None
    width = float(sequences.half_width(units, variance, alpha, rho))
    return Interaction(value, value - width, value + width, units)
