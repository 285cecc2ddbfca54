"""Estimates of one arm, and of one arm against another: mean, ratio (delta method), with a covariate (CUPED), as relative lift.

Each estimate is a value with its sampling variance; what makes intervals of them is `sequences`.

* mean:   ȳ,   variance s²/n
* ratio:  R = N̄/D̄,   variance ( s_N² − 2 R s_ND + R² s_D² ) / (n D̄²)                    Deng, Knoblich & Lu 2018, arXiv 1803.06336
* CUPED:  ȳ − θ (x̄ − x̄_all),   θ = cov(y, x)/var(x) pooled within arms                    Deng, Xu, Kohavi & Walker, WSDM 2013
* lift:   m₁/m₀ − 1,   variance v₁/m₀² + v₀ m₁²/m₀⁴                                        delta method
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .moments import Moments

__all__ = [
    "Estimate",
    "adjusted",
    "contrast",
    "difference",
    "known_below",
    "mean",
    "ratio",
    "relative",
    "theta",
    "variance_reduction",
]

#: Standard errors that a denominator must be away from zero: the control's mean for a lift, the mean below for a ratio.
FAR_FROM_ZERO = 4.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value, its sampling variance, and of how many units it is."""

    value: Any
    variance: Any
    units: Any


def mean(m: Moments) -> Estimate:
    """The mean of `a` per unit."""
    return Estimate(m.mean_a, m.var_a / np.maximum(m.n, 1), m.n)


def ratio(m: Moments) -> Estimate:
    """The sum of `a` over the sum of `b`; units are independent, what they bring is not."""
    below = np.where(m.mean_b == 0, np.nan, m.mean_b)
    value = m.mean_a / below
    spread = m.var_a - 2 * value * m.cov + value**2 * m.var_b
    return Estimate(value, np.maximum(spread, 0.0) / (np.maximum(m.n, 1) * below**2), m.n)


def known_below(m: Moments) -> Any:
    """Is a ratio's denominator far enough from zero for the delta method?"""
    return np.abs(m.mean_b) > FAR_FROM_ZERO * np.sqrt(m.var_b / np.maximum(m.n, 1))


def theta(arms: Moments) -> Any:
    """CUPED's coefficient from the last axis of arms: covariance and variance within arms, pooled."""
    weight = np.maximum(arms.n - 1, 0)
    below = (weight * arms.var_b).sum(axis=-1)
    above = (weight * arms.cov).sum(axis=-1)
    return np.where(below > 0, above / np.where(below > 0, below, 1.0), 0.0)


def adjusted(m: Moments, coefficient: Any, centre: Any) -> Estimate:
    """The mean of `a` per unit, as if the arm's covariate `b` had the mean `centre` (the one of all arms together)."""
    value = m.mean_a - coefficient * (m.mean_b - centre)
    spread = m.var_a + coefficient**2 * m.var_b - 2 * coefficient * m.cov
    return Estimate(value, np.maximum(spread, 0.0) / np.maximum(m.n, 1), m.n)


def variance_reduction(arms: Moments) -> Any:
    """The share of the variance that the covariate explains: the squared correlation within arms."""
    weight = np.maximum(arms.n - 1, 0)
    a, b = (weight * arms.var_a).sum(axis=-1), (weight * arms.var_b).sum(axis=-1)
    ab = (weight * arms.cov).sum(axis=-1)
    known = (a > 0) & (b > 0) & np.isfinite(a) & np.isfinite(b) & np.isfinite(ab)
    # Divided one after the other: the product of two large variances has no number.
    return np.where(known, ab / np.where(known, a, 1.0) * (ab / np.where(known, b, 1.0)), 0.0)


def difference(treatment: Estimate, control: Estimate) -> Estimate:
    return contrast(treatment, control, 1.0)


def contrast(treatment: Estimate, control: Estimate, factor: float) -> Estimate:
    """`treatment − factor · control`."""
    variance = treatment.variance + factor**2 * control.variance
    return Estimate(treatment.value - factor * control.value, variance, treatment.units + control.units)


def relative(treatment: Estimate, control: Estimate) -> Estimate:
    """The lift; not a number where the control's mean is too close to zero, or below it: a share of less than nothing misleads."""
    far = control.value > FAR_FROM_ZERO * np.sqrt(control.variance)
    base = np.where(far, control.value, np.nan)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        variance = (treatment.variance + control.variance * np.square(treatment.value / base)) / base**2
    return Estimate(treatment.value / base - 1, variance, treatment.units + control.units)
