"""Sums over the units of each arm, from which every estimate is made: enough for means, ratios and covariates alike.

A unit brings two numbers: `a` is what is measured; `b` is the denominator of a ratio, or the unit's covariate of the time before.
Sums of sums: two parts of the data are added by adding their moments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Moments"]


@dataclass(frozen=True, slots=True)
class Moments:
    """Counts and sums; arrays over arms (or over anything), or plain numbers of one arm."""

    n: Any
    a: Any
    aa: Any
    b: Any
    bb: Any
    ab: Any

    @classmethod
    def of(cls, arm: Any, arms: int, a: Any, b: Any | None = None) -> Moments:
        """Of the units whose arm numbers are `arm`."""
        n = np.bincount(arm, minlength=arms).astype(float)
        b = np.zeros(len(a)) if b is None else b

        def total(values: Any) -> Any:
            return np.bincount(arm, weights=values, minlength=arms)

        return cls(n, total(a), total(a * a), total(b), total(b * b), total(a * b))

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.n + other.n, self.a + other.a, self.aa + other.aa, self.b + other.b, self.bb + other.bb, self.ab + other.ab
        )  # fmt: skip

    def __getitem__(self, index: Any) -> Moments:
        return Moments(*(getattr(self, name)[index] for name in ("n", "a", "aa", "b", "bb", "ab")))

    @property
    def mean_a(self) -> Any:
        return self.a / np.maximum(self.n, 1)

    @property
    def mean_b(self) -> Any:
        return self.b / np.maximum(self.n, 1)

    @property
    def var_a(self) -> Any:
        return self._spread(self.aa, self.a, self.a)

    @property
    def var_b(self) -> Any:
        return self._spread(self.bb, self.b, self.b)

    @property
    def cov(self) -> Any:
        return self._spread(self.ab, self.a, self.b, sign=True)

    def _spread(self, product: Any, left: Any, right: Any, *, sign: bool = False) -> Any:
        """Unbiased (co)variance; 0 where there are fewer than two units."""
        centred = product - left * right / np.maximum(self.n, 1)
        found = np.where(np.asarray(self.n) > 1, centred / np.maximum(self.n - 1, 1), 0.0)
        return found if sign else np.maximum(found, 0.0)
