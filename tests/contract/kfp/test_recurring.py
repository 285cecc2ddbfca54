"""Recurring runs: always six fields, in the server's zone; published again, changed, paused, removed, and never two at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import roblox_ml as rml
from roblox_ml._build import Built
from roblox_ml.errors import SubmitError

sys.path.insert(0, str(Path(__file__).parent))
from support import built


@rml.step
def count(day: str, n: int) -> int: ...


def nightly(day: str = rml.due_date, n: int = 1) -> None:
    count(day, n)


def ready(**arguments: Any) -> Built:
    return built(nightly, **{"n": 1, **arguments})


def undated() -> Built:
    """A pipeline in whose arguments no date has to be filled in."""
    return ready(day="2026-11-22")


@pytest.fixture
def kubeflow(server: Any) -> Any:
    return rml.connect(server.url, experiment="schedules")


def stored(server: Any) -> list[dict[str, Any]]:
    return list(server.state.recurring.values())


def test_five_fields_become_six(server: Any, kubeflow: Any) -> None:
    """The trap: five fields are accepted, and `0 3 * * *` then means minute 3 of every hour."""
    made = kubeflow.recur(ready(), rml.cron("0 3 * * *"))
    (one,) = stored(server)
    assert one["trigger"] == {"cron_schedule": {"cron": "0 0 3 * * *"}}
    assert (one["display_name"], one["max_concurrency"], one["no_catchup"], one["status"]) == (
        "nightly",
        "1",
        True,
        "ENABLED",
    )
    sent = {"n": 1, "day": "[[ScheduledTime.2006-01-02]]"}  # the default of `day` is the due date
    assert one["runtime_config"]["parameters"] == sent
    assert made.cron == "0 0 3 * * *" and made.enabled and made.arguments == sent
    assert all(len(b["trigger"]["cron_schedule"]["cron"].split()) == 6 for b in server.state.bodies if "trigger" in b)


def test_the_same_again_changes_nothing(server: Any, kubeflow: Any) -> None:
    first = kubeflow.recur(ready(), rml.cron("0 3 * * *"))
    before = len(server.state.uploads)
    assert kubeflow.recur(ready(), rml.cron("0 3 * * *")).id == first.id
    assert len(stored(server)) == 1 and len(server.state.uploads) == before


@pytest.mark.parametrize("change", ["cron", "arguments", "policy"])
def test_a_change_never_leaves_two_that_are_on(server: Any, kubeflow: Any, change: str) -> None:
    first = kubeflow.recur(ready(), rml.cron("0 3 * * *"))
    seen: list[int] = []
    server.state.watchers.append(lambda *_: seen.append(sum(r["status"] == "ENABLED" for r in stored(server))))
    new = {
        "cron": (ready(), rml.cron("0 4 * * *")),
        "arguments": (ready(n=2), rml.cron("0 3 * * *")),
        "policy": (ready(), rml.cron("0 3 * * *", overlap="allow")),
    }[change]
    second = kubeflow.recur(*new)
    assert second.id != first.id and [r["recurring_run_id"] for r in stored(server)] == [second.id]
    assert max(seen) == 1 and seen[-1] == 1


@pytest.mark.parametrize("dies_at", ["POST /recurringruns", "DELETE"])
def test_what_dies_in_the_middle_is_finished_by_the_next_publish(
    server: Any, kubeflow: Any, monkeypatch: pytest.MonkeyPatch, dies_at: str
) -> None:
    first = kubeflow.recur(ready(), rml.cron("0 3 * * *"))
    method = "create_recurring_run" if "POST" in dies_at else "delete_recurring_run"

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(kubeflow.client, method, killed)
        with pytest.raises(KeyboardInterrupt):
            kubeflow.recur(ready(), rml.cron("0 4 * * *"))
    on = [r for r in stored(server) if r["status"] == "ENABLED"]
    assert len(on) == 1  # the old one again, or the new one
    if "POST" in dies_at:
        assert on[0]["recurring_run_id"] == first.id
    kubeflow.recur(ready(), rml.cron("0 4 * * *"))
    (only,) = stored(server)
    assert only["trigger"]["cron_schedule"]["cron"] == "0 0 4 * * *" and only["status"] == "ENABLED"


def test_pause_goes_on_and_delete(server: Any, kubeflow: Any) -> None:
    one = kubeflow.recur(ready(), rml.cron("0 3 * * *"))
    one.disable()
    assert not one.enabled and server.state.fire(one.id) == (0, None)
    # Published again unchanged it stays paused: nobody asked for it to start.
    assert not kubeflow.recur(ready(), rml.cron("0 3 * * *")).enabled
    one.enable()
    assert server.state.fire(one.id)[0] == 200 and server.state.fire(one.id) == (0, None)  # the first still runs
    assert [r.id for r in kubeflow.recurring_runs("nightly")] == [one.id]
    one.delete()
    assert kubeflow.recurring_runs() == []
    with pytest.raises(SubmitError, match="404"):
        one.enable()


def test_a_recurring_run_that_somebody_else_made_is_left_alone(server: Any, kubeflow: Any) -> None:
    experiment = kubeflow.client.create_experiment("schedules").experiment_id
    kubeflow.recur(ready(), rml.cron("0 3 * * *"))
    version = stored(server)[0]["pipeline_version_reference"]
    kubeflow.client.create_recurring_run(
        experiment,
        "nightly",
        cron_expression="0 0 5 * * *",
        pipeline_id=version["pipeline_id"],
        version_id=version["pipeline_version_id"],
    )
    kubeflow.recur(ready(), rml.cron("0 4 * * *"))
    assert sorted(r["trigger"]["cron_schedule"]["cron"] for r in stored(server)) == ["0 0 4 * * *", "0 0 5 * * *"]


def test_due_dates_are_the_servers_macro(server: Any, kubeflow: Any) -> None:
    kubeflow.recur(ready(day=rml.due_date), rml.cron("0 3 * * *"))
    assert stored(server)[0]["runtime_config"]["parameters"]["day"] == "[[ScheduledTime.2006-01-02]]"
    with pytest.raises(SubmitError, match=r"rml\.due_date alone"):
        kubeflow.recur(ready(day="{due:%H}"), rml.cron("0 3 * * *"))
    with pytest.raises(SubmitError, match="not the date in the schedule's zone"):
        kubeflow.recur(ready(day=rml.due_date), rml.cron("0 3 * * *", tz="Asia/Kolkata"))


def test_bounds_and_zone_are_sent_in_utc(server: Any, kubeflow: Any) -> None:
    kubeflow.recur(undated(), rml.cron("30 8 * * *", tz="Asia/Kolkata", start="2026-12-01", end="2027-01-01T12:00"))
    assert stored(server)[0]["trigger"]["cron_schedule"] == {
        "cron": "0 0 3 * * *",
        "start_time": "2026-11-30T18:30:00Z",
        "end_time": "2027-01-01T06:30:00Z",
    }


def test_a_zone_with_summer_time_needs_a_server_in_that_zone(server: Any, kubeflow: Any) -> None:
    berlin = rml.cron("0 3 * * *", tz="Europe/Berlin")
    with pytest.raises(SubmitError, match="Europe/Berlin") as caught:
        kubeflow.recur(ready(), berlin)
    assert "CRON_SCHEDULE_TIMEZONE" in str(caught.value) and stored(server) == []
    there = rml.connect(server.url, timezone="Europe/Berlin")
    assert there.recur(ready(), berlin).cron == "0 0 3 * * *"


def test_parameters_are_checked_before_a_schedule_fails_every_night(server: Any, kubeflow: Any) -> None:
    with pytest.raises(SubmitError, match="NUMBER_INTEGER"):
        kubeflow.recur(ready(n="many"), rml.cron("0 3 * * *"))
    assert stored(server) == []


@pytest.mark.parametrize(
    ("cron", "told"), [("not a cron", "found 3"), ("0 0 3 * * * *", "found 7"), ("0 0 25 * * *", "25")]
)
def test_the_server_refuses_bad_expressions_in_its_words(server: Any, kubeflow: Any, cron: str, told: str) -> None:
    kubeflow.recur(ready(), rml.cron("0 3 * * *"))
    version = stored(server)[0]["pipeline_version_reference"]
    from roblox_ml._backends.kfp.api import told as in_our_words

    with pytest.raises(SubmitError, match=told), in_our_words(server.url):
        kubeflow.client.create_recurring_run(
            "e",
            "x",
            cron_expression=cron,
            pipeline_id=version["pipeline_id"],
            version_id=version["pipeline_version_id"],
        )


@rml.step
def add(n: int) -> int:
    return n + 1


@rml.pipeline(schedule="30 4 * * 1")
def weekly(n: int):
    add(n)


def test_publishing_a_pipeline_to_kubeflow_is_its_recurring_run(server: Any, kubeflow: Any) -> None:
    """The whole way, with real capture and locks."""
    made = weekly.publish(on=kubeflow, n=3)
    (one,) = stored(server)
    assert one["trigger"]["cron_schedule"]["cron"] == "0 30 4 * * 1" and one["runtime_config"]["parameters"] == {"n": 3}
    assert weekly.publish(on=kubeflow, n=3).id == made.id and len(server.state.uploads) == 1
