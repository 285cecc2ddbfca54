"""Data as it comes: empty, constant, enormous, negative, doubled, out of order. A report is made, and says nothing wrong."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from roblox_ml_platform.analysis.report import build

HOUR = 3_600_000_000
SINCE = 1_795_000_000_000_000
UNTIL = SINCE + 48 * HOUR
SPENT = {
    "name": "spent",
    "kind": "mean",
    "event": "buy",
    "per": None,
    "direction": "up",
    "cuped_days": 0,
    "primary": True,
}
CTR = {**SPENT, "name": "ctr", "kind": "ratio", "event": "click", "per": "view"}
CRASH = {**SPENT, "name": "crash", "kind": "conversion", "event": "crash", "direction": "down", "margin": 0.1}
N = 400
Rows = list[tuple[str, str, int, float]]


def made(
    rows: Rows,
    *metrics: dict[str, Any],
    rails: tuple[dict[str, Any], ...] = (),
    arms: tuple[tuple[str, int], ...] = (("control", 5000), ("new", 5000)),
    seen: list[tuple[str, str, int]] | None = None,
    ids: list[str] | None = None,
) -> dict[str, Any]:
    """A report; every other one of N units is in each arm unless `seen` says otherwise. `rows`: unit, event, time, value."""
    if seen is None:
        seen = [(f"u{n}", ("control", "new")[n % 2], SINCE + n) for n in range(N)]
    shown = pa.table({"at_us": pa.array([at for _, _, at in seen], pa.int64()),
                      "arm": pa.array([arm for _, arm, _ in seen], pa.string()),
                      "unit": pa.array([unit for unit, _, _ in seen], pa.string())})  # fmt: skip
    happened = pa.table({"at_us": pa.array([at for _, _, at, _ in rows], pa.int64()),
                         "event_id": pa.array(ids or [f"i{n}" for n in range(len(rows))], pa.string()),
                         "unit": pa.array([unit for unit, _, _, _ in rows], pa.string()),
                         "event": pa.array([event for _, event, _, _ in rows], pa.string()),
                         "value": pa.array([value for _, _, _, value in rows], pa.float64())})  # fmt: skip
    experiment = {
        "name": "e", "endpoint": "feed", "layer": "l", "metrics": list(metrics), "guardrails": list(rails),
        "arms": [{"name": name, "weight": weight} for name, weight in arms],
    }  # fmt: skip
    found = build(experiment, shown, happened, since_us=SINCE, until_us=UNTIL, planned_units=1000, peeks=5)
    json.dumps(found, allow_nan=False)
    return found


def each(event: str, values: Any, at: int = SINCE + HOUR) -> Rows:
    return [(f"u{n}", event, at + n, float(value)) for n, value in enumerate(values)]


def decision(found: dict[str, Any], metric: int = 0) -> str:
    return found["metrics"][metric]["comparisons"][0]["decision"]


@pytest.mark.parametrize("seen", [[], [("u0", "control", SINCE)], [("u1", "new", SINCE)]])
def test_no_unit_or_a_single_one_is_too_early(seen: list[tuple[str, str, int]]) -> None:
    found = made(each("buy", [1.0, 2.0]), SPENT, CTR, rails=(CRASH,), seen=seen)
    assert decision(found) == decision(found, 1) == "too early"
    assert [one["units"] for one in found["units"]] == [
        int(bool(seen) and seen[0][1] == arm) for arm in ("control", "new")
    ]
    assert found["srm"]["verdict"] == "fine" and not found["guardrails"][0]["breached"]


def test_no_events_and_all_zeros_are_too_early() -> None:
    nothing = made([], SPENT, CTR, rails=(CRASH,))
    assert decision(nothing) == "too early" and "No event of spent" in " ".join(nothing["warnings"])
    zeros = made(each("buy", np.zeros(N)), SPENT)
    assert decision(zeros) == "too early"
    assert zeros["metrics"][0]["comparisons"][0]["e_value"] == 1.0


@pytest.mark.parametrize("value", [1.0, 0.1, 1e-300, -7.3])
def test_a_constant_that_is_the_same_in_both_arms_is_no_finding(value: float) -> None:
    found = made(each("buy", np.full(N, value)), SPENT)
    assert decision(found) in ("undecided", "too early")
    assert found["metrics"][0]["comparisons"][0]["p_value"] == pytest.approx(1.0)


def test_an_arm_in_which_every_unit_crashes_is_found_although_nobody_differs() -> None:
    crashes = [row for row in each("crash", np.ones(N)) if int(row[0][1:]) % 2]
    found = made(crashes, {**CRASH, "primary": True}, rails=(CRASH,))
    assert decision(found) == "worse" and found["guardrails"][0]["breached"]


@pytest.mark.parametrize("huge", [1e160, 1e300, 1.7e308])
def test_values_too_large_to_square_take_the_metric_with_them_and_nothing_else(huge: float) -> None:
    rng = np.random.default_rng(1)
    values = rng.exponential(1.0, N)
    values[3] = huge
    clicks = each("click", rng.poisson(3.0, N) + 2.0 * (np.arange(N) % 2))
    with np.errstate(all="ignore"):
        found = made(each("buy", values) + clicks, SPENT, {**SPENT, "name": "clicks", "event": "click"})
    assert decision(found) == "too early" and decision(found, 1) == "better"
    assert any("too large" in text for text in found["warnings"])


def test_one_whale_does_not_decide() -> None:
    values = np.zeros(N)
    values[1] = 1e9
    assert decision(made(each("buy", values), SPENT)) == "too early"


def test_gains_and_losses_around_zero_are_judged() -> None:
    rng = np.random.default_rng(2)
    noise = rng.normal(0, 1, N)
    assert decision(made(each("buy", noise), SPENT)) == "undecided"
    assert decision(made(each("buy", noise + 1.5 * (np.arange(N) % 2)), SPENT)) == "better"


def test_below_zero_more_is_better_and_no_percentage_is_told() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(-10, 1, N) + 2.0 * (np.arange(N) % 2)
    one = made(each("buy", values), SPENT)["metrics"][0]["comparisons"][0]
    assert one["decision"] == "better" and one["relative"]["low"] is None and one["lift"] is None
    assert "%" not in one["words"] and one["absolute"]["low"] > 0


@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("mean", [10.0, -10.0])
@pytest.mark.parametrize(("worse_by", "breached"), [(0.0, False), (0.5, False), (2.0, True), (-5.0, False)])
def test_a_guardrail_s_sign_and_margin(direction: str, mean: float, worse_by: float, breached: bool) -> None:
    rng = np.random.default_rng(4)
    change = worse_by * (-1 if direction == "up" else 1)
    values = rng.normal(mean, 1, N) + change * (np.arange(N) % 2)
    rail = {**SPENT, "name": "rail", "direction": direction, "margin": 0.1}
    found = made(each("buy", values), rails=(rail,))
    assert found["guardrails"][0]["breached"] is breached
    told = found["guardrails"][0]["arms"][0]
    assert told["excess"] == pytest.approx(worse_by - 1.0, abs=0.3)


def test_a_ratio_with_a_denominator_below_zero_and_one_near_zero() -> None:
    rng = np.random.default_rng(5)
    clicks = each("click", rng.poisson(3.0, N))
    below = made(clicks + each("view", -rng.gamma(9.0, 1.0, N)), CTR)
    told = below["metrics"][0]
    assert told["arms"][0]["mean"] == pytest.approx(-1 / 3, abs=0.03) and decision(below) == "undecided"
    assert told["comparisons"][0]["absolute"]["low"] < 0 < told["comparisons"][0]["absolute"]["high"]
    assert decision(made(clicks + each("view", rng.normal(0, 1, N)), CTR)) == "too early"
    assert decision(made(clicks, CTR)) == "too early"


def test_what_came_before_exposure_or_from_the_future_does_not_count() -> None:
    rows = each("buy", np.ones(N)) + each("buy", np.ones(N), at=SINCE - HOUR) + each("buy", np.ones(N), at=UNTIL + HOUR)
    found = made(rows, SPENT)
    assert [arm["mean"] for arm in found["metrics"][0]["arms"]] == [1.0, 1.0]
    assert (found["quality"]["events_before_exposure"], found["quality"]["late_events"]) == (N, N)
    assert any("clock that is ahead" in text for text in found["warnings"])


def test_two_replicas_that_log_the_same_count_once() -> None:
    seen = [(f"u{n}", ("control", "new")[n % 2], SINCE + n) for n in range(N)]
    twice = [*seen, *((unit, arm, at + 40) for unit, arm, at in seen)]
    rows = each("buy", np.ones(N))
    found = made(rows + rows, SPENT, seen=twice, ids=[f"i{n}" for n in range(N)] * 2)
    assert [one["units"] for one in found["units"]] == [N // 2, N // 2]
    assert [arm["mean"] for arm in found["metrics"][0]["arms"]] == [1.0, 1.0]
    assert (found["quality"]["repeated_exposures"], found["quality"]["repeated_events"]) == (N, N)


def test_units_in_two_arms_are_counted_where_they_came_first_at_every_look() -> None:
    # Only those of `new` cross, later: leaving them out of earlier looks would make a split wrong that was right.
    n = 8000
    seen = [(f"u{k}", ("control", "new")[k % 2], SINCE + k) for k in range(n)]
    crossing = [(f"u{k}", "control", UNTIL - 5) for k in range(1, n, 4)]
    found = made([], SPENT, seen=seen + crossing)
    assert found["quality"]["units_in_two_arms"] == n // 4
    assert found["srm"]["verdict"] == "fine" and found["srm"]["counts"] == [n // 2, n // 2]


def test_one_arm_no_control_and_an_arm_nobody_may_reach() -> None:
    alone = made(each("buy", np.ones(N)), SPENT, rails=(CRASH,), arms=(("only", 1),))
    assert (alone["control"], alone["metrics"][0]["comparisons"], alone["srm"]["verdict"]) == ("only", [], "fine")
    seen = [(f"u{n}", ("a", "b")[n % 2], SINCE + n) for n in range(N)]
    values = np.random.default_rng(6).exponential(1.0, N)
    without = made(each("buy", values), SPENT, arms=(("b", 1), ("a", 1)), seen=seen)
    assert without["control"] == "b" and decision(without) == "undecided"
    three = (("a", 1), ("b", 1), ("none", 0))
    found = made(each("buy", values), SPENT, arms=three, seen=seen)
    assert [one["decision"] for one in found["metrics"][0]["comparisons"]] == ["undecided", "too early"]
    assert found["srm"]["verdict"] == "fine"
    wrong = made(each("buy", values), SPENT, arms=three, seen=[*seen, ("x", "none", SINCE)])
    assert wrong["srm"]["verdict"] == "broken"


def test_each_metric_s_time_before_is_its_own() -> None:
    rng = np.random.default_rng(7)
    taste = rng.gamma(2.0, 1.0, N)
    day = 24 * HOUR
    old = [(unit, event, at - 3 * day, value) for unit, event, at, value in each("buy", taste)]
    rows = each("buy", taste + rng.normal(0, 0.1, N)) + old
    short, long = ({**SPENT, "name": f"d{days}", "cuped_days": days} for days in (1, 7))
    found = made(rows, short, long)
    explained = [one["comparisons"][0]["cuped"]["variance_reduction"] for one in found["metrics"]]
    assert explained[0] == 0.0 and explained[1] > 0.9
