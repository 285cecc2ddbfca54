"""Ask shadows the question that the primary has answered, compare, and keep the difference; never at the primary's cost.

Everything is bounded: questions that wait or run (by number and by bytes), questions to one shadow at once, time. What does not
fit is dropped and counted by reason; while the door itself has much under way, everything is.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from roblox_ml_core.policy import Ref
from roblox_ml_core.records import NullRecords, Records
from roblox_ml_core.settings import RecordsSettings
from roblox_ml_core.telemetry import log

from ..shadow import Comparison, Worst, compare_answers
from .refusals import Reason, Refused
from .shadow_measures import Tally, families

__all__ = ["NullShadows", "ShadowJob", "Shadows"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ShadowJob:
    """One question for one shadow.

    Attributes:
        protocol: "rest" or "grpc": how both answers read.
        primary_json_length: the answer's Inference-Header-Content-Length, where it has binary tensors.
        size: bytes that the job holds on to (the request and the answer).
        run: asks the shadow; takes a deadline on the loop's clock, gives the answer and its JSON length.
    """

    endpoint: str
    shadow: Ref
    primary: Ref
    inference_id: str
    protocol: str
    primary_answer: bytes
    primary_json_length: int | None
    primary_us: int
    size: int
    run: Callable[[float], Awaitable[tuple[bytes, int | None]]]
    unit: str = ""


class NullShadows:
    """A door that asks no shadows."""

    def offer(self, job: ShadowJob) -> None:
        """Nobody is asked."""

    def worst(self, endpoint: str, shadow: str) -> list[dict[str, Any]]:
        return []

    async def close(self) -> None:
        """Nothing to end."""


class _Lane:
    """The questions to one shadow of one endpoint."""

    __slots__ = ("running", "tally", "waiting", "worst")

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        self.waiting: deque[tuple[ShadowJob, float]] = deque()
        self.running = 0
        self.worst = Worst()


class Shadows:
    """The pool of one door. `in_flight` tells how many requests the door itself has under way."""

    def __init__(
        self,
        records: Records | NullRecords,
        settings: RecordsSettings | None = None,
        in_flight: Callable[[], int] = lambda: 0,
    ) -> None:
        self._records = records
        self._settings = settings or RecordsSettings()
        self._in_flight = in_flight
        self._lanes: dict[tuple[str, str], _Lane] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._pending = self._bytes = 0
        self._closed = False
        # Parsing and comparing are work for the interpreter: one thread, so that the loop gets its turn in between.
        self._comparing = ThreadPoolExecutor(1, "rml-shadow")

    def offer(self, job: ShadowJob) -> None:
        """Ask the shadow soon, or count why not. Never raises, never waits."""
        lane = self._lane(job)
        lane.tally.offered += 1
        settings = self._settings
        if self._closed:
            lane.tally.drop("closed")
        elif self._in_flight() > settings.shadow_pressure:
            lane.tally.drop("pressure")
        elif self._pending >= settings.shadow_pending:
            lane.tally.drop("full")
        elif self._bytes + job.size > settings.shadow_bytes:
            lane.tally.drop("bytes")
        else:
            self._pending += 1
            self._bytes += job.size
            deadline = asyncio.get_running_loop().time() + settings.shadow_deadline_s
            if lane.running < settings.shadow_concurrency:
                self._begin(lane, job, deadline)
            else:
                lane.waiting.append((job, deadline))

    def worst(self, endpoint: str, shadow: str) -> list[dict[str, Any]]:
        """The comparisons of this door that differed most, the largest first. `shadow` is `model/version`."""
        lane = self._lanes.get((endpoint, shadow))
        return [] if lane is None else lane.worst.listed()

    def tallies(self) -> Iterable[Tally]:
        """The accounts of every shadow: `offered = compared + failed + dropped + pending`."""
        for lane in self._lanes.values():
            lane.tally.pending = lane.running + len(lane.waiting)
            yield lane.tally

    def collect(self) -> list[Any]:
        """The shadows' Prometheus metrics: register this object as a collector."""
        return families(list(self.tallies()))

    async def close(self) -> None:
        """Nothing new is asked; what is under way is given up, for nobody waits for it."""
        self._closed = True
        for lane in self._lanes.values():
            while lane.waiting:
                self._leave(lane.waiting.popleft()[0])
                lane.tally.drop("closed")
        await asyncio.sleep(0)  # a task that is cancelled before its first step would not count its question
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._comparing.shutdown(wait=False, cancel_futures=True)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _lane(self, job: ShadowJob) -> _Lane:
        key = (job.endpoint, job.shadow.key)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane(Tally(*key))
        return lane

    def _begin(self, lane: _Lane, job: ShadowJob, deadline: float) -> None:
        lane.running += 1
        task = asyncio.get_running_loop().create_task(self._work(lane, job, deadline))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, lane: _Lane, job: ShadowJob, deadline: float) -> None:
        """This question, and then those that wait for the same shadow."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    await self._one(lane, job, deadline)
                except asyncio.CancelledError:
                    lane.tally.drop("closed")
                    raise
                finally:
                    self._leave(job)
                while lane.waiting:
                    job, deadline = lane.waiting.popleft()
                    if loop.time() < deadline and self._in_flight() <= self._settings.shadow_pressure:
                        break
                    self._leave(job)
                    lane.tally.drop("late" if loop.time() >= deadline else "pressure")
                else:
                    return
        finally:
            lane.running -= 1

    def _leave(self, job: ShadowJob) -> None:
        self._pending -= 1
        self._bytes -= job.size

    async def _one(self, lane: _Lane, job: ShadowJob, deadline: float) -> None:
        loop = asyncio.get_running_loop()
        started = time.perf_counter()  # the loop's own clock may count milliseconds
        code, comparison = "ok", Comparison()
        elapsed = 0
        try:
            async with asyncio.timeout_at(deadline):
                answer, json_length = await job.run(deadline)
            elapsed = int((time.perf_counter() - started) * 1e6)
            comparison = await loop.run_in_executor(
                self._comparing, compare_answers,
                job.protocol, (job.primary_answer, job.primary_json_length), (answer, json_length), self._shows(job),
            )  # fmt: skip
            if comparison.error:
                code = "unreadable"
        except asyncio.CancelledError:
            raise
        except TimeoutError:
            code, elapsed = "deadline", int((time.perf_counter() - started) * 1e6)
        except Refused as refused:
            code = "deadline" if refused.refusal.reason is Reason.DEADLINE else "refused"
            comparison, elapsed = Comparison.failed(refused.refusal.message), int((time.perf_counter() - started) * 1e6)
        except Exception as error:  # whatever a shadow does is its own affair
            code, elapsed = "error", int((time.perf_counter() - started) * 1e6)
            comparison = Comparison.failed(f"{type(error).__name__}: {error}")
        lane.tally.done(code, job.primary_us, elapsed, comparison)
        if code == "ok":
            lane.worst.add(job.inference_id, comparison)
        elif lane.tally.codes[code] == 1:
            log(
                logger, logging.WARNING, "a shadow does not answer as it should", endpoint=job.endpoint, shadow=job.shadow.key,
                code=code, reason=comparison.error,
            )  # fmt: skip
        self._records.shadows.offer(
            (
                int(time.time() * 1e6), job.inference_id, job.endpoint, job.shadow.key, job.shadow.version, job.primary.version,
                job.primary_us, elapsed, code, comparison.to_text(), job.unit,
            )
        )  # fmt: skip

    def _shows(self, job: ShadowJob) -> bool:
        """Whether values may be kept: where the endpoint's log keeps bodies."""
        return self._records.policy(job.endpoint).bodies
