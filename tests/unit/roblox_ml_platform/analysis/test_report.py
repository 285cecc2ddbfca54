"""The report as a whole, on made-up experiments whose truth is known."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from roblox_ml_platform.analysis.report import Neighbour, build

HOUR, DAY = 3_600_000_000, 86_400_000_000
SINCE = 1_795_000_000_000_000
UNTIL = SINCE + 2 * DAY
_BASE = {"per": None, "direction": "up", "cuped_days": 0, "primary": True}
CLICKS = {**_BASE, "name": "clicks", "kind": "count", "event": "click"}
REVENUE = {**_BASE, "name": "revenue", "kind": "mean", "event": "buy"}
BOUGHT = {**_BASE, "name": "bought", "kind": "conversion", "event": "buy", "primary": False}
CTR = {**_BASE, "name": "ctr", "kind": "ratio", "event": "click", "per": "view"}
CRASH = {**_BASE, "name": "crash", "kind": "conversion", "event": "crash", "direction": "down", "margin": 0.1}


def experiment(
    *metrics: dict[str, Any], guardrails: tuple[dict[str, Any], ...] = (), weights=(5000, 5000)
) -> dict[str, Any]:
    arms = [{"name": name, "weight": weight} for name, weight in zip(("control", "new"), weights, strict=True)]
    rails = list(guardrails)
    return {"name": "e", "endpoint": "feed", "layer": "l", "arms": arms, "metrics": list(metrics), "guardrails": rails}


def exposures(units: np.ndarray, arm: np.ndarray, at: np.ndarray) -> pa.Table:
    return pa.table({"at_us": at, "arm": np.array(["control", "new"])[arm], "unit": [f"u{n}" for n in units]})


def events(rows: list[tuple[np.ndarray, str, np.ndarray, np.ndarray]]) -> pa.Table:
    parts, count = [], 0
    for unit, name, at, value in rows:
        ids = [f"i{count + n}" for n in range(len(unit))]
        count += len(unit)
        parts.append(
            pa.table({"at_us": at.astype(np.int64), "event_id": pa.array(ids, pa.string()),
                      "unit": pa.array([f"u{n}" for n in unit], pa.string()),
                      "event": pa.array([name] * len(unit), pa.string()), "value": value.astype(float)})
        )  # fmt: skip
    return pa.concat_tables(parts)


class World:
    """Four thousand units; each sees, clicks and buys after its exposure, and did so before it."""

    def __init__(self, seed: int, n: int = 4000, lift: float = 0.0, share: float = 0.5) -> None:
        rng = self.rng = np.random.default_rng(seed)
        self.n, self.units = n, np.arange(n)
        self.arm = (rng.random(n) < share).astype(int)
        self.at = SINCE + rng.integers(0, DAY, n)
        self.taste = rng.gamma(2.0, 1.0, n)
        self.lift = lift

    def happen(self, name: str, rate: np.ndarray, value: float = 1.0, *, before: bool = False) -> tuple:
        times = self.rng.poisson(rate)
        unit = np.repeat(self.units, times)
        offset = self.rng.integers(1, DAY, len(unit))
        at = self.at[unit] - offset if before else self.at[unit] + offset
        return unit, name, at, np.full(len(unit), value)

    def clicks(self, *, before: bool = False) -> tuple:
        return self.happen("click", self.taste * (1 + (0 if before else self.lift) * self.arm), before=before)

    def exposed(self) -> pa.Table:
        return exposures(self.units, self.arm, self.at)


def report(world: World, rows: list[tuple], *metrics: dict[str, Any], **options: Any) -> dict[str, Any]:
    guardrails = options.pop("guardrails", ())
    weights = options.pop("weights", (5000, 5000))
    found = build(experiment(*metrics, guardrails=guardrails, weights=weights), world.exposed(), events(rows),
                  since_us=SINCE, until_us=UNTIL, planned_units=5000, **options)  # fmt: skip
    json.dumps(found, allow_nan=False)
    return found


def test_a_lift_is_found_and_the_numbers_are_those_of_the_units() -> None:
    world = World(1, lift=0.3)
    unit, name, at, value = world.clicks()
    found = report(world, [(unit, name, at, value)], CLICKS)
    one = found["metrics"][0]
    counts = np.bincount(unit[at < UNTIL], minlength=world.n)
    for arm in (0, 1):
        mine = counts[world.arm == arm]
        told = one["arms"][arm]
        assert told["units"] == len(mine) and told["mean"] == pytest.approx(mine.mean())
        assert told["sd"] == pytest.approx(mine.std(ddof=1))
    new = one["comparisons"][0]
    assert new["decision"] == "better" and new["relative"]["low"] < 0.3 < new["relative"]["high"]
    assert new["e_value"] > 20 and new["p_value"] < 0.05
    assert new["words"].startswith("clicks: new is better than control by +")
    series = new["series"]
    assert len(series) == 40 and series[-1]["estimate"] == new["absolute"]["estimate"]
    assert [point["units"] for point in series] == sorted(point["units"] for point in series)
    assert found["srm"]["verdict"] == "fine" and found["warnings"] == []


def test_every_peek_of_the_series_is_what_a_report_of_that_time_would_have_said() -> None:
    world = World(2, n=600, lift=0.2)
    rows = [world.clicks(), world.happen("view", 3 * world.taste), world.clicks(before=True)]
    metrics = ({**CLICKS, "cuped_days": 1}, CTR)
    final = report(world, rows, *metrics, peeks=5)
    point = final["metrics"][0]["comparisons"][0]["series"][2]
    moment = round(point["at"] * 1e6)
    known = world.at <= moment
    then = build(
        experiment(*metrics), exposures(world.units[known], world.arm[known], world.at[known]),
        (table := events(rows)).filter(pa.array(table["at_us"].to_numpy() <= moment)),
        since_us=SINCE, until_us=moment + 1, planned_units=5000, peeks=5,
    )  # fmt: skip
    for mine, its in zip(final["metrics"], then["metrics"], strict=True):
        late, now = mine["comparisons"][0]["series"][2], its["comparisons"][0]["absolute"]
        for field in ("estimate", "low", "high"):
            assert late[field] == pytest.approx(now[field], rel=1e-6), (mine["name"], field)


def test_the_time_before_narrows_the_interval() -> None:
    world = World(3)
    rows = [world.clicks(), world.clicks(before=True)]
    plain = report(world, rows, CLICKS)["metrics"][0]["comparisons"][0]
    cuped = report(world, rows, {**CLICKS, "cuped_days": 7})["metrics"][0]["comparisons"][0]
    assert plain["cuped"] is None and cuped["cuped"]["variance_reduction"] > 0.15
    width = lambda one: one["absolute"]["high"] - one["absolute"]["low"]  # noqa: E731
    expected = np.sqrt(1 - cuped["cuped"]["variance_reduction"])
    assert width(cuped) / width(plain) == pytest.approx(expected, rel=0.05)


def test_conversion_mean_and_ratio() -> None:
    world = World(4)
    buys, views = world.happen("buy", 0.3 * world.taste, 5.0), world.happen("view", 10 * world.taste)
    clicks = world.happen("click", world.taste)
    found = {one["name"]: one for one in report(world, [buys, views, clicks], BOUGHT, REVENUE, CTR)["metrics"]}
    counted = [
        np.bincount(rows[0][rows[2] < UNTIL], minlength=world.n)[world.arm == 0] for rows in (buys, views, clicks)
    ]
    assert found["bought"]["arms"][0]["mean"] == pytest.approx((counted[0] > 0).mean())
    assert found["revenue"]["arms"][0]["mean"] == pytest.approx(5 * counted[0].mean())
    assert found["ctr"]["arms"][0]["mean"] == pytest.approx(counted[2].sum() / counted[1].sum())
    assert {one["comparisons"][0]["decision"] for one in found.values()} == {"undecided"}
    assert "discovery" in found["bought"]["comparisons"][0] and "discovery" not in found["ctr"]["comparisons"][0]


def test_what_is_wrong_with_the_data_is_counted_left_out_and_said() -> None:
    world = World(5, n=1000)
    unit, name, at, value = world.clicks()
    table = events([(unit, name, at, value)])
    crossing = exposures(world.units[:50], 1 - world.arm[:50], world.at[:50] + HOUR)
    again = exposures(world.units[100:200], world.arm[100:200], world.at[100:200] + HOUR)
    stranger = pa.table({"at_us": [SINCE], "arm": ["third"], "unit": ["x"]})
    late = events([(world.units[500:510], "click", np.full(10, UNTIL + 5), np.ones(10))])
    late = late.set_column(1, "event_id", pa.array([f"late{n}" for n in range(10)]))
    other = late.set_column(2, "unit", pa.array([f"nobody{n}" for n in range(10)])).set_column(
        1, "event_id", pa.array([f"other{n}" for n in range(10)])
    )
    early = events([(world.units[600:620], "click", world.at[600:620] - 1, np.ones(20))])
    early = early.set_column(1, "event_id", pa.array([f"early{n}" for n in range(20)]))
    found = build(
        experiment(CLICKS), pa.concat_tables([world.exposed(), crossing, again, stranger]),
        pa.concat_tables([table, table.slice(len(table) - 30), late, other, early]), since_us=SINCE, until_us=UNTIL, planned_units=5000,
    )  # fmt: skip
    quality = found["quality"]
    told = {key: quality[key] for key in quality if key not in ("exposures", "events")}
    crossed_events = int((unit < 50).sum())
    before_copies = int((unit[-30:] < 50).sum())
    assert told == {
        "repeated_exposures": 150, "exposures_of_unknown_arms": 1, "units_in_two_arms": 50, "repeated_events": 30 - before_copies,
        "events_of_others": 10 + crossed_events + before_copies, "events_before_exposure": 20,
        "late_events": 10 + int((at[unit >= 50] >= UNTIL).sum()),
    }  # fmt: skip
    assert sum(one["units"] for one in found["units"]) == 950
    text = " ".join(found["warnings"])
    for part in ("50 units", "two arms", "name an arm", "after the end", "more than once"):
        assert part in text


def test_a_wrong_split_is_the_first_thing_said() -> None:
    world = World(6, n=20_000, share=0.55)
    found = report(world, [world.clicks()], CLICKS)
    assert found["srm"]["verdict"] == "broken" and found["warnings"][0].startswith("The arms do not get the units")
    assert found["srm"]["p_value"] < 1e-3
    fair = report(World(6, n=20_000, share=0.55), [world.clicks()], CLICKS, weights=(4500, 5500))
    assert fair["srm"]["verdict"] == "fine"


def test_a_guardrail_is_breached_by_harm_and_not_by_luck_or_by_good() -> None:
    for harm, expected in ((2.0, True), (1.0, False), (0.3, False)):
        world = World(7)
        crashes = world.happen("crash", 0.1 * np.where(world.arm == 1, harm, 1.0))
        found = report(world, [crashes], CLICKS, guardrails=(CRASH,))
        assert found["guardrails"][0]["breached"] is expected, harm
        assert ("Guardrail crash is breached by new." in found["warnings"]) is expected


def test_two_layers_that_disturb_each_other_are_said() -> None:
    for disturbed in (True, False):
        world = World(8, n=8000)
        theirs = world.rng.integers(0, 2, world.n)
        bonus = 1 + 0.5 * (world.arm & theirs if disturbed else theirs)
        rows = [world.happen("click", world.taste * bonus)]
        there = exposures(world.units, theirs, world.at)
        neighbour = Neighbour("other", "second", ["control", "new"], there)
        found = report(world, rows, CLICKS, neighbours=[neighbour])
        assert [one["found"] for one in found["interactions"]] == [disturbed]
        assert any("depends on arm new of other" in text for text in found["warnings"]) is disturbed


def test_nobody_yet_is_a_report_too() -> None:
    nobody = pa.table(
        {"at_us": pa.array([], pa.int64()), "arm": pa.array([], pa.string()), "unit": pa.array([], pa.string())}
    )
    nothing = events([(np.array([], int), "click", np.array([]), np.array([]))])
    found = build(experiment(CLICKS, CTR, guardrails=(CRASH,)), nobody, nothing, since_us=SINCE, until_us=UNTIL)
    json.dumps(found, allow_nan=False)
    assert found["metrics"][0]["comparisons"][0]["decision"] == "too early"
    assert "Nobody has been exposed yet." in found["warnings"]
