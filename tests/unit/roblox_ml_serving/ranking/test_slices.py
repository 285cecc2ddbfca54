"""Rows that are worked on in slices are the rows of one piece; and while a large ranking is worked on, others have their turn."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from roblox_ml_serving.ranking import features as module
from roblox_ml_serving.ranking.features import Features, Gathered
from roblox_ml_serving.ranking.measures import Measures
from roblox_ml_serving.ranking.spec import View
from roblox_ml_serving.ranking.wire import Ask, Block, Key, Rows

USER = View("user", "user", 60.0, ("age",), (0.0,))
ITEM = View("item", "item", 60.0, ("ctr", "price"), (0.0, 0.0))
SHORT = View("short", "item", 1.5, ("hot",), (0.0,))  # too old after two of the clock's steps
NEVER = View("never", "item", 0.0, ("now",), (0.0,))  # may not be kept


class Client:
    """A feature server whose answers are a function of the key: some keys are unknown, some values missing, one view fails."""

    def __init__(self) -> None:
        self.asked: list[list[tuple[str, list[Key]]]] = []

    async def ask(self, blocks: Sequence[Block], asks: Sequence[Ask], deadline: float) -> list[Rows]:
        self.asked.append([(ask.view, list(blocks[ask.block].keys)) for ask in asks])
        await asyncio.sleep(0)
        return [self._rows(ask, blocks[ask.block].keys) for ask in asks]

    async def close(self) -> None:
        pass

    def _rows(self, ask: Ask, keys: Sequence[Key]) -> Rows:
        if ask.view == "never" and len(keys) % 5 == 4:
            return Rows(ask.view, np.zeros(0), np.zeros((0, 0)), "it is ill")
        numbers = np.array([key if isinstance(key, int) else len(key) for key in keys], np.float32)
        ages = np.where(numbers % 7 == 3, np.nan, numbers).astype(np.float32)
        values = np.stack([numbers * (place + 1) for place, _ in enumerate(ask.features)])
        return Rows(ask.view, ages, np.where(values % 5 == 2, np.nan, values).astype(np.float32))


Request = tuple[bytes, list[int]]


def gathered(requests: Sequence[Request], size: int) -> tuple[list[list[Gathered]], Any, Any]:
    """Each request's rows, what the server was asked, and the metrics, when so many rows are one slice."""
    clock = iter(range(1000, 100_000))
    registry, client = CollectorRegistry(), Client()

    async def main() -> list[list[Gathered]]:
        features = Features(client, Measures(registry), max_bytes=6 * 20_000, fetch_s=5)  # type: ignore[arg-type]
        features.adopt([USER, ITEM, SHORT, NEVER])
        found = []
        for user, items in requests:
            sides = [(USER, (user,)), (ITEM, tuple(items)), (SHORT, tuple(items)), (NEVER, tuple(items))]
            asked = [(view, keys) for view, keys in sides if keys]
            found.append(await features.gather(asked, asyncio.get_running_loop().time() + 10))
        await features.close()
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_SLICE", size)
        patch.setattr(module, "_ABSENT_S", -1.0)  # real time has no part in this
        patch.setattr(module, "monotonic", lambda: float(next(clock)))
        found = asyncio.run(main())
    counts = {
        (sample.name, *sample.labels.values()): sample.value
        for family in registry.collect() for sample in family.samples
        if "seconds" not in sample.name and not sample.name.endswith("_created")
    }  # fmt: skip
    return found, client.asked, counts


ITEMS = st.lists(st.integers(0, 400), unique=True, max_size=60)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.sampled_from([b"ann", b"bob"]), ITEMS), min_size=1, max_size=8), st.integers(1, 30))
def test_slices_give_the_bytes_of_one_piece(requests: list[Request], size: int) -> None:
    sliced, asked, counts = gathered(requests, size)
    whole, asked_whole, counts_whole = gathered(requests, 1_000_000)
    for one, other in zip(sliced, whole, strict=True):
        assert [part.table.tobytes() for part in one] == [part.table.tobytes() for part in other]
        assert [(part.unanswered, part.why) for part in one] == [(part.unanswered, part.why) for part in other]
    assert asked == asked_whole and counts == counts_whole


def test_others_have_their_turn_while_ten_thousand_rows_are_worked_on() -> None:
    """Turns are counted, not timed: each slice of each view, fetched and found again, is followed by one."""
    registry, turns = CollectorRegistry(), [0]

    async def main() -> list[int]:
        features = Features(Client(), Measures(registry), max_bytes=64 << 20, fetch_s=5)  # type: ignore[arg-type]
        features.adopt([ITEM])

        async def other() -> None:
            while True:
                turns[0] += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        found = []
        for count in (10_000, 10_000, 100, 100):
            keys = range(count) if count > 100 else range(20_000, 20_000 + count)
            before = turns[0]
            await features.gather([(ITEM, tuple(keys))], asyncio.get_running_loop().time() + 10)
            found.append(turns[0] - before)
        task.cancel()
        await features.close()
        return found

    fetched, cached, few_fetched, few_cached = asyncio.run(main())
    slices = 10_000 // module._SLICE
    assert fetched >= 2 * slices and cached >= slices
    assert few_fetched < 8 and few_cached == 0, "a small one waits for nobody"
