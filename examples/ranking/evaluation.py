"""What a policy would have earned, from a log of what another one did: possible because the log has each action's probability.

With rewards r, weights w = π(a|x)/p and a model of the reward q: IPS is mean(w r) (Horvitz & Thompson 1952), SNIPS Σwr/Σw (Swaminathan &
Joachims 2015), DR mean(E_π q + w (r − q)) (Dudík, Langford & Li 2011). Intervals are normal, at 95 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np

__all__ = ["Value", "best", "doubly_robust", "estimates", "ips", "mean", "snips"]

NORMAL = 1.959964  # half of a 95 % interval, in standard errors


@dataclass(frozen=True, slots=True)
class Value:
    """A mean reward, and half of its interval."""

    estimate: float
    reach: float

    @property
    def low(self) -> float:
        return self.estimate - self.reach

    @property
    def high(self) -> float:
        return self.estimate + self.reach

    def __str__(self) -> str:
        return f"{1000 * self.estimate:5.2f} ({1000 * max(self.low, 0):5.2f} to {1000 * self.high:5.2f})"


def best(scores: Any, k: int) -> Any:
    """[contexts, items]: the probabilities of a policy that shows one of the `k` best, each as often; the earlier item where equal."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    chance = np.zeros_like(scores)
    np.put_along_axis(chance, order, 1 / k, axis=1)
    return chance


def estimates(reward: Any, weight: Any, taken: Any, expected: Any) -> dict[str, Value]:
    """All three."""
    return {
        "IPS": ips(reward, weight),
        "SNIPS": snips(reward, weight),
        "DR": doubly_robust(reward, weight, taken, expected),
    }


def mean(terms: Any) -> Value:
    """Of independent terms."""
    return Value(float(np.mean(terms)), NORMAL * float(np.std(terms, ddof=1)) / sqrt(len(terms)))


def ips(reward: Any, weight: Any) -> Value:
    return mean(weight * reward)


def snips(reward: Any, weight: Any) -> Value:
    """The error is the delta method's."""
    estimate = float((weight * reward).sum() / weight.sum())
    return Value(estimate, NORMAL * sqrt(float(np.square(weight * (reward - estimate)).sum())) / float(weight.sum()))


def doubly_robust(reward: Any, weight: Any, taken: Any, expected: Any) -> Value:
    """`taken`: the model's reward of what was shown; `expected`: its mean over what the policy would have shown."""
    return mean(expected + weight * (reward - taken))
