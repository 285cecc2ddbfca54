"""Published pipelines run by real processes: control plane, runner, steps; killed and started again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import roblox_ml as rml


def test_a_backfill_survives_kills_of_runner_and_control_plane(
    world: Any, pipelines: Callable[[str], Any], eventually: Callable[..., Any]
) -> None:
    """Every day ran exactly once, whatever was killed meanwhile."""
    published = pipelines("nightly").publish(folder=str(world.ran), seconds=0.3)
    assert published.version == 1 and published.schedule.tz == "Europe/Berlin" and len(published.next) == 10
    world.start_runner()
    made = rml.backfill("nightly", "2026-03-26", "2026-03-31", concurrency=3, wait=False)
    assert made.total == 6
    eventually(lambda: made.refresh().counts.get("RUNNING"))
    world.kill_runner()
    world.start_runner()
    eventually(lambda: made.refresh().counts.get("SUCCEEDED"))
    world.plane.kill()
    world.plane.start()
    # The same words while it goes on: the same backfill.
    again = rml.backfill("nightly", "2026-03-26", "2026-03-31", concurrency=3, wait=False)
    assert again.id == made.id and not again.created
    made.wait(120)
    assert made.counts == {"SUCCEEDED": 6}
    days = [f"2026-03-{day}" for day in range(26, 32)]
    assert sorted(set(world.ran_days())) == days
    for run in made.runs:
        record = rml.get_run(run["run"])
        # A step that was killed is run again, as retry() would; one that had finished is not.
        assert record.state == "SUCCEEDED" and record.arguments["day"] == run["due"][:10]
        assert len([d for d in world.ran_days() if d == run["due"][:10]]) == 1
    assert made.runs[3]["due"] == "2026-03-29T03:00:00+02:00"


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
