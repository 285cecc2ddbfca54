"""Due times against an oracle that looks at every minute of the months in which clocks change."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from roblox_ml_core.errors import Invalid
from roblox_ml_platform.scheduling.schedule import Schedule, due_times, from_json, jitter, text_of

ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe")
SEASONS = (
    (datetime(2026, 2, 26, tzinfo=UTC).timestamp(), datetime(2026, 4, 8, tzinfo=UTC).timestamp()),
    (datetime(2026, 9, 29, tzinfo=UTC).timestamp(), datetime(2026, 11, 4, tzinfo=UTC).timestamp()),
)
BEGIN = SEASONS[0][0]


def _field(text: str, low: int, high: int) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        numbers = range(low, high + 1) if span == "*" else range(int(first), int(last or first) + 1)
        found |= set(numbers[:: int(step or 1)])
    return found


@cache
def _minutes(tz: str, begin: float, end: float) -> list[tuple[float, datetime]]:
    here = ZoneInfo(tz)
    return [(t, datetime.fromtimestamp(t, here)) for t in range(int(begin), int(end) + 1, 60)]


def oracle(cron: str, tz: str, begin: float, end: float) -> list[float]:
    """Every due time, from the definition: Debian's rules for fixed times, the wall clock for the rest."""
    minute, hour, day, month, weekday = cron.split()
    minutes, hours = _field(minute, 0, 59), _field(hour, 0, 23)
    days, months, weekdays = _field(day, 1, 31), _field(month, 1, 12), _field(weekday, 0, 6)
    both = day.startswith("*") or weekday.startswith("*")

    def on(moment: datetime) -> bool:
        a, b = moment.day in days, (moment.isoweekday() % 7) in weekdays
        return moment.month in months and ((a and b) if both else (a or b))

    def at(moment: datetime) -> bool:
        return on(moment) and moment.hour in hours and moment.minute in minutes

    def naive(moment: datetime) -> datetime:
        return moment.replace(tzinfo=None, fold=0)

    fixed = not (minute.startswith("*") or hour.startswith("*"))
    due: list[float] = []
    before: datetime | None = None
    seen: set[datetime] = set()
    for second, moment in _minutes(tz, begin, end):
        wall = naive(moment)
        skipped: list[datetime] = []
        if fixed and before is not None and wall - before > timedelta(minutes=1):
            gap = int((wall - before) / timedelta(minutes=1))
            skipped = [before + timedelta(minutes=n) for n in range(1, gap)]
        here = at(moment) and not (fixed and wall in seen)
        if (here or any(at(one) for one in skipped)) and second > begin:
            due.append(float(second))
        if fixed:
            seen.add(wall)
        before = wall
    return due


EXPRESSIONS = (
    "0 3 * * *", "30 2 * * *", "15,45 2 * * *", "30 1 * * *", "45 1 * * *", "10,20 2 * * *", "*/15 * * * *", "0 * * * *",
    "5 */2 * * *", "*/20 1-3 * * *", "0 0 1 * *", "0 12 31 * 5", "30 2 * * 0", "30 2-4 * * *", "0 0 29 2 *", "59 23 * * 1-5",
)  # fmt: skip


@pytest.mark.parametrize("tz", ZONES)
@pytest.mark.parametrize("cron", EXPRESSIONS)
def test_due_times_while_clocks_change(cron: str, tz: str) -> None:
    for begin, end in SEASONS:
        assert list(due_times(Schedule(cron, tz), begin, end)) == oracle(cron, tz, begin, end)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(EXPRESSIONS),
    st.sampled_from(ZONES),
    st.sampled_from([(3, 8), (3, 29), (10, 25), (11, 1), (4, 5), (10, 4), (6, 1)]),
    st.integers(-36 * 3600, 36 * 3600),
)
def test_starting_again_anywhere_changes_nothing(cron: str, tz: str, day: tuple[int, int], offset: int) -> None:
    """From each due time on, and from any second between: the same times follow."""
    begin = datetime(2026, *day, tzinfo=UTC).timestamp()
    schedule = Schedule(cron, tz)
    whole = list(islice(due_times(schedule, begin - 2 * 86_400, begin + 40 * 86_400), 400))
    after = begin + offset
    expected = [due for due in whole if due > after][:5]
    assert list(islice(due_times(schedule, after), len(expected))) == expected
    assert list(_one_by_one(schedule, begin - 2 * 86_400, min(30, len(whole)))) == whole[:30]


def _one_by_one(schedule: Schedule, after: float, count: int) -> Iterator[float]:
    for _ in range(count):
        after = next(due_times(schedule, after))
        yield after


def test_bounds() -> None:
    schedule = from_json(
        {"cron": "0 3 * * *", "tz": "Europe/Berlin", "start": "2026-03-28T03:00", "end": "2026-03-31T03:00"}
    )
    found = [text_of(due, schedule.tz) for due in due_times(schedule, BEGIN)]
    assert found == ["2026-03-28T03:00:00+01:00", "2026-03-29T03:00:00+02:00", "2026-03-30T03:00:00+02:00"]


@given(st.integers(0, 3600), st.text(max_size=20), st.integers(0, 2**31))
def test_jitter_is_fixed_and_bounded(width: int, key: str, due: int) -> None:
    schedule = Schedule("* * * * *", jitter_s=width)
    first = jitter(schedule, key, float(due))
    assert 0 <= first <= width and first == jitter(schedule, key, float(due))


def test_jitter_spreads() -> None:
    schedule = Schedule("0 * * * *", jitter_s=600)
    delays = [jitter(schedule, f"pipeline-{n}", 0.0) for n in range(600)]
    assert min(delays) < 60 and max(delays) > 540 and len(set(delays)) > 300


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"cron": "0 3 * *"}, "4 fields"),
        ({"cron": "0 25 * * *"}, "no cron expression"),
        ({"cron": "0 0 31 2 *"}, "ever comes"),
        ({"cron": "0 0 30 2 */2"}, "ever comes"),
        ({"cron": "0 3 * * *", "tz": "Mars/Olympus"}, "no time zone"),
        ({"cron": "0 3 * * *", "start": "soon"}, "no ISO date"),
        ({"cron": "0 3 * * *", "start": "2026-02-01", "end": "2026-01-01"}, "not before end"),
    ],
)
def test_what_is_refused(fields: dict[str, str], told: str) -> None:
    with pytest.raises(Invalid) as caught:
        from_json(fields)
    assert told in str(caught.value)


def test_question_mark_is_any() -> None:
    assert list(islice(due_times(Schedule("0 3 ? * *"), BEGIN), 3)) == list(
        islice(due_times(Schedule("0 3 * * *"), BEGIN), 3)
    )
