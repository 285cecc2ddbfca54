"""The cache: what it gives back is what was put last, and it never holds more than it may."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from roblox_ml_serving.ranking.cache import ROW_BYTES, FeatureCache, empty_row, row_type, rows_of
from roblox_ml_serving.ranking.wire import Rows

ROW = b"x" * 24
COST = ROW_BYTES + len(ROW)


@given(
    st.lists(st.tuples(st.sampled_from(["put", "get", "resize"]), st.integers(0, 12)), max_size=60),
    st.integers(0, 12),
)
def test_it_gives_what_was_put_last_or_nothing_and_stays_within_its_room(
    steps: list[tuple[str, int]], rows: int
) -> None:
    cache = FeatureCache(rows * COST)
    said: dict[int, bytes] = {}
    room = rows * COST
    for number, (what, key) in enumerate(steps):
        if what == "put":
            said[key] = b"%024d" % number
            cache.put([key], [said[key]])
        elif what == "resize":
            room = key * COST
            cache.resize(room)
        else:
            (found,) = cache.get([key])
            assert found is None or found == said[key]
        assert cache.used_bytes <= room and cache.used_bytes == len(cache) * COST


def test_what_is_used_stays_while_others_pass_through() -> None:
    cache = FeatureCache(10 * COST)
    cache.put([0], [ROW])
    for key in range(1, 100):
        cache.put([key], [ROW])
        assert cache.get([0]) == [ROW]
    assert cache.get([1]) == [None] and cache.evicted > 80


@pytest.mark.parametrize("by", ["put", "get"])
def test_what_is_dropped_is_given_back_before_it_would_be_too_much(by: str) -> None:
    cache, room = FeatureCache(1000 * COST), 1000 * COST
    cache.put(range(1000), [ROW] * 1000)
    cache.put(range(1000, 1001), [ROW])  # both generations were full: the older one goes
    most = cache.dropped
    assert most > 400 and cache.evicted == 500
    for number in range(most):
        before = cache.dropped
        if by == "put":
            cache.put([2000 + number], [ROW])
        else:
            cache.get([500 + number])
        assert cache.dropped <= max(0, before - 2)
        assert cache.used_bytes + cache.dropped * COST <= room
    assert cache.dropped == 0


def test_a_row_keeps_values_events_and_what_is_not_there() -> None:
    rows = Rows("v", np.array([10.0, np.nan], np.float32), np.array([[1, 2], [np.nan, 4]], np.float32))
    table = np.frombuffer(b"".join(rows_of(rows, 1000.0)), row_type(2))
    assert table["fetched"].tolist() == [1000.0, 1000.0]
    assert table["event"][0] == 990.0 and np.isnan(table["event"][1])
    assert table["values"][0, 0] == 1 and np.isnan(table["values"][0, 1])
    assert np.isnan(table["values"][1]).all()  # no row: no values, whatever the server sent


@pytest.mark.parametrize("answered", [True, False])
def test_an_empty_row_says_whether_anybody_said_so(answered: bool) -> None:
    row = np.frombuffer(empty_row(3, answered=answered), row_type(3))[0]
    assert np.isnan(row["values"]).all() and bool(row["fetched"]) is answered
