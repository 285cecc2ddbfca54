"""The dispatcher in virtual time, in front of servers whose service times are set: admission, retries, duplicates, overload."""

from __future__ import annotations

import asyncio
import importlib.util
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from roblox_ml_serving.text.batching import Cost, Queue, Row
from roblox_ml_serving.text.dispatch import BatchLost, Dispatcher, Expired, Overloaded

_SPEC = importlib.util.spec_from_file_location("virtual", Path(__file__).with_name("virtual.py"))
assert _SPEC is not None and _SPEC.loader is not None
virtual = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(virtual)


class Text(NamedTuple):
    ids: bytes
    length: int


class Servers:
    """Model servers of `instances` lanes; a batch takes its expected time times `slowness`."""

    def __init__(self, instances: int = 2, names: Sequence[str] = ("a",), slowness: float = 1.0) -> None:
        self._instances, self._names, self.slowness = instances, list(names), slowness
        self.cost = Cost(900, 190)
        self.batches: list[tuple[str, list[bytes]]] = []
        self.lose: Callable[[str, int], bool] = lambda server, number: False
        self._lanes: dict[str, asyncio.Semaphore] = {name: asyncio.Semaphore(instances) for name in names}

    def servers(self) -> list[str]:
        return self._names

    def instances(self, server: str) -> int:
        return self._instances

    async def compute(self, server: str, rows: Sequence[Row], deadline: float) -> list[bytes]:
        self.batches.append((server, [row.ids for row in rows]))
        number = len(self.batches)
        if self.lose(server, number):
            await asyncio.sleep(0.001)
            raise BatchLost(f"{server} lost batch {number}")
        async with self._lanes[server]:
            width = max(row.length for row in rows)
            await asyncio.sleep(self.cost.batch_us(len(rows), width) * 1e-6 * self.slowness)
        return [b"answer to " + row.ids for row in rows]

    @property
    def computed(self) -> list[bytes]:
        return [ids for _, rows in self.batches for ids in rows]


def dispatcher(servers: Servers) -> Dispatcher:
    return Dispatcher(servers, Queue((16, 24, 32, 48, 64), 512, Cost(900, 190)))


def text(name: str, length: int = 24) -> Text:
    return Text(name.encode(), length)


def answer(one: Text) -> bytes:
    return b"answer to " + one.ids


def scenario(test: Callable[[], Any]) -> Callable[[], None]:
    def run() -> None:
        virtual.run(test())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@scenario
async def test_every_text_gets_its_own_answer_and_equal_ones_are_computed_once() -> None:
    servers = Servers()
    one = dispatcher(servers)
    draw = random.Random(1)
    texts = [text(f"t{draw.randint(0, 50)}", draw.randint(3, 64)) for _ in range(300)]
    found = await one.ask(texts, 60)
    assert found == [answer(each) for each in texts]
    assert len(servers.computed) == len({each.ids for each in texts})
    assert one.idle


@scenario
async def test_equal_texts_of_different_requests_are_computed_once_only_where_that_is_wished() -> None:
    servers = Servers()
    one = dispatcher(servers)
    found = await asyncio.gather(*(one.ask([text("same"), text(f"own{i}")], 60, share=True) for i in range(8)))
    assert [each[0] for each in found] == [answer(text("same"))] * 8
    assert servers.computed.count(b"same") == 1
    await asyncio.gather(*(one.ask([text("same")], 60) for _ in range(8)))
    assert servers.computed.count(b"same") == 9


@scenario
async def test_a_request_that_is_given_up_frees_its_rows_but_not_those_that_others_want() -> None:
    servers = Servers(instances=1)
    one = dispatcher(servers)
    busy = asyncio.ensure_future(one.ask([text("busy", 64)], 60))
    await asyncio.sleep(0)
    leaving = asyncio.ensure_future(one.ask([text("mine"), text("ours")], 60, share=True))
    staying = asyncio.ensure_future(one.ask([text("ours")], 60, share=True))
    await asyncio.sleep(0.001)
    assert one.queue.rows == 2
    leaving.cancel()
    await asyncio.sleep(0)
    assert one.queue.rows == 1
    assert await staying == [answer(text("ours"))]
    await busy
    assert b"mine" not in servers.computed and one.idle


@scenario
async def test_expired_rows_are_not_sent() -> None:
    servers = Servers(instances=1, slowness=10)
    one = dispatcher(servers)
    busy = asyncio.ensure_future(one.ask([text("busy", 64)], 60))
    await asyncio.sleep(0.001)
    with pytest.raises(Expired):
        await one.ask([text("late")], asyncio.get_running_loop().time() + 0.02)
    await busy
    await asyncio.sleep(1)
    assert servers.computed == [b"busy"] and one.idle
    # A text that expired is computed for whoever asks next.
    assert await one.ask([text("late")], 60, share=True) == [answer(text("late"))]


@scenario
async def test_a_lost_batch_is_computed_elsewhere() -> None:
    servers = Servers(instances=1, names=("a", "b"))
    servers.lose = lambda server, number: server == "a"
    servers.servers = lambda: ["a", "b"] if not servers.batches else ["b", "a"]  # type: ignore[method-assign]
    one = dispatcher(servers)
    assert await one.ask([text("x")], 60) == [answer(text("x"))]
    assert [server for server, _ in servers.batches] == ["a", "b"]


@scenario
async def test_a_batch_is_tried_three_times_and_then_fails_clearly() -> None:
    servers = Servers()
    servers.lose = lambda server, number: True
    one = dispatcher(servers)
    with pytest.raises(BatchLost, match="lost batch"):
        await one.ask([text("x"), text("y")], 60)
    assert servers.computed.count(b"x") == 3 and one.idle
    servers.lose = lambda server, number: False
    assert await one.ask([text("x")], 60) == [answer(text("x"))]


@scenario
async def test_another_failure_reaches_every_request_of_the_batch_and_nobody_else() -> None:
    servers = Servers(instances=1)
    one = dispatcher(servers)

    async def broken(server: str, rows: Sequence[Row], deadline: float) -> list[bytes]:
        raise ValueError("unreadable")

    right, servers.compute = servers.compute, broken  # type: ignore[method-assign]
    results = await asyncio.gather(one.ask([text("x")], 60), one.ask([text("y")], 60), return_exceptions=True)
    assert [type(result) for result in results] == [ValueError, ValueError]
    servers.compute = right  # type: ignore[method-assign]
    assert await one.ask([text("x")], 60) == [answer(text("x"))] and one.idle


@scenario
async def test_nothing_waits_while_an_instance_is_idle() -> None:
    servers = Servers(instances=2)
    one = dispatcher(servers)
    clock = asyncio.get_running_loop().time
    for _ in range(5):
        before = clock()
        await one.ask([text("x")], 60)
        assert clock() - before == pytest.approx(one.queue.cost.call_us * 1e-6 + 24 * 190e-6)


@scenario
async def test_a_request_that_cannot_end_in_time_is_told_before_it_begins() -> None:
    servers = Servers()
    one = dispatcher(servers)
    row_us = one.queue.cost.row_us(24)
    one.admit(1, row_us, 1.0, 0.2, 10_000)
    with pytest.raises(Overloaded) as caught:
        one.admit(10_000, 10_000 * row_us, 1.0, 0.2, 10_000)
    assert caught.value.reason == "deadline"
    one.admit(10_000, 10_000 * row_us, 60.0, 0.2, 10_000)
    asking = asyncio.ensure_future(one.ask([text(f"{i}") for i in range(500)], 60))
    await asyncio.sleep(0.01)
    one.admit(1, row_us, 1.0, 0.2, 10_000)  # a large request is no line
    with pytest.raises(Overloaded) as caught:
        one.admit(9_900, 0, 60.0, 0.2, 10_000)
    assert caught.value.reason == "rows" and caught.value.retry_after_s > 0
    many = [asyncio.ensure_future(one.ask([text(f"s{i}")], 60)) for i in range(200)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as caught:
        one.admit(1, row_us, 60.0, 0.2, 10_000)
    assert caught.value.reason == "wait" and 0 < caught.value.retry_after_s < 2
    await asyncio.gather(asking, *many)


LENGTHS = [8, 12, 15, 18, 20, 22, 24, 24, 26, 30, 35, 40, 52, 64]


async def traffic(one: Dispatcher, rate: float, seconds: float, max_wait_s: float, seed: int = 3) -> dict[str, Any]:
    """Requests of one text, Poisson; answers and their latencies, refusals and how long they took to say."""
    loop = asyncio.get_running_loop()
    draw = random.Random(seed)
    seen: dict[str, Any] = {"latencies": [], "refused": 0, "expired": 0, "asked": 0}

    async def one_request(index: int) -> None:
        length = draw.choice(LENGTHS)
        started = loop.time()
        try:
            one.admit(1, one.queue.cost.row_us(length), started + 1.0, max_wait_s, 10_000)
            await one.ask([text(f"{index}", length)], started + 1.0)
        except Overloaded:
            assert loop.time() == started  # at once
            seen["refused"] += 1
        except Expired:
            seen["expired"] += 1
        else:
            if loop.time() <= seconds:
                seen["latencies"].append(loop.time() - started)

    tasks = []
    while loop.time() < seconds:
        await asyncio.sleep(draw.expovariate(rate))
        seen["asked"] += 1
        tasks.append(asyncio.ensure_future(one_request(len(tasks))))
    await asyncio.gather(*tasks)
    return seen


@pytest.mark.parametrize("slowness", [0.5, 1.0, 2.5])
def test_at_three_times_the_capacity_nine_tenths_of_it_are_answered_in_time_and_the_rest_told_at_once(slowness) -> None:
    async def capacity() -> float:
        one = dispatcher(Servers(slowness=slowness))
        draw = random.Random(2)
        texts = [text(f"{i}", draw.choice(LENGTHS)) for i in range(3000)]
        await one.ask(texts, 1e9)
        return len(texts) / asyncio.get_running_loop().time()

    most = virtual.run(capacity())

    async def overload() -> dict[str, Any]:
        return await traffic(dispatcher(Servers(slowness=slowness)), 3 * most, 20.0, 0.2)

    seen = virtual.run(overload())
    answered = len(seen["latencies"])
    assert answered / 20.0 >= 0.9 * most, (answered / 20.0, most)
    assert seen["expired"] <= 0.01 * answered
    assert seen["refused"] > seen["asked"] / 2
    ordered = sorted(seen["latencies"])
    assert ordered[int(0.99 * answered)] < 0.6


def test_below_the_capacity_nobody_is_refused() -> None:
    async def calm() -> dict[str, Any]:
        return await traffic(dispatcher(Servers()), 150.0, 20.0, 0.2)

    seen = virtual.run(calm())
    assert seen["refused"] == seen["expired"] == 0
    assert len(seen["latencies"]) > 2500
