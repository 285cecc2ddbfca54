"""Features of a user and of candidates: from the cache where they are fresh, else fetched, each key once at a time.

A fetch belongs to nobody who waits for it: it ends by its own limit, so that an answer which is too late for one request is there for
the next one. Who waits does so for its own share of its own deadline, and goes on without what has not come.

Thousands of rows are worked on in slices, with everybody else's turn in between: a ranking of 10,000 candidates keeps no other request
waiting for milliseconds. (A thread would not do: it is Python over rows, which holds the interpreter either way.)
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import numpy as np
from roblox_ml_core.telemetry import log

from .cache import FeatureCache, empty_row, row_type, rows_of
from .client import FeatureClient, Unanswered
from .measures import Measures
from .spec import View
from .wire import MAX_KEYS, MAX_VALUES, Ask, Block, Key

__all__ = ["Features", "Gathered"]

logger = logging.getLogger(__name__)
_TELL_EVERY_S = 30.0
#: Rows worked on before others have their turn: about a millisecond. Smaller requests have no pauses.
_SLICE = 1_000
#: A view that the server does not have is not asked again for so long.
_ABSENT_S = 1.0
Table = tuple[str, str, tuple[str, ...]]
#: What one fetch brought: rows by table and key. A table that is missing had no answer.
Brought = Mapping[Table, Mapping[Key, bytes]]


@dataclass(slots=True)
class Gathered:
    """One view's rows for the keys of one request: `table` has a row per key (`cache.row_type`).

    `unanswered` counts keys for which no server said anything, a word with why.
    """

    table: Any
    unanswered: int = 0
    why: str = ""


@dataclass(slots=True)
class _Wanted:
    """A view and its keys, while their rows come together."""

    view: View
    keys: Sequence[Key]
    rows: list[bytes | None]
    waiting: dict[asyncio.Task[Brought], list[int]] = field(default_factory=dict)


#: A view and the places of the keys that have to be fetched for it.
_Missing = tuple[_Wanted, list[int]]


class Features:
    """Everything fetched for the ranking endpoints of one door."""

    def __init__(self, client: FeatureClient, measures: Measures, *, max_bytes: int, fetch_s: float) -> None:
        self._client = client
        self._measures = measures
        self._max_bytes, self._fetch_s = max_bytes, fetch_s
        self._caches: dict[Table, FeatureCache] = {}
        self._flights: dict[Table, dict[Key, asyncio.Task[Brought]]] = {}
        self._fetches: set[asyncio.Task[Brought]] = set()
        self._absent: dict[Table, float] = {}  # until when it is left alone
        self._told = -_TELL_EVERY_S
        measures.cached_bytes.set_function(lambda: sum(cache.used_bytes for cache in self._caches.values()))
        measures.cached.set_function(lambda: sum(map(len, self._caches.values())))

    def adopt(self, views: Iterable[View]) -> None:
        """These are the views that endpoints use from now on; they share the room."""
        tables = dict.fromkeys(view.table for view in views if view.ttl_s > 0)
        if tables.keys() == self._caches.keys():
            return
        room = self._max_bytes // max(1, len(tables))
        self._absent.clear()
        self._caches = {table: self._caches.get(table) or FeatureCache(room) for table in tables}
        for cache in self._caches.values():
            cache.resize(room)

    async def gather(self, asked: Sequence[tuple[View, Sequence[Key]]], until: float) -> list[Gathered]:
        """The rows of each view for its keys (each key once), in order; nothing later than `until` on the loop's clock."""
        now = monotonic()
        wanted = [await self._cached(view, keys, now) for view, keys in asked]
        self._fetch(wanted)
        tasks = {task for one in wanted for task in one.waiting}
        if tasks:
            left = until - asyncio.get_running_loop().time()
            await asyncio.wait(tasks, timeout=max(left, 0.0))
        found = []
        for one in wanted:
            if len(one.keys) > _SLICE:
                await asyncio.sleep(0)
            found.append(self._joined(one))
        return found

    async def close(self) -> None:
        for task in self._fetches:
            task.cancel()
        await asyncio.gather(*self._fetches, return_exceptions=True)
        await self._client.close()

    # -- inside ------------------------------------------------------------------------------------------------------

    async def _cached(self, view: View, keys: Sequence[Key], now: float) -> _Wanted:
        """What the cache has and is fresh; None for the others."""
        cache = self._caches.get(view.table)
        if cache is None:
            return _Wanted(view, keys, [None] * len(keys))
        rows = _fresh(view, cache.get(keys[:_SLICE]), now)
        for at in range(_SLICE, len(keys), _SLICE):
            await asyncio.sleep(0)
            rows += _fresh(view, cache.get(keys[at : at + _SLICE]), now)
        hits = len(rows) - rows.count(None)
        if hits:
            self._measures.rows.labels(view.name, "cache").inc(hits)
        return _Wanted(view, keys, rows)

    def _fetch(self, wanted: Sequence[_Wanted]) -> None:
        """Ask for all that nobody has asked for yet, most often in one request; the rest is under way already."""
        missing: list[_Missing] = []
        now = asyncio.get_running_loop().time()
        for one in wanted:
            table = one.view.table
            if None not in one.rows or self._absent.get(table, now) > now:
                continue
            # What may not be kept at all may not come from a request that began before this one either.
            flights = self._flights.get(table, {}) if one.view.ttl_s > 0 else {}
            places = [place for place, row in enumerate(one.rows) if row is None]
            if flights:
                on_the_way = [(place, flights.get(one.keys[place])) for place in places]
                places = [place for place, flight in on_the_way if flight is None]
                for place, flight in on_the_way:
                    if flight is not None:
                        one.waiting.setdefault(flight, []).append(place)
            if joined := sum(map(len, one.waiting.values())):
                self._measures.rows.labels(one.view.name, "shared").inc(joined)
            if places:
                missing.append((one, places))
                self._measures.rows.labels(one.view.name, "fetched").inc(len(places))
        for part in _parts(missing):
            self._send(part)

    def _send(self, missing: Sequence[_Missing]) -> None:
        """One request for these, under way from now on."""
        blocks: list[Block] = []
        asks: list[Ask] = []
        tables: list[tuple[Table, Sequence[Key]]] = []
        for one, places in missing:
            block = Block(one.view.of, [one.keys[place] for place in places])
            if block not in blocks:  # views of one side mostly miss the same keys
                blocks.append(block)
            asks.append(Ask(one.view.name, blocks.index(block), one.view.features))
            tables.append((one.view.table, block.keys))
        task = asyncio.get_running_loop().create_task(self._bring(blocks, asks, tables))
        self._fetches.add(task)
        for (one, places), (table, keys) in zip(missing, tables, strict=True):
            self._flights.setdefault(table, {}).update(dict.fromkeys(keys, task))
            one.waiting[task] = places
        task.add_done_callback(lambda done: self._landed(done, tables))

    async def _bring(
        self, blocks: Sequence[Block], asks: Sequence[Ask], tables: Sequence[tuple[Table, Sequence[Key]]]
    ) -> Brought:
        loop = asyncio.get_running_loop()
        started, now = loop.time(), monotonic()
        why = ""
        try:
            answer = await self._client.ask(blocks, asks, started + self._fetch_s)
        except Unanswered as error:
            why = error.reason
            self._measures.failed.labels(why).inc()
            self._tell(why, str(error))
            raise
        finally:
            if why != "paused":  # nobody was asked
                self._measures.fetch.observe(loop.time() - started)
        brought: dict[Table, dict[Key, bytes]] = {}
        for rows, (table, keys) in zip(answer, tables, strict=True):
            if rows.error:
                self._measures.failed.labels("view").inc()
                self._absent[table] = loop.time() + _ABSENT_S
                self._tell("view", f"view {rows.view}: {rows.error}")
                continue
            found = brought[table] = {}
            for at in range(0, len(keys), _SLICE):
                if at:
                    await asyncio.sleep(0)
                some = keys[at : at + _SLICE]
                fresh = rows_of(rows.part(at, at + _SLICE), now)
                found.update(zip(some, fresh, strict=True))
                if (cache := self._caches.get(table)) is not None:
                    cache.put(some, fresh)
        return brought

    def _landed(self, task: asyncio.Task[Brought], tables: Collection[tuple[Table, Sequence[Key]]]) -> None:
        self._fetches.discard(task)
        for table, keys in tables:
            flights = self._flights.get(table, {})
            for key in keys:
                if flights.get(key) is task:
                    del flights[key]
            if not flights:
                self._flights.pop(table, None)
        if not task.cancelled():
            task.exception()  # heard: whoever waits has seen it, and nobody may be left

    def _joined(self, one: _Wanted) -> Gathered:
        """The rows of all places; those that did not come are empty ones."""
        why = "view"
        for task, places in one.waiting.items():
            if not task.done() or task.cancelled():
                why = "slow"
            elif (error := task.exception()) is not None:
                why = error.reason if isinstance(error, Unanswered) else "broken"
            elif (brought := task.result().get(one.view.table)) is not None:
                for place in places:
                    one.rows[place] = brought[one.keys[place]]
        unanswered = one.rows.count(None)
        if unanswered:
            self._measures.rows.labels(one.view.name, "unanswered").inc(unanswered)
        blank = empty_row(len(one.view.features), answered=False) if unanswered else b""
        data = b"".join([blank if row is None else row for row in one.rows])
        return Gathered(np.frombuffer(data, row_type(len(one.view.features))), unanswered, why if unanswered else "")

    def _tell(self, reason: str, message: str) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._told >= _TELL_EVERY_S:
            self._told = now
            log(logger, logging.WARNING, "features did not come: defaults go in", reason=reason, message=message)


def _fresh(view: View, rows: list[bytes | None], now: float) -> list[bytes | None]:
    """None in place of what is too old to be used."""
    kept = [row for row in rows if row is not None]
    if not kept:
        return rows
    fetched = np.frombuffer(b"".join(kept), row_type(len(view.features)))["fetched"]
    fresh = fetched + view.ttl_s > now
    if fresh.all():
        return rows
    place = iter(fresh.tolist())
    return [row if row is not None and next(place) else None for row in rows]


def _parts(missing: Sequence[_Missing]) -> Iterator[Sequence[_Missing]]:
    """As few requests as the wire's limits allow: many views of many candidates may be more than one."""
    part: list[_Missing] = []
    keys = values = 0
    for one, places in missing:
        more = len(places) * len(one.view.features)
        if part and (keys + len(places) > MAX_KEYS or values + more > MAX_VALUES):
            yield part
            part, keys, values = [], 0, 0
        part.append((one, places))
        keys, values = keys + len(places), values + more
    if part:
        yield part
