"""Gates: every condition must hold on a real number; anything else fails with the reason."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from roblox_ml_core.errors import Invalid
from roblox_ml_platform.gates import evaluate, normalise, number

FINITE = st.floats(allow_nan=False, allow_infinity=False)
NAMES = st.sampled_from(["f1", "loss", "latency"])
GATES = st.dictionaries(NAMES, st.dictionaries(st.sampled_from(["min", "max"]), FINITE, min_size=1), max_size=3)
METRICS = st.dictionaries(NAMES, st.one_of(FINITE, st.sampled_from(["NaN", "Infinity", None, True, "0.9"])), max_size=3)


@given(GATES, METRICS)
def test_a_gate_passes_exactly_when_every_condition_holds(gate: dict, metrics: dict) -> None:
    result = evaluate(normalise(gate), metrics)

    def holds(name: str, bounds: dict[str, float]) -> bool:
        value = number(metrics.get(name))
        if value is None or math.isnan(value):
            return False
        return bounds.get("min", -math.inf) <= value <= bounds.get("max", math.inf)

    assert result.passed == all(holds(name, bounds) for name, bounds in gate.items())
    assert {finding["metric"] for finding in result.findings} == {n for n, b in gate.items() if not holds(n, b)}


@given(FINITE, FINITE)
def test_raising_a_minimum_never_lets_more_through(low: float, value: float) -> None:
    if evaluate({"f1": {"min": low + 1}}, {"f1": value}).passed and low + 1 > low:
        assert evaluate({"f1": {"min": low}}, {"f1": value}).passed


@pytest.mark.parametrize(
    ("metrics", "code"),
    [
        ({}, "missing"),
        ({"f1": "NaN"}, "not_a_number"),
        ({"f1": True}, "not_a_number"),
        ({"f1": 0.7}, "below"),
        ({"f1": 2}, "above"),
    ],
)
def test_a_failure_names_its_reason(metrics: dict, code: str) -> None:
    findings = evaluate({"f1": {"min": 0.75, "max": 1.0}}, metrics).findings
    assert [finding["code"] for finding in findings] == [code]
    assert "f1" in findings[0]["message"]


def test_no_gate_lets_everything_through_and_a_number_means_a_minimum() -> None:
    assert evaluate(normalise(None), {}).passed
    assert normalise({"f1": 0.75}) == {"f1": {"min": 0.75}}


@pytest.mark.parametrize("bounds", [{}, {"low": 1}, {"min": "x"}, {"min": "NaN"}, {"min": "Infinity"}, None, [1], True])
def test_a_gate_that_cannot_be_read_is_refused(bounds: object) -> None:
    with pytest.raises(Invalid, match="gate"):
        normalise({"f1": bounds})
