"""From rows that wait to answers: admission, lanes of the model servers, second attempts, one computation per text.

One dispatcher per model version and event loop. It decides at once whether a request can be answered in time (`Overloaded`
if not), keeps every instance busy with one batch, and hands it the next one while it computes only when that batch is full:
rows in the queue can still get better company, rows at the model server cannot.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

from .batching import TARGET_US, Batch, Queue, Row

__all__ = ["BatchLost", "Dispatcher", "Expired", "Job", "Observer", "Overloaded", "Text", "Upstream"]

MOST_ATTEMPTS = 3  # a batch that was lost is computed again at most twice
SLICE = 256
_PAUSES_S = (0.02, 0.25)  # before the second and the third attempt: an instance that died is back within a second or so


class Overloaded(Exception):
    """The line is too long: when to come back, and why."""

    def __init__(self, reason: str, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after_s = retry_after_s


class Expired(Exception):
    """The deadline passed before the answer was there."""


class BatchLost(Exception):
    """The model server did not answer for the batch: its connection ended, or an instance died under it."""


class Text(Protocol):
    """What is computed: token ids and how many they are."""

    @property
    def ids(self) -> bytes: ...
    @property
    def length(self) -> int: ...


class Upstream(Protocol):
    """The model servers, as the dispatcher sees them."""

    def servers(self) -> Sequence[Hashable]:
        """Those that can be asked, the preferred one first."""

    def instances(self, server: Any) -> int:
        """How many batches the server computes at the same time."""

    async def compute(self, server: Any, rows: Sequence[Row], deadline: float) -> Sequence[Any]:
        """One answer per row.

        Raises:
            BatchLost: may be asked again, here or elsewhere.
        """


class Observer(Protocol):
    """Who counts."""

    def batch(self, batch: Batch, waited_s: float) -> None: ...
    def lost(self) -> None: ...


@dataclass(slots=True, eq=False)
class Job:
    """One request: what is missing of its answers, and who waits for them."""

    answers: list[Any]
    missing: int
    deadline: float
    done: asyncio.Future[None]
    rows: list[Row] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Work:
    """Who waits for a row: (job, positions in its answer)."""

    key: bytes
    waiters: list[tuple[Job, list[int]]]


@dataclass(slots=True, eq=False)
class _Flight:
    batch: Batch
    sent: float
    started: float | None  # None: handed over while the server computed another one


class Dispatcher:
    """All requests of one model version.

    Args:
        upstream: the model servers.
        clock: seconds; the event loop's, unless a test has another.
    """

    def __init__(
        self,
        upstream: Upstream,
        queue: Queue,
        *,
        observer: Observer | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._upstream = upstream
        self.queue = queue
        self._observer = observer
        self._loop = asyncio.get_running_loop()
        self._clock = clock or self._loop.time
        self._flights: dict[Hashable, list[_Flight]] = {}
        self._open: dict[bytes, Row] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._pump_asked = False
        self._paused = 0  # rows between two attempts

    # -- requests ----------------------------------------------------------------------------------------------------

    def wait_s(self, now: float) -> float:
        """Expected time until a row that comes now is begun."""
        queue, cost = self.queue, self.queue.cost
        ahead_us = queue.due_us(now) * cost.correction
        flights = [flight for flights in self._flights.values() for flight in flights]
        for flight in flights:
            expected = cost.batch_us(len(flight.batch.rows), flight.batch.width) * cost.correction
            begun = 0.0 if flight.started is None else (now - flight.started) * 1e6
            ahead_us += max(expected - begun, 0.0)
        if not queue.rows and len(flights) < queue.lanes:
            return 0.0
        return ahead_us * 1e-6 / queue.lanes

    def admit(self, rows: int, work_us: float, deadline: float, max_wait_s: float, max_rows: int) -> None:
        """Raises:
        Overloaded: the answer would come too late, so it is better not begun.
        """
        now = self._clock()
        self._count_lanes()
        waiting = self.queue.rows + self._paused
        wait = self.wait_s(now)
        if waiting and waiting + rows > max_rows:
            drained = self.queue.work_us * self.queue.cost.correction * 1e-6 / self.queue.lanes
            raise Overloaded("rows", f"{waiting} texts wait already, {max_rows} may", drained / 2)
        if wait > max_wait_s:
            raise Overloaded(
                "wait", f"the wait is about {wait * 1000:.0f} ms, {max_wait_s * 1000:.0f} may be", wait - max_wait_s
            )
        own = work_us * self.queue.cost.correction * 1e-6 / self.queue.lanes
        if now + wait + own > deadline:
            raise Overloaded(
                "deadline", f"the answer would take about {(wait + own) * 1000:.0f} ms, the deadline is in "
                f"{(deadline - now) * 1000:.0f} ms", wait,
            )  # fmt: skip

    async def ask(self, texts: Sequence[Text], deadline: float, *, share: bool = False) -> list[Any]:
        """The answers to `texts`, in their order. Equal ones are computed once; with `share`, those of other requests too.

        Raises:
            Expired: the deadline passed.
            BatchLost: no model server answered for one of them, asked three times.
        """
        now = self._clock()
        job = Job([None] * len(texts), 0, deadline, self._loop.create_future())
        places: dict[bytes, list[int]] = {}
        lengths: dict[bytes, int] = {}
        for index, text in enumerate(texts):
            places.setdefault(text.ids, []).append(index)
            lengths[text.ids] = text.length
        job.missing = len(places)
        if not job.missing:
            return []
        try:
            async with asyncio.timeout_at(self._loop.time() + deadline - now):
                await self._enter(job, places, lengths, now, share)
                await job.done
        except TimeoutError:
            raise Expired from None
        finally:
            self._forget(job)
        return job.answers

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing is under way."""
        return not (self.queue.rows or self._flights or self._paused)

    def wake(self) -> None:
        """The servers may have changed."""
        self._ask_pump()

    def close(self) -> None:
        """Give up what is under way."""
        for task in self._tasks:
            task.cancel()

    # -- inside ------------------------------------------------------------------------------------------------------

    async def _enter(
        self, job: Job, places: dict[bytes, list[int]], lengths: dict[bytes, int], now: float, share: bool
    ) -> None:
        """Put the job's rows into the queue, those of a large request in slices: the loop has others to serve."""
        items = iter(places.items())
        behind_us = 0.0
        while piece := list(islice(items, SLICE)):
            fresh: list[Row] = []
            for ids, indices in piece:
                row = self._open.get(ids) if share else None
                if row is None:
                    row = Row(ids, lengths[ids], _Work(ids, []))
                    fresh.append(row)
                    if share:
                        self._open[ids] = row
                row.owner.waiters.append((job, indices))
                job.rows.append(row)
            behind_us = self.queue.add(fresh, now, behind_us)
            self._ask_pump()
            if len(piece) == SLICE:
                await asyncio.sleep(0)

    def _forget(self, job: Job) -> None:
        """The job has its answer, or nobody waits for it any more: rows that only it wanted leave the queue."""
        if not job.missing:
            return
        for row in job.rows:
            work: _Work = row.owner
            work.waiters = [waiter for waiter in work.waiters if waiter[0] is not job]
            if not work.waiters:
                self.queue.drop(row)
                if self._open.get(work.key) is row:
                    del self._open[work.key]
        job.rows = []

    def _ask_pump(self) -> None:
        """In the loop's next turn: requests that come in the same one travel together."""
        if not self._pump_asked:
            self._pump_asked = True
            self._loop.call_soon(self._pump)

    def _count_lanes(self) -> list[tuple[Hashable, int]]:
        lanes = [(server, max(1, self._upstream.instances(server))) for server in self._upstream.servers()]
        self.queue.lanes = max(1, sum(count for _, count in lanes))
        return lanes

    def _pump(self) -> None:
        self._pump_asked = False
        lanes = self._count_lanes()
        while self.queue.rows:
            idle = [(server, n - len(self._flights.get(server, ()))) for server, n in lanes]
            free = sum(n for _, n in idle if n > 0)
            if free:
                server = max((pair for pair in idle if pair[1] > 0), key=lambda pair: pair[1])[0]
            else:
                # Every instance computes. One batch more may wait at its server, if it could not get any better here.
                spare = [server for server, n in idle if n == 0]
                if not spare or self.queue.work_us < TARGET_US:
                    return
                server = spare[0]
            now = self._clock()
            batch = self.queue.take(now, max(free, 1))
            if batch is None:
                return
            rows = tuple(row for row in batch.rows if self._is_wanted(row, now))
            for row in batch.rows if len(rows) < len(batch.rows) else ():
                if row not in rows and self._open.get(row.owner.key) is row:
                    del self._open[row.owner.key]  # its requests expired: one that comes now must not wait with them
            if not rows:
                continue
            if len(rows) < len(batch.rows):
                batch = Batch(rows, max(row.width for row in rows))
            flight = _Flight(batch, now, now if free else None)
            self._flights.setdefault(server, []).append(flight)
            task = self._loop.create_task(self._compute(server, flight))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    @staticmethod
    def _is_wanted(row: Row, now: float) -> bool:
        return any(job.deadline > now for job, _ in row.owner.waiters)

    async def _compute(self, server: Hashable, flight: _Flight) -> None:
        rows = flight.batch.rows
        deadline = max((job.deadline for row in rows for job, _ in row.owner.waiters), default=flight.sent)
        try:
            answers = await self._upstream.compute(server, rows, deadline)
        except BatchLost as lost:
            if self._observer is not None:
                self._observer.lost()
            self._land(server, flight, None)
            self._again(rows, lost)
        except Exception as error:
            self._land(server, flight, None)
            self._fail(rows, error)
        else:
            now = self._clock()
            self._land(server, flight, now)
            if self._observer is not None:
                self._observer.batch(flight.batch, flight.sent - min(row.due for row in rows))
            for row, answer in zip(rows, answers, strict=True):
                self._deliver(row, answer)
        self._pump()

    def _land(self, server: Hashable, flight: _Flight, now: float | None) -> None:
        flights = self._flights[server]
        flights.remove(flight)
        if not flights:
            del self._flights[server]
        if now is None:
            return
        if flight.started is not None:
            self.queue.cost.learn(len(flight.batch.rows), flight.batch.width, (now - flight.started) * 1e6)
        for waiting in flights:
            if waiting.started is None:
                waiting.started = now
                break

    def _deliver(self, row: Row, answer: Any) -> None:
        work: _Work = row.owner
        if self._open.get(work.key) is row:
            del self._open[work.key]
        for job, indices in work.waiters:
            for index in indices:
                job.answers[index] = answer
            job.missing -= 1
            if not job.missing and not job.done.done():
                job.done.set_result(None)
        work.waiters = []

    def _fail(self, rows: Sequence[Row], error: BaseException) -> None:
        for row in rows:
            if self._open.get(row.owner.key) is row:
                del self._open[row.owner.key]
            for job, _ in row.owner.waiters:
                if not job.done.done():
                    job.done.set_exception(error)

    def _again(self, rows: Sequence[Row], lost: BatchLost) -> None:
        """Rows of a lost batch: once more, after a pause that grows, while somebody waits for them."""
        kept = [row for row in rows if row.owner.waiters]
        for row in kept:
            row.attempts += 1
        over = [row for row in kept if row.attempts >= MOST_ATTEMPTS]
        self._fail(over, lost)
        again = [row for row in kept if row.attempts < MOST_ATTEMPTS]
        if again:
            self._paused += len(again)
            self._loop.call_later(_PAUSES_S[again[0].attempts - 1], self._return, again)

    def _return(self, rows: list[Row]) -> None:
        self._paused -= len(rows)
        self.queue.put_back([row for row in rows if row.owner.waiters], self._clock())
        self._pump()
