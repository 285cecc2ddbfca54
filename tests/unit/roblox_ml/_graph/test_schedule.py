"""What a schedule and a trigger say, what is refused, and how a due time gets into arguments."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

import roblox_ml as rml
from roblox_ml._graph.schedule import CATCHUP, OVERLAP, Schedule, Trigger, fill, is_template


def test_a_schedule_with_everything() -> None:
    schedule = rml.cron("0  3 * * *", tz="Europe/Berlin", jitter="5m", catchup="all", overlap="queue", late_after="2h")
    assert schedule == Schedule("0 3 * * *", "Europe/Berlin", 300, "all", "queue", 7200)
    assert str(schedule) == "0 3 * * * Europe/Berlin" and str(rml.cron("0 3 * * *")) == "0 3 * * *"


@given(
    st.builds(
        Schedule,
        cron=st.sampled_from(["0 3 * * *", "*/5 * * * 1-5"]),
        tz=st.sampled_from(["UTC", "Australia/Lord_Howe"]),
        jitter_s=st.integers(0, 86_400),
        catchup=st.sampled_from(CATCHUP),
        overlap=st.sampled_from(OVERLAP),
        late_after_s=st.integers(1, 10**6),
        start=st.none() | st.just("2026-01-01"),
        end=st.none() | st.just("2027-01-01T00:00:00+02:00"),
    )
)
def test_json_round_trip(schedule: Schedule) -> None:
    assert schedule.problems() == []
    assert Schedule.from_json({**schedule.to_json(), "of a later version": 1}) == schedule


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"tz": "Europe/Berln"}, "did you mean 'Europe/Berlin'"),
        ({"tz": "Lord_Howe"}, "Australia/Lord_Howe"),
        ({"tz": ""}, "no time zone"),
        ({"catchup": "some"}, "none, latest, all"),
        ({"overlap": "wait"}, "skip, queue, allow, replace"),
        ({"jitter": "5 minutes"}, "'5 minutes'"),
        ({"jitter": "2d"}, "outside 0–86400"),
        ({"late_after": 0}, "not positive"),
        ({"start": "tomorrow"}, "'tomorrow'"),
        ({"start": "2026-02-01", "end": "2026-01-01"}, "not before end"),
    ],
)
def test_what_is_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=r"rml\.cron") as caught:
        rml.cron("0 3 * * *", **options)
    assert told in str(caught.value)


def test_all_problems_at_once() -> None:
    with pytest.raises(ValueError, match=r"rml\.cron") as caught:
        rml.cron("0 3 * *", tz="Nowhere/Atall", catchup="x")
    assert all(told in str(caught.value) for told in ("4 fields", "Nowhere/Atall", "catchup 'x'"))


@pytest.mark.parametrize("expression", ["0 0 30 2 *", "0 0 31 4,6,9,11 *", "0 0 30/1 feb *"])
def test_a_day_that_never_comes_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match="never run"):
        rml.cron(expression)


@pytest.mark.parametrize("expression", ["0 0 29 2 *", "0 0 30 2 1", "0 0 31 1-6 *", "0 0 28-30 2 *"])
def test_a_day_that_comes_is_not(expression: str) -> None:
    assert rml.cron(expression).problems() == []


def test_triggers() -> None:
    found = [rml.on_dataset("comments"), rml.on_alias("sentiment@champion"), rml.on_run("prepare", state="FAILED")]
    assert found == [
        Trigger("dataset", "comments"),
        Trigger("alias", "sentiment@champion"),
        Trigger("run", "prepare", "FAILED"),
    ]
    assert str(found[2]) == "run prepare FAILED"
    wrong: list[Any] = [
        lambda: rml.on_dataset("a b"),
        lambda: rml.on_alias("sentiment/3"),
        lambda: rml.on_run("x", state="DONE"),
        lambda: rml.on_run("Not A Name"),
    ]
    for make in wrong:
        with pytest.raises(ValueError, match=r"rml\.on_"):
            make()


@rml.step
def work(day: str) -> str:
    return day


def nightly(day: str = rml.due_date) -> None:
    work(day)


def test_the_decorator_carries_and_checks_them() -> None:
    pipeline = rml.pipeline(name="decorated", schedule=rml.cron("0 3 * * *"), triggers=rml.on_dataset("comments"))(
        nightly
    )
    assert pipeline.schedule == Schedule("0 3 * * *") and pipeline.triggers == (Trigger("dataset", "comments"),)
    assert pipeline.trace()[1] == []
    (loop,) = rml.pipeline(name="loop", triggers=[rml.on_run("loop")])(nightly).trace()[1]
    assert loop.code == "trigger-loop"
    (bad,) = rml.pipeline(name="bad", triggers=["comments"])(nightly).trace()[1]  # type: ignore[list-item]
    assert bad.code == "bad-trigger" and "'comments'" in bad.message


def test_a_run_by_hand_is_due_today() -> None:
    built = rml.pipeline(name="by-hand")(nightly).build({})
    assert built.arguments == {"day": datetime.now(ZoneInfo("UTC")).strftime("%Y-%m-%d")}
    assert rml.pipeline(name="by-hand")(nightly).build({"day": "2026-01-02"}).arguments == {"day": "2026-01-02"}
    # What is compiled for no particular run keeps the question open.
    assert rml.due_date in rml.pipeline(name="by-hand")(nightly).build().ir.decode()


def test_a_due_time_in_arguments() -> None:
    due = datetime(2026, 3, 29, 4, 0, tzinfo=ZoneInfo("Europe/Berlin"))
    asked = {"a": "{date}", "b": "x/{due:%Y}/{due:%m}/", "c": "{due}", "d": '{"date": 1}', "e": 3, "f": ["{date}"]}
    assert fill(asked, due) == {
        "a": "2026-03-29",
        "b": "x/2026/03/",
        "c": "2026-03-29T04:00:00+02:00",
        "d": '{"date": 1}',
        "e": 3,
        "f": ["{date}"],
    }
    assert [is_template(v) for v in asked.values()] == [True, True, True, False, False, False]
