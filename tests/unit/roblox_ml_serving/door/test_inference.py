"""One inference through everything that can go wrong behind it, on both its ways: at once over an idle connection, and in a task."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from roblox_ml_core.records import read_accounts
from roblox_ml_serving.door import fleet

GOOD = b'{"model_name":"sentiment.3"}'
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(GOOD), GOOD)
BODY = {"inputs": []}
Act = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Upstream:
    """A model server that answers `warm` requests well, and then does what the test says with the connection."""

    def __init__(self, act: Act, warm: int = 0) -> None:
        self.act, self.warm = act, warm
        self.asked, self.connections = 0, 0
        self.came, self.gone = asyncio.Event(), asyncio.Event()
        self.models: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length")
                )
                await reader.readexactly(length)
                self.asked += 1
                self.models.append(head.split(b"/")[3].decode())
                if self.asked <= self.warm:
                    writer.write(ANSWER)
                    continue
                self.came.set()
                await self.act(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def waits_for_the_end(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not await reader.read():
            self.gone.set()
        raise ConnectionError


@asynccontextmanager
async def upstream(world: Any, found: Upstream, canary: bool = False, concurrency: int = 1):
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    ready = {"sentiment/3": "d3"} | ({"sentiment/8": "d8"} if canary else {})
    entry = dict(world.control.document["policy"]["endpoints"]["sentiment"])
    entry["limits"] = {"concurrency": concurrency}  # who forgets to give back what it took is refused the next time
    if canary:
        entry["canary"] = {"ref": "sentiment/8", "share": 10_000, "salt": "c"}
    document = {
        "schema": 2, "generation": world.control.document["generation"] + 1,
        "policy": {"endpoints": {"sentiment": entry}, "versions": {"sentiment/8": {"digest": "d8", "preprocess": None}}},
        "servers": {"mine": {"http": address, "grpc": "127.0.0.1:1", "ready": ready}},
    }  # fmt: skip
    world.control.publish(document)
    await until(world, f"rml_door_snapshot_generation {float(document['generation'])}")
    try:
        for _ in range(found.warm):
            assert (await world.infer(document=BODY)).status_code == 200
        yield found
    finally:
        server.close()


async def metrics(world: Any) -> str:
    return (await world.client.get(f"{world.url}/metrics")).text


async def until(world: Any, text: str) -> None:
    while text not in await metrics(world):
        await asyncio.sleep(0.005)


async def at_rest(world: Any, found: Upstream) -> None:
    """Nothing is counted as under way any more, and the next one is answered."""
    found.warm += 1_000_000
    assert (await world.infer(document=BODY)).status_code == 200
    text = await metrics(world)
    gauges = [line for line in text.splitlines() if line.startswith("rml_door_in_flight{")]
    assert gauges and all(line.endswith(" 0.0") for line in gauges), gauges


@pytest.fixture(params=[0, 1], ids=["in a task", "at once"])
def warm(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def test_a_client_that_goes_away_takes_its_question_back_from_the_model_server(with_world, warm, rml_home) -> None:
    async def scenario(world: Any) -> None:
        found = Upstream(None, warm)  # type: ignore[arg-type]
        found.act = found.waits_for_the_end
        async with upstream(world, found):
            host, _, port = world.url.removeprefix("http://").partition(":")
            _, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"POST /v2/models/sentiment/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}")
            await found.came.wait()
            writer.transport.abort()
            await found.gone.wait()
            await until(world, 'code="499",endpoint="sentiment"')
            await at_rest(world, found)

    with_world(scenario)
    assert balanced(rml_home)


async def close(reader: Any, writer: Any) -> None:
    raise ConnectionError


async def half(reader: Any, writer: Any) -> None:
    writer.write(ANSWER[:-5])
    await writer.drain()
    raise ConnectionError


async def garbage(reader: Any, writer: Any) -> None:
    writer.write(b"no HTTP at all\r\n\r\n")
    await writer.drain()


async def silence(reader: Any, writer: Any) -> None:
    await reader.read()
    raise ConnectionError


async def unknown(reader: Any, writer: Any) -> None:
    said = b'{"error":"Request for unknown model"}'
    writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: %d\r\n\r\n%s" % (len(said), said))


async def sick(reader: Any, writer: Any) -> None:
    writer.write(b'HTTP/1.1 500 x\r\ncontent-length: 17\r\n\r\n{"error":"broken}'[:-1] + b"}")


# what the model server does, the client's status, how often it was asked
FAULTS = {
    "closes": (close, 503, 2), "closes in the middle": (half, 503, 2), "speaks no HTTP": (garbage, 502, 1),
    "never answers": (silence, 504, 1), "does not hold the version": (unknown, 503, 2), "fails": (sick, 500, 1),
}  # fmt: skip


@pytest.mark.parametrize("what", FAULTS)
def test_what_a_model_server_does_wrong_is_told_within_the_deadline_and_asked_again_where_that_may_help(
    with_world, warm, what, rml_home
) -> None:
    act, status, attempts = FAULTS[what]

    async def scenario(world: Any) -> None:
        async with upstream(world, Upstream(act, warm)) as found:
            answer = await world.infer(document=BODY, x_rml_timeout_ms="300")
            assert answer.status_code == status, answer.text
            assert "error" in answer.text and answer.headers["x-rml-inference-id"]
            # A lost idle connection may have been stale: that one attempt is repeated unseen.
            assert found.asked - found.warm in (attempts, attempts + (warm and what == "closes"))
            await at_rest(world, found)

    with_world(scenario)
    assert balanced(rml_home)


def test_a_connection_that_had_gone_stale_is_nobody_s_failure(with_world, rml_home) -> None:
    async def scenario(world: Any) -> None:
        async def once(reader: Any, writer: Any) -> None:
            found.warm += 10  # the next connection works
            raise ConnectionError

        found = Upstream(once, 1)
        async with upstream(world, found):
            assert (await world.infer(document=BODY)).status_code == 200
            assert (found.asked, found.connections) == (3, 2)
            assert 'rml_door_retries_total{protocol="rest"}' not in await metrics(world)
            await at_rest(world, found)

    with_world(scenario)
    assert balanced(rml_home)


@pytest.mark.parametrize("what", FAULTS)
def test_a_canary_that_fails_is_replaced_by_the_champion_once_and_counted_as_failed(with_world, what, rml_home) -> None:
    act = FAULTS[what][0]

    async def scenario(world: Any) -> None:
        async def both(reader: Any, writer: Any) -> None:
            if found.models[-1] == "sentiment.8":
                await act(reader, writer)
            else:
                writer.write(ANSWER)

        found = Upstream(both)
        async with upstream(world, found, canary=True):
            for _ in range(3):
                answer = await world.infer(document=BODY, x_rml_timeout_ms="600", x_rml_unit="u")
                assert (answer.status_code, answer.json()) == (200, {"model_name": "sentiment"})
                assert (answer.headers["x-rml-model-version"], answer.headers["x-rml-fallback"]) == ("3", "1")
            text = await metrics(world)
            assert 'rml_door_fallbacks_total{endpoint="sentiment",version="8"} 3.0' in text
            assert 'rml_door_errors_total{endpoint="sentiment",protocol="rest",role="canary",version="8"} 3.0' in text
            assert found.models.count("sentiment.3") == 3
            await at_rest(world, found)

    with_world(scenario)
    assert balanced(rml_home)


def test_second_attempts_end_with_their_budget(with_world) -> None:
    async def scenario(world: Any) -> None:
        async with upstream(world, Upstream(close), concurrency=0) as found:
            answers = await asyncio.gather(*(world.infer(document=BODY) for _ in range(200)))
            assert {answer.status_code for answer in answers} == {503}
            # Each of the 200 may be asked once, the budget holds 100 and 0.1 for each request.
            assert 200 < found.asked <= 200 + 100 + 20 + 1
            await at_rest(world, found)

    with_world(scenario)


class Replica(Upstream):
    """One of several model servers: it can die, and come back where it was."""

    def __init__(self) -> None:
        super().__init__(close, warm=1_000_000)
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._remembered, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _remembered(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        await self.serve(reader, writer)

    async def die(self) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()


def test_a_dead_server_of_several_is_ejected_the_rest_answers_everything_it_comes_back_with_slow_start(
    with_world, rml_home, monkeypatch
) -> None:
    clock = SimpleNamespace(now=1000.0)  # the fleet's: nobody waits for pauses to end
    monkeypatch.setattr(fleet, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(fleet, "random", SimpleNamespace(getrandbits=Random(1).getrandbits))

    async def scenario(world: Any) -> None:
        replicas = [Replica() for _ in range(3)]
        for replica in replicas:
            await replica.start()
        addresses = {f"s{n}": f"127.0.0.1:{replica.port}" for n, replica in enumerate(replicas)}
        generation = world.control.document["generation"] + 1
        ready = {"sentiment/3": "d3"}
        servers = {name: {"http": at, "grpc": "127.0.0.1:1", "ready": ready} for name, at in addresses.items()}
        world.control.publish({**world.control.document, "generation": generation, "servers": servers})
        await until(world, f"rml_door_snapshot_generation {float(generation)}")

        async def asked() -> list[int]:
            """How many of the next 200 requests each one gets; every one is answered."""
            before = [replica.asked for replica in replicas]
            for _ in range(200):
                assert (await world.infer(document=BODY)).status_code == 200
            return [replica.asked - one for replica, one in zip(replicas, before, strict=True)]

        async def met() -> int:
            """How many requests have met the dead one."""
            line = next(one for one in (await metrics(world)).splitlines() if "rml_door_retries_total{" in one)
            return int(float(line.rpartition(" ")[2]))

        clock.now += 60  # none of them is new any more
        assert min(await asked()) > 40
        dead = replicas[1]
        await dead.die()
        first, none, third = await asked()
        assert (first + third, none) == (200, 0) and min(first, third) > 60
        assert await met() == 1
        clock.now += 1.01  # the pause is over: it is tried, and dead still
        await asked()
        assert await met() == 2, "it was left alone again at once"
        await dead.start()
        clock.now += 1.5  # this time the pause is two seconds
        assert (await asked())[1] == 0, "it is back, and nobody knows"
        clock.now += 0.6
        shares = []
        for _ in range(3):
            shares.append((await asked())[1])
            clock.now += 2.5
        assert 0 < shares[0] < 20 < shares[1] < 50 < shares[2], f"a tenth, half, all of its third: {shares}"
        assert await met() == 2
        for replica in replicas:
            await replica.die()

    with_world(scenario)
    assert balanced(rml_home)


def balanced(rml_home: Any) -> bool:
    accounts = [one for streams in read_accounts(str(rml_home / "records")).values() for one in streams.values()]
    return bool(accounts) and all(one.balanced and not one.buffered for one in accounts)
