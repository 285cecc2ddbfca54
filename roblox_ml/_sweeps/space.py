"""The space of a sweep: `rml.choice`, `rml.uniform`, `rml.integers`, checked against the pipeline before anything starts.

Records of the standard library, so that a sweep's definition can be read where Optuna is not installed. A plain value in
a space is a constant. Both ends of a range belong to it.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Choice", "Distribution", "Integers", "Uniform", "choice", "from_json", "grid", "integers", "uniform"]

_LARGEST_GRID = 100_000


@dataclass(frozen=True, slots=True)
class Choice:
    """One of these values; any JSON values of one parameter's type."""

    values: tuple[Any, ...]

    def to_json(self) -> dict[str, Any]:
        return {"kind": "choice", "values": list(self.values)}

    def points(self) -> tuple[Any, ...]:
        """What a grid takes from it."""
        return self.values

    def __str__(self) -> str:
        return "choice(" + ", ".join(map(repr, self.values)) + ")"


@dataclass(frozen=True, slots=True)
class Uniform:
    """A number between two others; `log` spreads evenly over orders of magnitude, `step` allows multiples only."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def to_json(self) -> dict[str, Any]:
        return {"kind": "uniform", "low": self.low, "high": self.high, "log": self.log, "step": self.step}

    def points(self) -> tuple[float, ...] | None:
        """What a grid takes from it; None: it has no end of points."""
        if self.step is None:
            return None
        count = int((self.high - self.low) / self.step + 1e-9) + 1
        return tuple(self.low + n * self.step for n in range(count))

    def __str__(self) -> str:
        more = ", log=True" if self.log else "" if self.step is None else f", step={self.step:g}"
        return f"uniform({self.low:g}, {self.high:g}{more})"


@dataclass(frozen=True, slots=True)
class Integers:
    """A whole number between two others, both included."""

    low: int
    high: int
    log: bool = False
    step: int = 1

    def to_json(self) -> dict[str, Any]:
        return {"kind": "integers", "low": self.low, "high": self.high, "log": self.log, "step": self.step}

    def points(self) -> tuple[int, ...]:
        """What a grid takes from it."""
        return tuple(range(self.low, self.high + 1, self.step))

    def __str__(self) -> str:
        more = ", log=True" if self.log else "" if self.step == 1 else f", step={self.step}"
        return f"integers({self.low}, {self.high}{more})"


Distribution = Choice | Uniform | Integers


def choice(values: Sequence[Any]) -> Choice:
    """One of `values`: `rml.choice([16, 32, 64])`, `rml.choice(["adam", "sgd"])`."""
    if isinstance(values, str | bytes | Mapping) or not hasattr(values, "__iter__"):
        raise TypeError(f'rml.choice takes a list, got {type(values).__name__}; write rml.choice(["a", "b"])')
    listed = tuple(values)
    if not listed:
        raise ValueError("rml.choice([]) has nothing to choose from")
    texts = []
    for value in listed:
        try:
            texts.append(json.dumps(value, sort_keys=True, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise ValueError(f"rml.choice holds {value!r:.60}, which is no JSON value: {error}") from None
    if len(set(texts)) != len(texts):
        twice = next(value for value, text in zip(listed, texts, strict=True) if texts.count(text) > 1)
        raise ValueError(f"rml.choice holds {twice!r:.60} twice")
    return Choice(listed)


def uniform(low: float, high: float, *, log: bool = False, step: float | None = None) -> Uniform:
    """A number from `low` to `high`: `rml.uniform(1e-5, 1e-3, log=True)`. A grid needs `step`."""
    for name, value in (("low", low), ("high", high)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"rml.uniform: {name} is {value!r}, not a number")
    if low > high:
        raise ValueError(f"rml.uniform({low}, {high}): the first is the smaller one")
    if log and low <= 0:
        raise ValueError(f"rml.uniform({low}, {high}, log=True): logarithms begin above 0")
    if step is not None and (log or not step > 0):
        raise ValueError("rml.uniform: a step is a number above 0, and does not go with log=True")
    return Uniform(float(low), float(high), log, None if step is None else float(step))


def integers(low: int, high: int, *, log: bool = False, step: int = 1) -> Integers:
    """A whole number from `low` to `high`, both included: `rml.integers(1, 10)`."""
    for name, value in (("low", low), ("high", high), ("step", step)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"rml.integers: {name} is {value!r}, not an int")
    if low > high:
        raise ValueError(f"rml.integers({low}, {high}): the first is the smaller one")
    if log and low <= 0:
        raise ValueError(f"rml.integers({low}, {high}, log=True): logarithms begin above 0")
    if step < 1 or (log and step != 1):
        raise ValueError("rml.integers: a step is at least 1, and does not go with log=True")
    return Integers(low, high, log, step)


def from_json(value: Mapping[str, Any]) -> Distribution:
    """The distribution that `to_json` wrote."""
    kind = value["kind"]
    if kind == "choice":
        return Choice(tuple(value["values"]))
    if kind == "uniform":
        return Uniform(value["low"], value["high"], value["log"], value["step"])
    return Integers(value["low"], value["high"], value["log"], value["step"])


def grid(space: Mapping[str, Distribution]) -> Iterator[dict[str, Any]]:
    """Every point of the space, the last parameter varying fastest.

    Raises ValueError when a parameter has no end of points, or there are too many of them all.
    """
    axes: dict[str, tuple[Any, ...]] = {}
    for name, distribution in space.items():
        points = distribution.points()
        if points is None:
            raise ValueError(
                f"a grid needs steps: {name} is {distribution}; write rml.uniform(…, step=…) or rml.choice"
            )
        axes[name] = points
    count = math.prod(map(len, axes.values()))
    if count > _LARGEST_GRID:
        raise ValueError(
            f"the grid has {count:,} points; at most {_LARGEST_GRID:,} are run: use fewer, or sampler='tpe'"
        )
    return (dict(zip(axes, point, strict=True)) for point in itertools.product(*axes.values()))
