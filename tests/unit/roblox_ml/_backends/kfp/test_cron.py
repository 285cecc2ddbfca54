"""Schedules as Kubeflow keeps them: the same moments, or a refusal that says why."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

import roblox_ml as rml
from roblox_ml._backends.kfp.cron import convert, shifted
from roblox_ml.errors import SubmitError

NOW = datetime(2026, 11, 22, tzinfo=UTC)
FIXED = (
    "UTC",
    "Asia/Kolkata",
    "Asia/Tokyo",
    "America/Phoenix",
    "Asia/Kathmandu",
    "Pacific/Kiritimati",
    "Pacific/Pago_Pago",
)


def field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    spans = st.tuples(number, number).map(lambda p: f"{min(p)}-{max(p)}")
    stretches = st.tuples(number, number).filter(lambda p: p[0] != p[1]).map(lambda p: f"{min(p)}-{max(p)}")
    steps = st.tuples(st.one_of(st.just("*"), stretches), st.integers(1, 6)).map(lambda p: f"{p[0]}/{p[1]}")
    lists = st.lists(number, min_size=1, max_size=3).map(lambda several: ",".join(map(str, several)))
    return st.one_of(st.just("*"), number.map(str), spans, steps, lists)


def moments(expression: str, zone: str, count: int = 40) -> list[datetime]:
    # A wall clock: in these zones it never jumps.
    clock = CronSim(expression, NOW.astimezone(ZoneInfo(zone)).replace(tzinfo=None))
    found = (next(clock).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC) for _ in range(count))
    return list(found)


@settings(max_examples=150, deadline=None)
@given(
    st.tuples(
        field(0, 59),
        field(0, 23),
        st.sampled_from(["*", "1", "15", "28"]),
        st.sampled_from(["*", "*", "6"]),
        field(0, 6),
    ),
    st.sampled_from(FIXED),
    st.sampled_from(FIXED),
)
def test_whatever_is_converted_means_the_same_moments(fields: tuple[str, ...], zone: str, server: str) -> None:
    expression = " ".join(fields)
    try:
        converted = convert(rml.cron(expression, tz=zone), server=server, now=NOW).cron
    except SubmitError as refusal:
        assert "cannot be written as one expression" in str(refusal)
        assert zone != server
        return
    second, _, rest = converted.partition(" ")
    assert second == "0" and len(rest.split()) == 5
    # Both sides must be asked over the same stretch: the days around it may be cut differently.
    ours, theirs = moments(expression, zone), moments(rest, server)
    until = min(ours[-1], theirs[-1])
    assert [m for m in ours if m <= until] == [m for m in theirs if m <= until]


@pytest.mark.parametrize(
    ("expression", "hours", "expected"),
    [
        ("0 3 * * *", -9, "0 18 * * *"),
        ("0 3 * * 1", -9, "0 18 * * 0"),
        ("0 3 1 * *", -9, None),  # the evening before the first
        ("0 12 1 * *", -9, "0 3 1 * *"),
        ("0 3,20 * * 1", -9, None),  # Sunday evening and Monday noon
        ("0 3,20 * * *", -9, "0 11,18 * * *"),
        ("*/15 * * * *", -9, "0,15,30,45 * * * *"),
    ],
)
def test_shifting(expression: str, hours: int, expected: str | None) -> None:
    assert shifted(expression, timedelta(hours=hours)) == expected


@pytest.mark.parametrize(
    ("options", "no_catchup", "at_once"),
    [
        ({}, True, 1),
        ({"catchup": "all", "overlap": "queue"}, False, 1),
        ({"overlap": "allow"}, True, 10),
        ({"catchup": "all", "overlap": "allow"}, False, 10),
    ],
)
def test_policies(options: dict[str, str], no_catchup: bool, at_once: int) -> None:
    got = convert(rml.cron("0 3 * * *", **options))  # type: ignore[arg-type]
    assert (got.no_catchup, got.max_concurrency) == (no_catchup, at_once)


@pytest.mark.parametrize(
    "options",
    [{"catchup": "none"}, {"overlap": "replace"}, {"overlap": "queue"}, {"catchup": "all"}],
)
def test_what_kubeflow_has_no_word_for_is_refused(options: dict[str, str]) -> None:
    with pytest.raises(SubmitError, match="cannot keep this schedule"):
        convert(rml.cron("0 3 * * *", **options))  # type: ignore[arg-type]


def test_jitter_is_a_second_that_a_name_always_gets() -> None:
    schedule = rml.cron("0 3 * * *", jitter="5m")
    seconds = {name: convert(schedule, name=name).cron.split()[0] for name in ("a", "b", "c", "d")}
    assert seconds == {name: convert(schedule, name=name).cron.split()[0] for name in seconds}
    assert len(set(seconds.values())) > 1 and all(0 <= int(s) < 60 for s in seconds.values())
    assert convert(rml.cron("0 3 * * *", jitter=1), name="a").cron.split()[0] in ("0", "1")
