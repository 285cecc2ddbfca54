"""Functions of mathematics that numpy lacks, for whole arrays: the logarithms of the gamma and beta functions, normal quantiles."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np

__all__ = ["log_beta", "log_gamma", "normal_quantile"]

_SHIFT = 8  # Stirling's series is exact to 1e-13 from here on
_NORMAL = NormalDist()


def log_gamma(x: Any) -> Any:
    """log Γ(x) for x > 0: Stirling's series at x + 8, and the recurrence Γ(x + 1) = x Γ(x) back (Abramowitz & Stegun 6.1.40)."""
    x = np.asarray(x, dtype=float)
    product = x.copy()
    for step in range(1, _SHIFT):
        product = product * (x + step)
    z = x + _SHIFT
    inverse = 1.0 / (z * z)
    series = (1 / 12 - inverse * (1 / 360 - inverse * (1 / 1260 - inverse * (1 / 1680 - inverse / 1188)))) / z
    with np.errstate(over="ignore"):
        small = (z - 0.5) * np.log(z) - z + 0.5 * np.log(2 * np.pi) + series - np.log(product)
    # The product overflows from 1e38 on, and is not needed from a thousand on.
    big = np.maximum(x, 1000.0)
    direct = (big - 0.5) * np.log(big) - big + 0.5 * np.log(2 * np.pi) + 1 / (12 * big) - 1 / (360 * big**3)
    return np.where(x < 1000.0, small, direct)


def log_beta(a: Any, b: Any) -> Any:
    """log B(a, b)."""
    return log_gamma(a) + log_gamma(b) - log_gamma(np.asarray(a, dtype=float) + b)


def normal_quantile(probability: float) -> float:
    """Φ⁻¹."""
    return _NORMAL.inv_cdf(probability)
