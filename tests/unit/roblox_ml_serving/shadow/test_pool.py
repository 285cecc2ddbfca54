"""The pool of questions to shadows: bounded, counted, and never anybody's failure but the shadow's."""

from __future__ import annotations

import asyncio
import json
import random
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from roblox_ml_core.policy import LogPolicy, Ref
from roblox_ml_core.records import SHADOWS
from roblox_ml_core.settings import RecordsSettings
from roblox_ml_serving.door.refusals import Reason, Refused
from roblox_ml_serving.door.shadowing import NullShadows, ShadowJob, Shadows


def body(*values: float) -> bytes:
    return json.dumps({"outputs": [{"name": "y", "datatype": "FP32", "shape": [len(values)], "data": values}]}).encode()


class Kept:
    """Records that keep rows in a list."""

    def __init__(self, bodies: bool = False) -> None:
        self.rows: list[dict] = []
        self.shadows = self
        self._bodies = bodies

    def offer(self, row: tuple) -> bool:
        self.rows.append(dict(zip(SHADOWS.names, row, strict=True)))
        return True

    def policy(self, endpoint: str) -> LogPolicy:
        return LogPolicy(bodies=self._bodies)


def job(run, *, version: int = 9, size: int = 10, identity: str = "i") -> ShadowJob:
    return ShadowJob(
        "feed", Ref("feed", version), Ref("feed", 7), identity, "rest", body(1, 2, 3), None, 1000, size, run, "u1"
    )


def answering(*values: float, gate: asyncio.Event | None = None):
    async def run(deadline: float):
        if gate is not None:
            await gate.wait()
        return body(*values), None

    return run


async def drained(shadows: Shadows) -> None:
    while any(tally.pending for tally in shadows.tallies()):
        await asyncio.sleep(0.001)


def pool(kept: Kept, in_flight=lambda: 0, **fields) -> Shadows:
    return Shadows(kept, RecordsSettings(**fields), in_flight)  # type: ignore[arg-type]


def test_a_difference_becomes_a_row_a_count_and_an_example() -> None:
    async def main() -> None:
        kept = Kept(bodies=True)
        shadows = pool(kept)
        shadows.offer(job(answering(1, 2, 3), identity="same"))
        shadows.offer(job(answering(1, 2, 4), identity="other"))
        assert kept.rows == []  # not before the caller is done
        await drained(shadows)
        rows = {row["inference_id"]: row for row in kept.rows}
        assert {row["code"] for row in kept.rows} == {"ok"} and rows["other"]["shadow"] == "feed/9"
        assert (rows["other"]["version"], rows["other"]["primary_version"], rows["other"]["unit"]) == (9, 7, "u1")
        told = json.loads(rows["other"]["tensors_json"])
        assert told["tensors"]["y"]["abs_max"] == 1 and told["values"]["y"]["shadow"] == [1, 2, 4]
        assert [worst["inference_id"] for worst in shadows.worst("feed", "feed/9")] == ["other"]
        registry = CollectorRegistry()
        registry.register(shadows)
        text = generate_latest(registry).decode()
        assert 'rml_shadow_answers_total{code="ok",endpoint="feed",shadow="feed/9"} 2.0' in text
        await shadows.close()

    asyncio.run(main())


def test_values_are_kept_only_where_bodies_are() -> None:
    async def main() -> None:
        kept = Kept()
        shadows = pool(kept)
        shadows.offer(job(answering(5, 6, 7)))
        await drained(shadows)
        assert "values" not in json.loads(kept.rows[0]["tensors_json"])
        await shadows.close()

    asyncio.run(main())


def test_every_way_to_fail_is_the_shadow_s_own_and_named() -> None:
    async def raising(error: Exception):
        raise error

    async def never(deadline: float):
        await asyncio.Event().wait()

    async def garbage(deadline: float):
        return b"<html>", None

    async def main() -> None:
        kept = Kept()
        shadows = pool(kept, shadow_deadline_s=0.05)
        shadows.offer(job(never, version=1))
        shadows.offer(job(garbage, version=2))
        shadows.offer(job(lambda deadline: raising(OSError("gone")), version=3))
        shadows.offer(job(lambda deadline: raising(Refused(Reason.BAD_UPSTREAM, "500")), version=4))
        shadows.offer(job(lambda deadline: raising(Refused(Reason.DEADLINE, "late")), version=5))
        await drained(shadows)
        codes = {row["version"]: row["code"] for row in kept.rows}
        assert codes == {1: "deadline", 2: "unreadable", 3: "error", 4: "refused", 5: "deadline"}
        assert "gone" in next(row["tensors_json"] for row in kept.rows if row["version"] == 3)
        await shadows.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("fields", "busy", "reason"),
    [({"shadow_pending": 2}, 0, "full"), ({"shadow_bytes": 25}, 0, "bytes"), ({"shadow_pressure": 5}, 6, "pressure")],
)
def test_what_does_not_fit_is_dropped_and_counted(fields: dict, busy: int, reason: str) -> None:
    async def main() -> None:
        shadows, gate = pool(Kept(), lambda: busy, **fields), asyncio.Event()
        for _ in range(5):
            shadows.offer(job(answering(1, 2, 3, gate=gate)))
        (tally,) = shadows.tallies()
        assert tally.dropped == {reason: 5 if busy else 3}
        gate.set()
        await drained(shadows)
        assert sum(tally.codes.values()) == (0 if busy else 2)
        await shadows.close()

    asyncio.run(main())


def test_one_shadow_s_questions_are_few_at_once_and_do_not_hold_up_another_s() -> None:
    async def main() -> None:
        running = most = 0
        gate = asyncio.Event()

        async def counted(deadline: float):
            nonlocal running, most
            running += 1
            most = max(most, running)
            await gate.wait()
            running -= 1
            return body(1, 2, 3), None

        kept = Kept()
        shadows = pool(kept, shadow_concurrency=2)
        for _ in range(6):
            shadows.offer(job(counted))
        shadows.offer(job(answering(1, 2, 3), version=10))
        while not kept.rows:
            await asyncio.sleep(0.001)
        assert [row["version"] for row in kept.rows] == [10] and running == 2
        gate.set()
        await drained(shadows)
        assert most == 2 and len(kept.rows) == 7
        await shadows.close()

    asyncio.run(main())


def test_what_waited_too_long_is_not_asked_any_more() -> None:
    async def main() -> None:
        async def slow(deadline: float):
            await asyncio.sleep(10)

        shadows = pool(Kept(), shadow_concurrency=1, shadow_deadline_s=0.03)
        for _ in range(3):
            shadows.offer(job(slow))
        await drained(shadows)
        (tally,) = shadows.tallies()
        assert tally.codes == {"deadline": 1} and tally.dropped == {"late": 2}
        await shadows.close()

    asyncio.run(main())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 3), st.integers(1, 6), st.booleans())
def test_every_question_ends_in_one_count(seed: int, concurrency: int, pending: int, early: bool) -> None:
    chance = random.Random(seed)

    async def main() -> None:
        busy = SimpleNamespace(now=0)
        kept = Kept()
        shadows = pool(
            kept, lambda: busy.now, shadow_concurrency=concurrency, shadow_pending=pending, shadow_bytes=40,
            shadow_deadline_s=0.02, shadow_pressure=3,
        )  # fmt: skip

        async def run(deadline: float):
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(0)
            match chance.randrange(4):
                case 0:
                    raise OSError("gone")
                case 1:
                    await asyncio.sleep(1)
            return body(1, 2, chance.random()), None

        offered = 0
        for _ in range(25):
            busy.now = chance.randrange(5)
            shadows.offer(job(run, version=chance.randrange(1, 3), size=chance.randrange(20)))
            offered += 1
            if chance.random() < 0.3:
                await asyncio.sleep(0)
            for tally in shadows.tallies():
                assert tally.offered == sum(tally.codes.values()) + sum(tally.dropped.values()) + tally.pending
        if not early:
            await drained(shadows)
        await shadows.close()
        tallies = list(shadows.tallies())
        assert sum(tally.offered for tally in tallies) == offered and not any(tally.pending for tally in tallies)
        ended = sum(sum(tally.codes.values()) for tally in tallies)
        assert ended + sum(sum(tally.dropped.values()) for tally in tallies) == offered
        assert len(kept.rows) == ended

    asyncio.run(main())


def test_a_door_without_shadows_asks_nobody() -> None:
    async def main() -> None:
        null = NullShadows()
        null.offer(job(answering(1)))
        assert null.worst("feed", "feed/9") == []
        await null.close()

    asyncio.run(main())
