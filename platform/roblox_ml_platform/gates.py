"""A gate decides from metrics alone whether an alias may move. Pure: the same gate and metrics always give the same answer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from roblox_ml_core.errors import Invalid

__all__ = ["GateResult", "evaluate", "normalise", "number"]

_BOUNDS = ("min", "max")
Gate = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class GateResult:
    """Whether every condition held, and one finding per condition that did not."""

    passed: bool
    findings: tuple[Mapping[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        return {"passed": self.passed, "findings": [dict(finding) for finding in self.findings]}


def normalise(gate: Mapping[str, Any] | None) -> dict[str, dict[str, float]]:
    """A gate in its one form, ``{"f1": {"min": 0.75}}``; a plain number means a minimum. Anything else is `Invalid`."""
    checked: dict[str, dict[str, float]] = {}
    for metric, bounds in (gate or {}).items():
        given = bounds if isinstance(bounds, Mapping) else {"min": bounds}
        wrong = [key for key in given if key not in _BOUNDS]
        limits = {key: number(value) for key, value in given.items()}
        if not given or wrong or any(limit is None or not math.isfinite(limit) for limit in limits.values()):
            raise Invalid(
                f"the gate on {metric!r} is {bounds!r}",
                hint='a gate gives a smallest and/or largest value: {"f1": {"min": 0.75}, "latency_ms": {"max": 20}}',
            )
        checked[metric] = {key: limit for key, limit in limits.items() if limit is not None}
    return checked


def evaluate(gate: Gate, metrics: Mapping[str, Any]) -> GateResult:
    """Hold `metrics` against `gate`. A metric that is missing or is not a number fails: silence is not consent."""
    findings = []
    for metric, bounds in sorted(gate.items()):
        value = number(metrics.get(metric))
        known = ", ".join(sorted(metrics)) or "none"
        if metric not in metrics:
            findings.append(_finding(metric, "missing", f"{metric} is not among the metrics ({known})"))
        elif value is None or math.isnan(value):
            findings.append(_finding(metric, "not_a_number", f"{metric} is {metrics[metric]!r}, not a number"))
        else:
            if "min" in bounds and not value >= bounds["min"]:
                findings.append(
                    _finding(metric, "below", f"{metric} is {value:g}, the gate asks for {bounds['min']:g} or more")
                )
            if "max" in bounds and not value <= bounds["max"]:
                findings.append(
                    _finding(metric, "above", f"{metric} is {value:g}, the gate asks for {bounds['max']:g} or less")
                )
    return GateResult(not findings, tuple(findings))


def number(value: Any) -> float | None:
    """`value` as a float, or None when it is not one. JSON has no NaN or infinity: they are stored as these words."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    if value in ("NaN", "Infinity", "-Infinity"):
        return float(value)
    return None


def _finding(metric: str, code: str, message: str) -> dict[str, Any]:
    return {"metric": metric, "code": code, "message": message}
