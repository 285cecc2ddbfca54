"""Which server takes the next request, and what becomes of servers that come, move and go."""

from __future__ import annotations

import asyncio
from collections import Counter

from roblox_ml_serving.door.fleet import Fleet
from roblox_ml_serving.door.snapshot import build, resolve


def world(fleet: Fleet, **servers: tuple[str, dict[str, str]]):
    """Adopt servers given as name = (address, ready); returns the target of endpoint e."""
    document = {
        "schema": 2, "generation": 1, "policy": {"endpoints": {"e": {"model": "m", "version": 1, "digest": "d"}}},
        "servers": {name: {"http": address, "grpc": address, "ready": ready} for name, (address, ready) in servers.items()},
    }  # fmt: skip
    snapshot = build(document)
    fleet.update(snapshot)
    return resolve(snapshot, "e")


HAS = {"m/1": "d"}


def run(coroutine) -> None:
    asyncio.run(asyncio.wait_for(coroutine, 20))


def test_ready_servers_share_the_load_and_a_busy_one_gets_less() -> None:
    async def main() -> None:
        fleet = Fleet()
        target = world(fleet, a=("h:1", HAS), b=("h:2", HAS), c=("h:3", {}), d=("h:4", HAS))
        chosen = Counter(fleet.choose(target).name for _ in range(300))
        assert set(chosen) == {"a", "b", "d"} and min(chosen.values()) > 30
        busy = fleet.choose(target)
        busy.health.in_flight = 9
        for name in "abd":
            fleet._servers[name].health.since -= 60  # nobody warms up any more
        # Of two drawn at random the better one: the worst of all is never it.
        assert busy.name not in {fleet.choose(target).name for _ in range(100)}
        await fleet.close()

    run(main())


def test_a_server_that_lost_a_connection_is_left_out_while_there_is_another() -> None:
    async def main() -> None:
        fleet = Fleet()
        target = world(fleet, a=("h:1", HAS), b=("h:2", HAS))
        dead = fleet.choose(target)
        fleet.failed(dead, lost=True)
        (alive,) = {fleet.choose(target) for _ in range(20)}
        alive.health.in_flight = 50  # the other fails fast, so it would always look the least busy
        assert alive is not dead and {fleet.choose(target) for _ in range(20)} == {alive}
        assert fleet.choose(target, avoid=[alive]) is dead
        assert fleet.choose(target, avoid=[alive, dead]) is None
        for _ in range(3):  # slow answers leave nobody out who is among the last half
            fleet.failed(alive, lost=False)
        assert {fleet.choose(target) for _ in range(20)} == {alive}
        await fleet.close()

    run(main())


def test_servers_are_kept_while_their_address_stays_and_closed_when_they_go() -> None:
    async def main() -> None:
        fleet = Fleet()
        first = fleet.choose(world(fleet, a=("h:1", HAS)))
        assert fleet.choose(world(fleet, a=("h:1", HAS), b=("h:2", {}))) is first
        moved = fleet.choose(world(fleet, a=("h:9", HAS)))
        assert moved is not first and moved.address.http == "h:9"
        gone = world(fleet, a=("h:9", HAS))
        world(fleet)
        assert fleet.choose(gone) is None
        await fleet.close()

    run(main())


def test_a_server_with_a_misprinted_address_keeps_nobody_else_from_the_news() -> None:
    async def main() -> None:
        fleet = Fleet()
        for bad in ("", "host:99999", "http://h:1/path"):
            target = world(fleet, a=("h:1", HAS), b=(bad, HAS))
            assert {fleet.choose(target).name for _ in range(9)} == {"a"}
        target = world(fleet, a=("h:1", HAS), b=("h:2", HAS))
        assert {fleet.choose(target).name for _ in range(99)} == {"a", "b"}
        await fleet.close()

    run(main())
