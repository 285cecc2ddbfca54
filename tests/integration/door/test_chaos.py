"""Things die under load: what may be killed without one client noticing, with exact accounts of every request afterwards.

Real processes: a control plane, two doors, five model servers (their answers are scripted). Times are printed, not asserted.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from roblox_ml_core.records import read_accounts

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # benchmarks are no package that is installed

from benchmarks.chaos.world import Load, World, eventually


@pytest.fixture
def world(rml_home: Path, free_port: Callable[[], int]) -> Iterator[World]:
    found = World(rml_home, free_port)
    try:
        yield found
    finally:
        found.gone()


@pytest.mark.slow
def test_no_client_notices_what_dies_and_every_request_is_accounted_for(world: World, rml_home: Path) -> None:
    client, told, load = world.client, [], Load(world.doors, "feed", 200)
    load.more(100)

    client.put_endpoint("feed", "feed", version=2)
    told.append(f"moved to version 2: both doors after {load.all_answer_with('2'):.2f} s")
    client.rollback_endpoint("feed")
    told.append(f"rolled back to version 1: both doors after {load.all_answer_with('1'):.2f} s")

    client.start_canary("feed", 3, share=3000)
    eventually("the canary answers", lambda: all("3" in v for v in load.versions(time.monotonic() - 0.5).values()))
    world.kill("challenger")
    load.more(200)
    client.end_canary("feed", "it died")
    metrics = "".join(httpx.get(f"{door}/metrics").text for door in world.doors)
    assert 'rml_door_fallbacks_total{endpoint="feed",version="3"}' in metrics, "nobody met the dead challenger"

    client.put_shadow("feed", "next", "feed/4")
    load.more(200)
    world.kill("shadow")
    load.more(200)
    client.delete_shadow("feed", "next")

    world.kill("b")
    load.more(400)

    world.fill_disk()
    load.more(200)
    world.empty_disk()
    load.more(100)
    logs = [(rml_home / f"door{number}.log").read_text() for number in range(2)]
    told += [f"not on this machine: {reason}" for reason in world.disk.refused]
    told.append(f"a full disk: {world.disk.about}")
    assert not world.disk.real or all("[Errno 28] No space left on device" in text for text in logs), (
        "the kernel's word"
    )

    world.kill("plane")
    load.more(400)
    world.start_plane()
    eventually("control plane", client.ready)
    client.put_endpoint("feed", "feed", version=2)
    told.append(f"after a new control plane, moved: both doors after {load.all_answer_with('2'):.2f} s")

    load.stop()
    world.close()
    print("", *told, f"{load.sent} requests", sep="\n")
    assert dict(load.outcomes) == {"200": load.sent}
    accounts = read_accounts(str(world.records))
    assert len(accounts) == 2
    assert all(one.balanced and not one.buffered for streams in accounts.values() for one in streams.values())
    kept = [streams["requests"] for streams in accounts.values()]
    assert sum(one.offered for one in kept) >= load.sent + 2, "and those two that waited for the doors"
    assert sum(one.lost for one in kept) == 0
    assert sum(one.written for one in kept) == sum(one.offered for one in kept), (
        "nothing was dropped: the disk came back in time"
    )
    assert not list(world.records.glob("**/.*")), "a file that did not fit was left in part"
