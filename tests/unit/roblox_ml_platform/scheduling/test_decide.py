"""The policies, and the one law: however the clock jumps, every due time gets exactly one decision, in order."""

from __future__ import annotations

from itertools import islice

from hypothesis import given, settings
from hypothesis import strategies as st
from roblox_ml_platform.scheduling.decide import Decision, Plan, plan
from roblox_ml_platform.scheduling.schedule import Schedule, due_times

T0 = 1_767_225_600.0  # 2026-01-01T00:00Z
HOUR = 3600.0


def hourly(now: float, active: int = 0, *, paused: bool = False, limit: int = 500, **fields: object) -> Plan:
    return plan(T0 + now * HOUR, Schedule("0 * * * *", **fields), "k", T0, active, paused=paused, limit=limit)  # type: ignore[arg-type]


def kinds(made: Plan) -> list[str]:
    return [decision.kind for decision in made.decisions]


def test_nothing_is_due() -> None:
    assert hourly(0.5) == Plan((), T0, T0 + HOUR)


def test_one_is_due() -> None:
    assert hourly(1) == Plan((Decision(T0 + HOUR, T0 + HOUR, "start"),), T0 + HOUR, T0 + 2 * HOUR)


def test_catch_up() -> None:
    assert kinds(hourly(3.1, catchup="latest")) == ["skip", "skip", "start"]
    assert kinds(hourly(3.1, catchup="none")) == ["skip", "skip", "start"]
    assert kinds(hourly(3.5, catchup="none")) == ["skip", "skip", "skip"]  # half an hour is later than late_after
    assert kinds(hourly(3.1, catchup="all", overlap="allow")) == ["start", "start", "start"]
    # Made up for one after another: they do not skip one another.
    assert kinds(hourly(3.1, catchup="all", overlap="skip")) == ["start", "queue", "skip"]
    assert kinds(hourly(3.5, catchup="all", overlap="skip")) == ["start", "queue", "queue"]


def test_overlap() -> None:
    assert kinds(hourly(1, 1, overlap="skip")) == ["skip"]
    assert kinds(hourly(1, 1, overlap="queue")) == ["queue"]
    assert kinds(hourly(1, 1, overlap="allow")) == ["start"]
    replaced = hourly(1, 1, overlap="replace").decisions
    assert [(d.kind, d.cancel_older) for d in replaced] == [("queue", True)]
    assert kinds(hourly(3.1, 1, overlap="replace", catchup="all")) == ["skip", "skip", "queue"]


def test_paused_due_times_are_listed() -> None:
    made = hourly(3, paused=True)
    assert kinds(made) == ["skip"] * 3 and {d.reason for d in made.decisions} == {"paused"}


def test_a_schedule_that_ends() -> None:
    made = hourly(9, end="2026-01-01T03:00", catchup="all", overlap="allow")
    assert len(made.decisions) == 2 and made.next_at is None


def test_a_batch_knows_that_more_is_to_come() -> None:
    made = hourly(5.1, limit=2)
    assert kinds(made) == ["skip", "skip"] and made.next_at is not None and made.next_at <= T0 + 5.1 * HOUR


@settings(max_examples=150, deadline=None)
@given(
    cron=st.sampled_from(["0 * * * *", "*/20 * * * *", "30 2 * * *", "15,45 1-3 * * *"]),
    tz=st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
    catchup=st.sampled_from(["none", "latest", "all"]),
    overlap=st.sampled_from(["skip", "queue", "allow", "replace"]),
    jitter_s=st.sampled_from([0, 300, 5400]),
    start=st.integers(0, 365),
    jumps=st.lists(st.tuples(st.floats(1, 50_000), st.integers(0, 2), st.booleans()), min_size=1, max_size=12),
    limit=st.sampled_from([1, 3, 500]),
)
def test_every_due_time_is_decided_exactly_once(
    cron: str,
    tz: str,
    catchup: str,
    overlap: str,
    jitter_s: int,
    start: int,
    jumps: list[tuple[float, int, bool]],
    limit: int,
) -> None:
    schedule = Schedule(cron, tz, jitter_s, catchup, overlap)  # type: ignore[arg-type]
    begin = now = decided = T0 + start * 24 * HOUR
    found: list[Decision] = []
    for length, active, paused in jumps:
        now += length
        while True:
            made = plan(now, schedule, "k", decided, active, paused=paused, limit=limit)
            found += made.decisions
            decided = made.decided
            if made.next_at is None or made.next_at > now:
                break
    assert [d.due for d in found] == list(islice(due_times(schedule, begin, decided), len(found) + 1))
    assert all(d.due <= d.start_at <= min(now, d.due + jitter_s) for d in found)
    assert all(d.reason for d in found if d.kind == "skip")
    if catchup == "all" and overlap in ("queue", "allow") and not any(paused for _, _, paused in jumps):
        assert not [d for d in found if d.kind == "skip"]
