"""Published pipelines run by real processes: control plane, runner, steps; killed and started again."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import pytest

import roblox_ml as rml
from roblox_ml.errors import Conflict, NotFound


@pytest.mark.slow
def test_a_backfill_of_sixty_days_survives_kills_of_runner_and_control_plane(
    world: Any, pipelines: Callable[[str], Any], eventually: Callable[..., Any]
) -> None:
    """Every day has exactly one run, whatever was killed meanwhile."""
    published = pipelines("nightly").publish(folder=str(world.ran), seconds=0.1)
    assert published.version == 1 and published.schedule.tz == "Europe/Berlin" and len(published.next) == 10
    world.start_runner()
    made = rml.backfill("nightly", "2026-02-01", "2026-04-01", concurrency=3, wait=False)
    assert made.total == 60

    def reached(count: int) -> Callable[[], bool]:
        return lambda: made.refresh().counts.get("SUCCEEDED", 0) >= count and made.counts.get("RUNNING", 0) > 0

    for count in (3, 20):
        eventually(reached(count), 200)
        world.kill_runner()
        world.start_runner()
    eventually(reached(30), 200)
    world.plane.kill()
    world.plane.start()
    # The same words while it goes on: the same backfill.
    again = rml.backfill("nightly", "2026-02-01", "2026-04-01", concurrency=3, wait=False)
    assert again.id == made.id and not again.created
    made.wait(400)
    assert made.counts == {"SUCCEEDED": 60}
    first = date(2026, 2, 1)
    days = [str(first + timedelta(days=n)) for n in range(60)]
    assert [run["due"][:10] for run in made.runs] == days
    ran = Counter(world.ran_days())
    assert sorted(ran) == days
    assert len(list(rml.runs("nightly", limit=100))) == 60
    for run in made.runs:
        record = rml.get_run(run["run"])
        assert record.state == "SUCCEEDED" and record.arguments["day"] == run["due"][:10]
        # A step that was killed is run again, as retry() would; one whose end was written down is not.
        events = map(json.loads, (record.path / "events.jsonl").read_text().splitlines())
        assert 1 <= ran[run["due"][:10]] <= sum(event["event"] == "task_started" for event in events)
    assert made.runs[days.index("2026-03-29")]["due"] == "2026-03-29T03:00:00+02:00"


def unpublished(name: str) -> bool:
    try:
        rml.unpublish(name)
    except Conflict as refused:
        assert "is running" in str(refused)
        return False
    return True


def test_triggers(world: Any, pipelines: Callable[[str], Any], eventually: Callable[..., Any]) -> None:
    """A new version of a data set and the end of another pipeline's run start a pipeline, which reads the newest data."""
    rml.datasets.add("comments", {"a.txt": b"x"})
    pipelines("follows").publish(folder=str(world.ran))
    pipelines("nightly").publish(folder=str(world.ran))
    world.start_runner()
    rml.datasets.add("comments", {"a.txt": b"xyz"})
    eventually(lambda: world.ran_days() == ["size-3"])
    rml.datasets.add("comments", {"a.txt": b"wxyz"})
    eventually(lambda: world.ran_days() == ["size-3", "size-4"])
    rml.backfill("nightly", "2026-01-01", "2026-01-01")
    eventually(lambda: world.ran_days() == ["2026-01-01", "size-3", "size-4", "size-4"])
    runs = list(rml.runs("follows"))
    assert len(runs) == 3 and all(run.state == "SUCCEEDED" for run in runs)
    eventually(lambda: unpublished("follows"))  # the runner reports the last one's end a moment later
    assert rml.schedules().rows()[0][0] == "nightly" and len(list(rml.runs("follows"))) == 3
    with pytest.raises(NotFound, match="follows"):
        rml.unpublish("follows")
