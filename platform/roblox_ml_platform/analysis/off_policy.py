"""What another policy would have earned, from what one policy's log says: it must have the probability of each action it took.

With logged rewards r, weights w = π(a|x)/p (the new policy's probability over the logged one) and a reward model q̂ (optional),

* IPS:    mean(w r)                                   unbiased; variance grows with the weights        (Horvitz & Thompson 1952)
* SNIPS:  Σ w r / Σ w                                 a little bias, bounded, often much less variance (Swaminathan & Joachims 2015)
* DR:     mean( E_π q̂(x, ·) + w (r − q̂(x, a)) )       right if propensities or model are right          (Dudík, Langford & Li 2011)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np

from .special import normal_quantile

__all__ = ["Value", "doubly_robust", "effective_size", "ips", "snips"]


@dataclass(frozen=True, slots=True)
class Value:
    """The estimated mean reward with its standard error, and the interval at the level that was asked for."""

    estimate: float
    standard_error: float
    low: float
    high: float

    def covers(self, value: float) -> bool:
        return self.low <= value <= self.high


def ips(reward: Sequence[float] | Any, weight: Any, *, alpha: float = 0.05) -> Value:
    """Inverse propensity score."""
    return _of(_checked(weight, reward) * np.asarray(reward, dtype=float), alpha)


def snips(reward: Sequence[float] | Any, weight: Any, *, alpha: float = 0.05) -> Value:
    """Self-normalised: a ratio of means, its variance by the delta method."""
    weight, reward = _checked(weight, reward), np.asarray(reward, dtype=float)
    total = weight.sum()
    if total <= 0:
        raise ValueError("all weights are zero: the new policy would never do what was logged")
    estimate = float((weight * reward).sum() / total)
    error = sqrt(float(np.square(weight * (reward - estimate)).sum())) / float(total)
    return _interval(estimate, error, alpha)


def doubly_robust(reward: Any, weight: Any, taken: Any, expected: Any, *, alpha: float = 0.05) -> Value:
    """`taken`: the model's reward of the action taken; `expected`: its mean reward under the new policy, of the same contexts."""
    weight = _checked(weight, reward, taken, expected)
    residual = np.asarray(reward, dtype=float) - np.asarray(taken, dtype=float)
    return _of(np.asarray(expected, dtype=float) + weight * residual, alpha)


def effective_size(weight: Any) -> float:
    """(Σw)² / Σw²: how many rows the log is worth for this policy; 0 where it would do nothing of what was logged."""
    weight = _checked(weight)
    squares = float(np.square(weight).sum())
    return float(weight.sum() ** 2) / squares if squares else 0.0


def _checked(weight: Any, *beside: Any) -> Any:
    """The weights as an array.

    Raises:
        ValueError: they are none, or not one for each row of what stands beside them.
    """
    weight = np.asarray(weight, dtype=float)
    lengths = [np.shape(weight), *(np.shape(one) for one in beside)]
    if any(len(shape) != 1 or shape != lengths[0] for shape in lengths) or (beside and len(weight) < 2):
        raise ValueError(f"the log's columns have the shapes {lengths}: give one number for each of two or more rows")
    if not np.isfinite(weight).all() or (weight < 0).any():
        raise ValueError("weights must be finite and not negative: a logged propensity was zero or missing")
    return weight


def _of(terms: Any, alpha: float) -> Value:
    return _interval(float(terms.mean()), float(terms.std(ddof=1)) / sqrt(len(terms)), alpha)


def _interval(estimate: float, error: float, alpha: float) -> Value:
    reach = normal_quantile(1 - alpha / 2) * error
    return Value(estimate, error, estimate - reach, estimate + reach)
