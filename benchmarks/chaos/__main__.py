"""`python -m benchmarks.chaos`: what clients notice of moves, kills and too much load; a table for people, the last line is JSON."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from roblox_ml_core.http import Pool
from roblox_ml_core.records import read_accounts

from ..router.processes import free_port
from .world import BODY, Load, World, eventually

_SLOTS, _MS = 4, 10.0


def main() -> None:
    """Let things die."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=main.__doc__)
    parser.add_argument("--rate", type=float, default=1000, help="requests a second, over two doors")
    parser.add_argument("--seconds", type=float, default=3, help="of each phase")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rml-chaos-") as folder:
        home = Path(folder)
        os.environ["RML_HOME"] = folder
        world = World(home, free_port)
        try:
            for reason in world.disk.refused:
                print(f"not on this machine: {reason}")
            found = _deaths(world, options.rate, options.seconds) | _overload(world, options.seconds)
            found["fallbacks"] = sum(map(_fallbacks, world.doors))
            world.close()
            accounts = read_accounts(str(world.records))
        finally:
            world.gone()
    every = [one for streams in accounts.values() for one in streams.values()]
    offered = sum(streams["requests"].offered for streams in accounts.values())
    # Every request of the clients, and those few that waited for a door to answer, has a row that is written or counted as dropped.
    found["accounting_exact"] = offered >= found["requests"] and all(
        one.balanced and not one.lost and not one.buffered for one in every
    )
    print(json.dumps(found))


def _deaths(world: World, rate: float, seconds: float) -> dict[str, Any]:
    client, load = world.client, Load(world.doors, "feed", rate)
    found: dict[str, Any] = {"rate": rate}
    print(f"{'':44} {'requests':>9} {'failed':>7}   {rate:,.0f} requests a second over two doors")

    def phase(key: str, what: str, act: Callable[[], str]) -> None:
        sent, good = load.sent, load.outcomes["200"]
        said = act()
        eventually("the phase's time", lambda: load.sent - sent >= rate * seconds)
        eventually("its answers", lambda: sum(load.outcomes.values()) >= load.sent - 50)
        failed = sum(count for outcome, count in load.outcomes.items() if outcome != "200")
        found[f"failed_{key}"] = failed - sum(v for k, v in found.items() if k.startswith("failed_"))
        print(f"{what:44} {load.outcomes['200'] - good:>9,} {found[f'failed_{key}']:>7}   {said}", flush=True)

    def move() -> str:
        client.put_endpoint("feed", "feed", version=2)
        found["seconds_to_new_version"] = load.all_answer_with("2")
        return f"all doors after {found['seconds_to_new_version']:.2f} s"

    def back() -> str:
        client.rollback_endpoint("feed")
        found["seconds_to_roll_back"] = load.all_answer_with("1")
        return f"all doors after {found['seconds_to_roll_back']:.2f} s"

    def challenger() -> str:
        client.start_canary("feed", 3, share=3000)
        eventually("the canary answers", lambda: all("3" in v for v in load.versions(time.monotonic() - 0.5).values()))
        world.kill("challenger")
        return "a canary of 30 %"

    def shadow() -> str:
        client.end_canary("feed", "it died")
        client.put_shadow("feed", "next", "feed/4")
        load.more(int(rate / 2))
        world.kill("shadow")
        return "a shadow of all requests"

    def replica() -> str:
        world.kill("b")
        return "one of three"

    def disk() -> str:
        world.fill_disk()
        load.more(int(rate * seconds / 2))
        world.empty_disk()
        return f"of the records: {world.disk.about}"

    def plane() -> str:
        world.kill("plane")
        load.more(int(rate * seconds / 2))
        world.start_plane()
        eventually("control plane", client.ready)
        return "and started again"

    phase("alias_move", "endpoint moved", move)
    phase("rollback", "rolled back", back)
    phase("kill_challenger", "kill -9 of the challenger's server", challenger)
    phase("kill_shadow", "kill -9 of the shadow's server", shadow)
    phase("kill_replica", "kill -9 of a replica", replica)
    phase("full_disk", "full disk", disk)
    phase("kill_control_plane", "kill -9 of the control plane", plane)
    load.stop()
    found["full_disk_is_real"] = world.disk.real
    found["requests"], found["failed"] = load.sent, load.sent - load.outcomes["200"]
    odd = {outcome: count for outcome, count in load.outcomes.items() if outcome != "200"}
    if odd:
        print(f"what clients got instead: {odd}")
    return found


def _overload(world: World, seconds: float) -> dict[str, Any]:
    """Three times of what a model server can do: how much of it is still done."""
    state = world.register("slow", "slow")
    world.serve("slow", [state], str(_SLOTS), str(_MS))
    # Twice as many as run at once: the next ones are there when one ends.
    world.client.put_endpoint("slow", "slow", version=1, limits={"concurrency": 2 * _SLOTS})
    door = world.doors[:1]
    world.answers(door[0], "slow")
    capacity = asyncio.run(_capacity(world.address("slow"), seconds))
    load = Load(door, "slow", 3 * capacity)
    load.more(int(capacity))
    before, began = load.outcomes["200"], time.monotonic()
    time.sleep(2 * seconds)
    goodput = (load.outcomes["200"] - before) / (time.monotonic() - began) / capacity
    load.stop()
    refused, failed = load.outcomes["429"], load.sent - load.outcomes["200"] - load.outcomes["429"]
    print(
        f"{'3x overload (' + format(capacity, ',.0f') + ' a second can be done)':44} {load.outcomes['200']:>9,} {failed:>7}   "
        f"{goodput:.0%} of what can be done is done, {refused:,} told to come back"
    )
    return {"goodput_3x": round(goodput, 3), "refused_3x": refused, "failed_3x": failed}


def _fallbacks(door: str) -> float:
    """How often the champion answered for the challenger that died."""
    lines = httpx.get(f"{door}/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("rml_door_fallbacks_total{"))


async def _capacity(address: str, seconds: float) -> float:
    """Requests a second that the model server answers when nobody stands before it."""
    pool, ends = Pool(address), time.monotonic() + seconds
    done = 0

    async def ask() -> None:
        nonlocal done
        while time.monotonic() < ends:
            await pool.request(b"POST", b"/v2/models/slow.1/versions/1/infer", (), BODY, timeout=10)
            done += 1

    await asyncio.gather(*(ask() for _ in range(2 * _SLOTS)))
    await pool.close()
    return done / seconds


if __name__ == "__main__":
    main()
