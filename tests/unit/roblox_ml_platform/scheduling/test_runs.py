"""Rows, claims, triggers and backfills over a real database, on a clock the test moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from roblox_ml_core.errors import Conflict, Invalid
from roblox_ml_platform.database import Database
from roblox_ml_platform.notifying import tables as events
from roblox_ml_platform.scheduling import backfills, claims, occurrences, schedules, tables
from roblox_ml_platform.scheduling.schedule import from_json
from roblox_ml_platform.scheduling.work import round_of
from sqlalchemy import select

T0 = 1_767_225_600.0
HOUR = 3600.0
LEASE = 30.0


def rows(database: Database, source: str) -> list[Any]:
    r = tables.scheduled_runs.c
    with database.read() as connection:
        query = select(tables.scheduled_runs).where(r.source == source).order_by(r.id)
        return list(connection.execute(query).mappings())


def states(database: Database, source: str) -> list[str]:
    return [row["state"] for row in rows(database, source)]


def claim(database: Database, at: float, slots: int = 10, instance: str = "i1", runner: str = "r") -> list[str]:
    with database.write() as connection:
        return [order["run"] for order in claims.claim(connection, runner, instance, slots, at, LEASE)]


def end(database: Database, run: str, at: float, state: str = "SUCCEEDED", instance: str = "i1") -> None:
    with database.write() as connection:
        claims.report(connection, "r", instance, run, state, "", at)


def test_a_queue_runs_one_after_another(database: Database, schedule: Callable[..., Any]) -> None:
    schedule("hourly", T0, "0 * * * *", catchup="all", overlap="queue")
    assert round_of(database, T0 + 3 * HOUR) == {"decided": 3, "late": 2}
    assert round_of(database, T0 + 3 * HOUR) == {}
    (first,) = claim(database, T0 + 3 * HOUR)
    assert claim(database, T0 + 3 * HOUR) == []
    end(database, first, T0 + 3 * HOUR)
    (second,) = claim(database, T0 + 3 * HOUR)
    assert [row["run"] for row in rows(database, "schedule:hourly")][:2] == [first, second]
    assert first == "hourly-20260101-010000-" + first[-8:]


def test_replace_cancels_what_runs_and_skips_what_waits(database: Database, schedule: Callable[..., Any]) -> None:
    schedule("hourly", T0, "0 * * * *", overlap="replace")
    for hour in (1, 2, 3):
        round_of(database, T0 + hour * HOUR)
        if hour == 1:
            with database.write() as connection:
                first = claims.claim(connection, "r", "i1", 1, T0 + HOUR, 9 * HOUR)[0]["run"]
    assert states(database, "schedule:hourly") == ["RUNNING", "SKIPPED", "WAITING"]
    assert claim(database, T0 + 3 * HOUR) == []
    with database.write() as connection:
        assert claims.heartbeat(connection, "r", "i1", [first], T0 + 3 * HOUR, LEASE) == {first: "cancel"}
    end(database, first, T0 + 3 * HOUR, "CANCELLED")
    assert len(claim(database, T0 + 3 * HOUR)) == 1


def test_leases(database: Database, schedule: Callable[..., Any]) -> None:
    """A restarted runner has its run back at once; a silent one loses it, is told so, and cannot report it."""
    schedule("hourly", T0, "0 * * * *")
    at = T0 + HOUR
    round_of(database, at)
    (run,) = claim(database, at)
    assert claim(database, at, instance="i2") == [run]
    with pytest.raises(Conflict):
        end(database, run, at, instance="i1")
    round_of(database, at + LEASE + 1)
    assert states(database, "schedule:hourly") == ["WAITING"]
    with database.write() as connection:  # nobody took it: the heartbeat renews the lease
        assert claims.heartbeat(connection, "r", "i2", [run], at + LEASE + 2, LEASE) == {run: "go"}
    round_of(database, at + 3 * LEASE)
    assert claim(database, at + 3 * LEASE, runner="other", instance="i3") == [run]
    with database.write() as connection:
        assert claims.heartbeat(connection, "r", "i2", [run], at + 3 * LEASE, LEASE) == {run: "lost"}
    with database.write() as connection:
        claims.report(connection, "other", "i3", run, "SUCCEEDED", "", at)
        assert claims.report(connection, "other", "i3", run, "SUCCEEDED", "", at)["state"] == "SUCCEEDED"


def test_a_late_claim_of_a_killed_runner_takes_nothing_from_its_successor(
    database: Database, schedule: Callable[..., Any]
) -> None:
    """It waited at the control plane when its process was killed, and is worked on after the next process began."""
    schedule("hourly", T0, "0 * * * *")
    round_of(database, T0 + HOUR)
    (run,) = claim(database, T0 + HOUR, instance="i2")
    with database.read() as connection:
        assert not claims.any_for(connection, "r", "i1") and claims.any_for(connection, "r", "i3")
    assert claim(database, T0 + HOUR, instance="i1") == []
    with database.write() as connection:
        assert claims.heartbeat(connection, "r", "i2", [run], T0 + HOUR, LEASE) == {run: "go"}


def test_a_run_that_ends_every_runner_is_given_up(database: Database, schedule: Callable[..., Any]) -> None:
    schedule("hourly", T0, "0 * * * *")
    round_of(database, T0 + HOUR)
    for attempt in range(claims.MAX_ATTEMPTS):
        assert len(claim(database, T0 + HOUR, instance=f"i{attempt}")) == 1
    assert claim(database, T0 + HOUR, instance="last") == []
    (row,) = rows(database, "schedule:hourly")
    assert row["state"] == "FAILED" and "5 times" in row["reason"]


def test_late_runs_are_told_once(database: Database, schedule: Callable[..., Any]) -> None:
    schedule("hourly", T0, "0 * * * *", late_after_s=60)
    round_of(database, T0 + HOUR)
    assert round_of(database, T0 + HOUR + 59) == {}
    assert round_of(database, T0 + HOUR + 61) == {"late": 1}
    assert round_of(database, T0 + HOUR + 62) == {}
    claim(database, T0 + HOUR + 63)
    with database.read() as connection:
        told = connection.execute(select(events.events.c.type, events.events.c.subject)).tuples().all()
    assert [type for type, _ in told] == ["run.late"] and told[0][1]["due"] == "2026-01-01T01:00:00+00:00"
    assert rows(database, "schedule:hourly")[0]["late"]


def test_pause_lists_and_resume_does_not_make_up(database: Database, schedule: Callable[..., Any]) -> None:
    schedule("hourly", T0, "0 * * * *", catchup="all")
    with database.write() as connection:
        assert schedules.pause(connection, "hourly", True, actor="ann", at=T0)["next"] == []
    round_of(database, T0 + 2 * HOUR)
    with database.write() as connection:
        shown = schedules.pause(connection, "hourly", False, actor="ann", at=T0 + 2 * HOUR)
    assert [one["due"] for one in shown["next"][:1]] == ["2026-01-01T03:00:00+00:00"] and len(shown["next"]) == 10
    round_of(database, T0 + 3 * HOUR)
    assert [row["state"] for row in rows(database, "schedule:hourly")] == ["SKIPPED", "SKIPPED", "WAITING"]


def test_a_changed_schedule_begins_now_and_the_same_one_changes_nothing(
    database: Database, schedule: Callable[..., Any]
) -> None:
    schedule("hourly", T0, "0 * * * *", catchup="all", overlap="allow")
    schedule("hourly", T0 + 3 * HOUR, "0 * * * *", catchup="all", overlap="allow")
    assert round_of(database, T0 + 3 * HOUR)["decided"] == 3
    schedule("hourly", T0 + 3.5 * HOUR, "30 * * * *", catchup="all", overlap="allow")
    round_of(database, T0 + 5 * HOUR)
    assert [row["due"] - T0 for row in rows(database, "schedule:hourly")] == [HOUR, 2 * HOUR, 3 * HOUR, 4.5 * HOUR]


def test_a_backfill_of_sixty_days(database: Database, schedule: Callable[..., Any]) -> None:
    schedule("daily", T0, "0 3 * * *", tz="Europe/Berlin")
    round_of(database, T0 + 3 * HOUR)
    ask: dict[str, Any] = {
        "concurrency": 4,
        "arguments": {"day": "{date}"},
        "rerun": False,
        "again": False,
        "actor": "a",
    }
    plan = from_json({"cron": "0 3 * * *", "tz": "Europe/Berlin"})
    with database.write() as connection:
        made = backfills.create(connection, "daily", plan, "2026-01-01", "2026-03-01", **ask)
    source = f"backfill:{made['id']}"
    assert made["total"] == 60 and states(database, source).count("SKIPPED") == 1  # the schedule has that one
    assert made["runs"][-1]["due"] == "2026-03-01T03:00:00+01:00"
    assert len([run for run in claim(database, T0 + 3 * HOUR, slots=100) if run.startswith("daily-")]) == 5
    with database.write() as connection:
        again = backfills.create(connection, "daily", plan, "2026-01-01", "2026-03-01", **ask)
    assert (again["id"], again["created"]) == (made["id"], False)
    for row in rows(database, source):
        if row["state"] == "RUNNING":
            end(database, row["run"], T0, "FAILED")
    with database.write() as connection:
        assert backfills.retry(connection, made["id"], actor="a")["counts"] == {"WAITING": 59, "SKIPPED": 1}
    with database.write() as connection:
        assert claims.claim(connection, "r", "i1", 1, T0, LEASE)[0]["retry"]
        # Four had begun, and one has begun again: a runner must end it; what never began is skipped.
        assert backfills.cancel(connection, made["id"], actor="a")["counts"] == {
            "SKIPPED": 56,
            "WAITING": 3,
            "RUNNING": 1,
        }
    with database.write() as connection, pytest.raises(Invalid, match="more than 10000"):
        backfills.create(connection, "daily", from_json({"cron": "* * * * *"}), "2026-01-01", "2026-03-01", **ask)


def test_a_backfill_looks_back(
    database: Database, schedule: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a range that ends later than now only what has come is run; one that is all to come is refused."""
    schedule("daily", T0, "0 3 * * *")
    monkeypatch.setattr(backfills, "now", lambda: T0 + 26 * HOUR)  # 02:00 of January 2nd
    plan = from_json({"cron": "0 3 * * *"})
    ask: dict[str, Any] = {"concurrency": 1, "arguments": {}, "rerun": False, "again": False, "actor": "a"}
    with database.write() as connection:
        made = backfills.create(connection, "daily", plan, "2025-12-31", "2026-01-05", **ask)
    assert [run["due"][:10] for run in made["runs"]] == ["2025-12-31", "2026-01-01"]
    with database.write() as connection, pytest.raises(Invalid, match=r"no due times .* that have come"):
        backfills.create(connection, "daily", plan, "2026-01-02", "2026-01-05", **ask)


def test_triggers_once_each_and_circles_are_refused(database: Database, publish: Callable[..., Any]) -> None:
    publish("a")
    publish("b", {"kind": "run", "subject": "a", "state": "SUCCEEDED"})
    publish("c", {"kind": "run", "subject": "b", "state": "SUCCEEDED"})
    with pytest.raises(Invalid, match="a → b → c → a"):
        publish("a", {"kind": "run", "subject": "c", "state": "SUCCEEDED"})
    for _ in range(2):
        with database.write() as connection:
            occurrences.run_ended(connection, "a", "a-1", "SUCCEEDED", T0)
            occurrences.run_ended(connection, "a", "a-2", "FAILED", T0)
        round_of(database, T0)
    assert states(database, "trigger:b") == ["WAITING"]
    end(database, claim(database, T0)[0], T0)
    round_of(database, T0)
    assert states(database, "trigger:c") == ["WAITING"] and rows(database, "trigger:c")[0]["chain"] == 2


def test_a_loop_that_nobody_could_see_ends(database: Database, publish: Callable[..., Any]) -> None:
    """A pipeline that makes the very thing it waits for."""
    publish("loop", {"kind": "alias", "subject": "m@champion"})
    cause = ""
    for turn in range(20):
        with database.write() as connection:
            occurrences.note(connection, "alias", "m@champion", f"m@champion#{turn}", T0, cause=cause)
        round_of(database, T0)
        if not (runs := claim(database, T0)):
            break
        cause = runs[0]
        end(database, cause, T0)
    assert states(database, "trigger:loop") == ["SUCCEEDED"] * occurrences.MAX_CHAIN + ["SKIPPED"]
    publish("busy", {"kind": "dataset", "subject": "d", "seen": 0})
    for turn in range(1, occurrences.MAX_PER_HOUR + 3):
        with database.write() as connection:
            occurrences.dataset_grew(connection, "d", turn, T0)
        round_of(database, T0)
    found = states(database, "trigger:busy")
    assert found.count("WAITING") == occurrences.MAX_PER_HOUR and found[-1] == "SKIPPED"


def test_what_came_due_before_a_schedule_was_changed_is_listed(schedule: Any, database: Database) -> None:
    """Nobody looked between the due times and the change: a control plane that was down, a start that was put off."""
    first = 1_795_000_000.0 // 3600 * 3600
    schedule("p", first + 60, "0 * * * *")
    for cron in ("30 * * * *", "30 * * * *"):  # the same again changes nothing
        schedule("p", first + 2 * 3600 + 60, cron)
    with database.read() as connection:
        told = [(one["state"], one["reason"]) for one in schedules.history(connection, "p", limit=9)]
    assert told == [("SKIPPED", "the schedule was changed before it was started")] * 2
