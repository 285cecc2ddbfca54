"""The answer cache against a model of it: never a wrong answer, never over its bounds, counts that add up; and its hit rate."""

from __future__ import annotations

import gc
import random
from collections import OrderedDict
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from roblox_ml_serving.text.cache import ENTRY_BYTES, SWEEP, AnswerCache

PACKAGES = st.sampled_from(["a", "b", "c"])
IDS = st.integers(0, 30).map(lambda n: n.to_bytes(4, "little") * (1 + n % 3))


class AgainstADict(RuleBasedStateMachine):
    """A dict that never forgets says what may be answered: the value put last, or nothing."""

    @initialize(entries=st.integers(0, 12), size=st.integers(0, 12 * (ENTRY_BYTES + 30)))
    def begin(self, entries: int, size: int) -> None:
        self.cache = AnswerCache(entries, size)
        self.known: dict[tuple[str, bytes], bytes] = {}
        self.stale: list[bytes] = []  # keys of invalidated packages
        self.gets = self.puts = 0

    @rule(package=PACKAGES, ids=IDS, value=st.binary(max_size=60))
    def put(self, package: str, ids: bytes, value: bytes) -> None:
        self.cache.put(self.cache.key(package, ids), value)
        self.known[package, ids] = value
        self.puts += 1

    @rule(package=PACKAGES, ids=IDS)
    def get(self, package: str, ids: bytes) -> None:
        self.gets += 1
        answer = self.cache.get(self.cache.key(package, ids))
        assert answer is None or answer == self.known.get((package, ids))

    @rule(package=PACKAGES)
    def invalidate(self, package: str) -> None:
        mine = [ids for name, ids in self.known if name == package]
        self.stale = [self.cache.key(package, ids) for ids in mine]
        before = len(self.cache)
        assert self.cache.invalidate(package) == before - len(self.cache)
        for ids in mine:
            del self.known[package, ids]

    @rule(value=st.binary(max_size=4))
    def put_what_was_computed_before(self, value: bytes) -> None:
        for key in self.stale:
            self.cache.put(key, value)
            self.puts += 1
            assert self.cache.get(key) is None
            self.gets += 1

    @rule()
    def get_what_was_invalidated(self) -> None:
        for key in self.stale:
            assert self.cache.get(key) is None
            self.gets += 1

    @rule(steps=st.integers(0, 5))
    def sweep(self, steps: int) -> None:
        self.cache.sweep(steps)

    @invariant()
    def bounds_and_counts_hold(self) -> None:
        cache, counts = self.cache, self.cache.counts
        assert 0 <= len(cache) <= cache.max_entries
        stored = [(key, value) for table in cache._tables for key, value in table.items()]
        assert len(stored) <= cache.max_entries
        assert sorted(key for key, _ in stored) == sorted([*cache._small, *cache._main])
        assert (
            cache.used_bytes == sum(len(key) + len(value) - 1 + ENTRY_BYTES for key, value in stored) <= cache.max_bytes
        )
        assert cache._small_bytes == sum(len(k) + len(v) - 1 + ENTRY_BYTES for k, v in stored if not v[-1] & 4)
        assert (counts.hits + counts.misses, counts.kept + counts.updated + counts.declined) == (self.gets, self.puts)
        assert counts.kept == len(cache) + counts.evicted + counts.invalidated


AgainstADict.TestCase.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
TestAgainstADict = AgainstADict.TestCase


def asked(cache: AnswerCache, trace: Iterable[int]) -> float:
    """The share of hits when a text's answer is put after every miss."""
    hits = total = 0
    for text in trace:
        key = cache.key("p", text.to_bytes(8, "little"))
        total += 1
        if cache.get(key) is None:
            cache.put(key, b"answer")
        else:
            hits += 1
    return hits / total


def asked_lru(entries: int, trace: Iterable[int]) -> float:
    kept: OrderedDict[int, None] = OrderedDict()
    hits = total = 0
    for text in trace:
        total += 1
        if text in kept:
            kept.move_to_end(text)
            hits += 1
        else:
            kept[text] = None
            if len(kept) > entries:
                kept.popitem(last=False)
    return hits / total


def zipf(seed: int, length: int, texts: int = 20_000, exponent: float = 0.9) -> list[int]:
    weights = [1 / (rank + 1) ** exponent for rank in range(texts)]
    return random.Random(seed).choices(range(texts), weights, k=length)


def with_scans(trace: list[int], every: int, scan: int) -> list[int]:
    mixed: list[int] = []
    once = 10**9
    for at in range(0, len(trace), every):
        mixed += [*trace[at : at + every], *range(once, once + scan)]
        once += scan
    return mixed


@pytest.mark.parametrize("scans", [False, True])
def test_it_hits_more_often_than_lru_on_texts_as_people_repeat_them(scans: bool) -> None:
    trace = zipf(7, 40_000)
    if scans:
        trace = with_scans(trace, 4_000, 2_000)
    assert asked(AnswerCache(1_000, 10**9), trace) > asked_lru(1_000, trace)


def test_a_scan_pushes_out_nothing_that_is_asked_for_again() -> None:
    cache = AnswerCache(100, 10**9)
    asked(cache, [*range(50), *range(50)])
    asked(cache, range(1_000, 21_000))
    assert asked(cache, range(50)) == 1.0


def test_who_comes_back_soon_after_leaving_stays() -> None:
    cache = AnswerCache(1_000, 10**9)
    asked(cache, range(1_500))  # the first 500 have left
    assert asked(cache, range(200)) == 0.0
    asked(cache, range(10_000, 30_000))
    # Most: who left is remembered by a slot that another one may take.
    assert asked(cache, range(200)) > 0.5


def test_a_cache_of_nothing_keeps_nothing() -> None:
    for cache in (AnswerCache(0, 10**6), AnswerCache(10, 0)):
        assert asked(cache, [1, 1, 1]) == 0.0
        assert (len(cache), cache.used_bytes, cache.counts.declined) == (0, 0, 3)
    with pytest.raises(ValueError, match="0 or more"):
        AnswerCache(-1, 5)


def test_an_answer_too_large_for_its_share_is_not_kept() -> None:
    cache = AnswerCache(1_000, 100_000)
    cache.put(cache.key("p", b"ids"), bytes(50_000))
    assert (len(cache), cache.counts.declined) == (0, 1)


def test_invalidated_memory_comes_back_in_slices() -> None:
    cache = AnswerCache(10_000, 10**9)
    asked(cache, range(5_000))
    keep = cache.key("kept", b"ids")
    cache.put(keep, b"answer")
    assert cache.invalidate("p") == 5_000
    assert (len(cache), cache.get(keep)) == (1, b"answer")
    assert cache.invalidate("p") == 0
    before = cache.used_bytes
    cache.put(keep, b"answer")
    freed = before - cache.used_bytes
    assert 0 < freed <= SWEEP * (ENTRY_BYTES + 12 + 6)
    for _ in range(5_000 // SWEEP + 1):
        cache.put(keep, b"answer")
    assert cache.used_bytes == len(keep) + 6 + ENTRY_BYTES
    assert cache.get(keep) == b"answer"


def test_the_garbage_collector_has_nothing_to_look_at() -> None:
    cache = AnswerCache(100_000, 10**9)
    gc.collect()
    before = len(gc.get_objects())
    asked(cache, range(20_000))
    asked(cache, range(20_000))
    assert len(gc.get_objects()) - before < 100


@settings(max_examples=30, deadline=None)
@given(entries=st.integers(1, 50), trace=st.lists(st.integers(0, 80), max_size=300))
def test_while_there_is_room_nothing_is_forgotten(entries: int, trace: list[int]) -> None:
    cache = AnswerCache(entries, 10**6)
    seen: set[int] = set()
    for text in trace:
        key = cache.key("p", text.to_bytes(8, "little"))
        if cache.get(key) is None:
            assert text not in seen or len(seen) > entries
            cache.put(key, b"")
        seen.add(text)
