"""Asymptotic confidence sequences: intervals that hold at all times at once, so that looking often costs nothing.

Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, "Time-uniform central limit theory and asymptotic confidence sequences",
arXiv 2103.06476. With t units, an estimate whose influence function has the variance σ² (estimated by σ̂²) and a number ρ > 0 that
was fixed beforehand,

    estimate ± σ̂ √( 2 (t ρ² + 1) / (t² ρ²) · log( √(t ρ² + 1) / α ) )                                (Theorem 2.2)

covers the truth at every t with probability 1 − α. One side alone is covered with log(1 + √(t ρ² + 1) / (2 α)) in place of
the logarithm (its one-sided form, in the appendix). ρ decides where the interval is tightest; `rho_for` chooses it for
the number of units planned.
For the difference of two arms the influence function is that of the average treatment effect (section 3, with no covariates), whose
variance is t (s₁²/n₁ + s₀²/n₀), t = n₀ + n₁. Everything here takes scalars or arrays.
"""

from __future__ import annotations

from math import log, sqrt
from typing import Any

import numpy as np

__all__ = ["e_value", "half_width", "half_width_one_sided", "log_e_value", "rho_for"]


def rho_for(planned: float, alpha: float, *, one_sided: bool = False) -> float:
    """The ρ whose interval is narrowest, to first order, once `planned` units are in (the closed form of the paper's
    appendix on tuning, as gbstats uses it)."""
    if planned < 1:
        raise ValueError(f"planned is {planned}: the number of units at which the interval shall be narrowest")
    level = min(2 * alpha if one_sided else alpha, 0.5)
    return sqrt((-2 * log(level) + log(1 - 2 * log(level))) / planned)


def half_width(units: Any, variance: Any, alpha: float, rho: float) -> Any:
    """Half the width of the interval after `units` units, for an estimate with the sampling variance `variance` (σ²/t)."""
    x = np.asarray(units, dtype=float) * rho**2
    return np.sqrt(variance * 2 * (x + 1) / x * np.log(np.sqrt(x + 1) / alpha))


def half_width_one_sided(units: Any, variance: Any, alpha: float, rho: float) -> Any:
    """How far a one-sided bound is from the estimate."""
    x = np.asarray(units, dtype=float) * rho**2
    return np.sqrt(variance * 2 * (x + 1) / x * np.log1p(np.sqrt(x + 1) / (2 * alpha)))


def log_e_value(estimate: Any, units: Any, variance: Any, rho: float) -> Any:
    """Logarithm of the e-value against "the effect is nothing": the mixture that the interval inverts.

    E = (t ρ² + 1)^(−1/2) exp( z² t ρ² / (2 (t ρ² + 1)) ), z the estimate in standard errors. The interval at level α leaves nothing out
    exactly where E < 1/α, and 1/E is a p-value at any time.
    """
    x = np.asarray(units, dtype=float) * rho**2
    z2 = np.square(estimate) / variance
    return 0.5 * z2 * x / (x + 1) - 0.5 * np.log1p(x)


def e_value(estimate: Any, units: Any, variance: Any, rho: float) -> Any:
    """The e-value itself, at most 1e300 so that JSON can hold it."""
    return np.exp(np.minimum(log_e_value(estimate, units, variance, rho), 690.0))
