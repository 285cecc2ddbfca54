"""One arm against control in one metric, at every peek: lift, intervals, e-values, and what may be said. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import estimates, sequences
from .estimates import Estimate
from .metrics import Measured

__all__ = ["ENOUGH_UNITS", "Comparison", "Guarded", "arm_estimates", "compare", "guard"]

#: Units in each arm below which nothing is said: the intervals are right for many units, not for a handful.
ENOUGH_UNITS = 100
#: Units in each arm whose number is not zero, below which a mean is not yet like a normal variable.
ENOUGH_EVENTS = 10


@dataclass(frozen=True, slots=True)
class Comparison:
    """Arrays over peeks; the last entry is now."""

    absolute: Estimate
    width: Any
    relative: Estimate
    relative_width: Any
    log_e: Any
    ready: Any

    def decision(self, direction: str) -> str:
        """`better`, `worse`, `undecided` or `too early`, of the latest peek."""
        if not bool(self.ready[-1]):
            return "too early"
        estimate, width = float(self.absolute.value[-1]), float(self.width[-1])
        if abs(estimate) <= width:
            return "undecided"
        return "better" if (estimate > 0) == (direction == "up") else "worse"


@dataclass(frozen=True, slots=True)
class Guarded:
    """How much worse than allowed an arm is, over peeks: a one-sided bound above zero is a breach."""

    excess: Any
    bound: Any
    breached: bool


def arm_estimates(metric: Mapping[str, Any], measured: Measured, *, adjust: bool = True) -> list[Estimate]:
    """Each arm's estimate over peeks."""
    m = measured.moments
    if metric["kind"] == "ratio":
        found = estimates.ratio(m)
    elif measured.has_covariate and adjust:
        coefficient = estimates.theta(m)[..., None]
        centre = m.b.sum(axis=-1, keepdims=True) / np.maximum(m.n.sum(axis=-1, keepdims=True), 1)
        found = estimates.adjusted(m, coefficient, centre)
    else:
        found = estimates.mean(m)
    arms = m.n.shape[-1]
    return [Estimate(found.value[..., arm], found.variance[..., arm], found.units[..., arm]) for arm in range(arms)]


def compare(
    metric: Mapping[str, Any], measured: Measured, arm: int, alpha: float, rho: float, control: int = 0
) -> Comparison:
    """Arm number `arm` against arm number `control` at level `alpha`."""
    each = arm_estimates(metric, measured)
    absolute = _spread(estimates.difference(each[arm], each[control]))
    lift = _spread(estimates.relative(each[arm], each[control]))
    with np.errstate(divide="ignore", invalid="ignore"):
        width = sequences.half_width(np.maximum(absolute.units, 1), absolute.variance, alpha, rho)
        lift_width = sequences.half_width(np.maximum(lift.units, 1), lift.variance, alpha, rho)
        log_e = sequences.log_e_value(absolute.value, absolute.units, absolute.variance, rho)
    ready = _ready(metric, measured, arm, control) & (absolute.variance > 0) & np.isfinite(absolute.value)
    return Comparison(absolute, width, lift, lift_width, np.where(ready, log_e, 0.0), ready)


def guard(
    guardrail: Mapping[str, Any], measured: Measured, arm: int, alpha: float, rho: float, control: int = 0
) -> Guarded:
    """Is the arm worse than control by more than the margin, a share of control's size? Contrasts of means: no division.

    The size is |μ₀|, and the sign of μ₀ is not known: worse is what is worse by more than m μ₀ and by more than −m μ₀.
    """
    each = arm_estimates(guardrail, measured, adjust=False)
    sign = -1.0 if guardrail["direction"] == "up" else 1.0
    ready = _ready(guardrail, measured, arm, control)
    excesses, bounds = [], []
    for margin in (guardrail["margin"], -guardrail["margin"]):
        worse = _spread(estimates.contrast(each[arm], each[control], 1 + sign * margin))
        with np.errstate(divide="ignore", invalid="ignore"):
            reach = sequences.half_width_one_sided(np.maximum(worse.units, 1), worse.variance, alpha, rho)
        excesses.append(sign * worse.value)
        bounds.append(excesses[-1] - reach)
        ready = ready & (worse.variance > 0) & np.isfinite(excesses[-1])
    excess, bound = np.minimum(*excesses), np.minimum(*bounds)
    return Guarded(excess, bound, bool((ready & (bound > 0)).any()))


def _spread(found: Estimate) -> Estimate:
    """Where no unit differs within its arm (all crash in one, none in the other), the variance of both arms taken together."""
    between = np.square(found.value) / np.maximum(found.units, 1)
    return Estimate(found.value, np.where(found.variance == 0, between, found.variance), found.units)


def _ready(metric: Mapping[str, Any], measured: Measured, arm: int, control: int) -> Any:
    m = measured.moments
    few = np.minimum(m.n[..., arm], m.n[..., control])
    # How many units bring something, and how evenly: (Σ|x|)²/Σx² is n of equal ones, and 1 where one has nearly all.
    effective = np.square(measured.size / np.sqrt(np.where(m.aa > 0, m.aa, 1.0)))
    ready = (few >= ENOUGH_UNITS) & (effective[..., arm] + effective[..., control] >= ENOUGH_EVENTS)
    if metric["kind"] == "ratio":
        known = estimates.known_below(m)
        ready = ready & known[..., arm] & known[..., control]
    return ready
