"""Gates: what a model's metrics must reach before an alias moves to it. `rml.gate(f1=0.75, loss=rml.at_most(0.3))`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

__all__ = ["AtMost", "Gate", "at_most", "gate"]


@dataclass(frozen=True, slots=True)
class AtMost:
    """An upper bound, for metrics where less is better."""

    value: float


class Gate(dict[str, dict[str, float]]):
    """The JSON form the registry reads: `{"f1": {"min": 0.75}, "loss": {"max": 0.3}}`."""


def at_most(value: float) -> AtMost:
    """An upper bound in a gate: `rml.gate(loss=rml.at_most(0.3))`."""
    return AtMost(_number("at_most", value))


def gate(**bounds: float | AtMost) -> Gate:
    """Minimum (or `rml.at_most`) values of a model's metrics. Registering stores always; the gate decides the alias."""
    if not bounds:
        raise ValueError("rml.gate() needs at least one metric: rml.gate(f1=0.75)")
    return Gate(
        (name, {"max": bound.value} if isinstance(bound, AtMost) else {"min": _number(name, bound)})
        for name, bound in sorted(bounds.items())
    )


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"the bound of {name} is {value!r}; write a number: rml.gate(f1=0.75)")
    return float(value)
