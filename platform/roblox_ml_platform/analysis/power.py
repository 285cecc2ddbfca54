"""How many units an experiment needs: with one look at its end, and with a confidence sequence looked at all the time."""

from __future__ import annotations

from math import ceil, sqrt

from .sequences import half_width, rho_for
from .special import normal_quantile

__all__ = ["fixed_horizon", "sequential"]


def fixed_horizon(effect: float, sd: float, *, alpha: float = 0.05, power: float = 0.8, share: float = 0.5) -> int:
    """Units of both arms together for a two-sided z test of one difference, `share` of them in the treatment.

    n = (z_{1−α/2} + z_{power})² σ² / (share (1 − share) effect²)
    """
    z = normal_quantile(1 - alpha / 2) + normal_quantile(power)
    return ceil(z**2 * sd**2 / (share * (1 - share) * effect**2))


def sequential(
    effect: float,
    sd: float,
    *,
    alpha: float = 0.05,
    power: float = 0.8,
    share: float = 0.5,
    planned: float | None = None,
) -> int:
    """Units after which a confidence sequence leaves zero out with probability `power` at that look alone: looking earlier too only helps.

    `planned` is what ρ was tuned for; None tunes it for the answer, as somebody does who plans with this.
    """

    def enough(units: float) -> bool:
        variance = sd**2 / (share * (1 - share) * units)
        width = float(half_width(units, variance, alpha, rho_for(planned or units, alpha)))
        return effect >= width + normal_quantile(power) * sqrt(variance)

    effect = abs(effect)
    low, high = 1.0, 2.0
    while not enough(high):
        low, high = high, 2 * high
    while high - low > 0.5:
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return ceil(high)
