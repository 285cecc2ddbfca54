"""The book: whatever reports are lost, repeated or interrupted by restarts, every request is counted once."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from roblox_ml_platform.guarding.counts import BINS, Book, Key, Report, lower_edge_us

KEY = Key("feed", "8", "canary")


def report(door: str, started: float, requests: int, errors: int = 0, key: Key = KEY) -> Report:
    entry: dict[str, Any] = {
        "endpoint": key.endpoint, "version": key.version, "role": key.role, "experiment": key.experiment, "arm": key.arm,
        "requests": requests, "errors": errors, "latency": [requests] + [0] * (BINS - 1),
    }  # fmt: skip
    return Report.of(door, started, [entry])


# What a door does next: answer so many requests, and then report (it arrives, arrives twice, or is lost) or begin again.
_STEP = st.tuples(
    st.sampled_from(["a", "b"]), st.integers(0, 50), st.sampled_from(["sent", "twice", "lost", "restart"])
)


@given(st.lists(_STEP, max_size=40))
@settings(max_examples=150, deadline=None)
def test_every_request_that_was_reported_counts_once(steps: list[tuple[str, int, str]]) -> None:
    book, truth = Book(0.0), 0
    life, cumulative, told = {"a": 1.0, "b": 1.0}, {"a": 0, "b": 0}, {"a": 0, "b": 0}
    for second, (door, answered, how) in enumerate(steps):
        cumulative[door] += answered
        if how == "restart":  # what it had not told is lost with it
            life[door] += 1
            cumulative[door] = told[door] = 0
            continue
        if how == "lost":
            continue
        for _ in range(2 if how == "twice" else 1):
            book.take(report(door, life[door], cumulative[door]), 10.0 + second)
        truth += cumulative[door] - told[door]
        told[door] = cumulative[door]
    assert book.ticks(KEY, 0, 100).total[0] == truth
    assert book.ticks(KEY, 0, 100).latency.sum() == truth


def test_a_door_that_is_older_than_the_control_plane_starts_where_it_stands() -> None:
    book = Book(100.0)
    book.take(report("old", 50.0, 1000, 900), 101.0)
    assert book.ticks(KEY, 0, 200).total == (0, 0)
    book.take(report("old", 50.0, 1010, 900), 102.0)
    book.take(report("new", 101.5, 7, 1), 102.0)
    assert book.ticks(KEY, 0, 200).total == (17, 1)
    assert book.doors() == {"old": 102.0, "new": 102.0}


def test_counts_that_run_backwards_are_no_negative_requests() -> None:
    book = Book(0.0)
    for second, requests in enumerate((10, 5, 8)):
        book.take(report("a", 1.0, requests), 10.0 + second)
    assert book.ticks(KEY, 0, 100).total == (13, 0)


def test_only_the_last_quarter_of_an_hour_is_kept_and_gaps_are_zeros() -> None:
    book = Book(0.0)
    for second in range(0, 2000, 100):
        book.take(report("a", 1.0, second + 1), float(second))
    assert book.ticks(KEY, 1890, 1905).requests.tolist() == [0] * 10 + [100] + [0] * 4
    assert book.ticks(KEY, 0, 1000).total == (0, 0)


def test_bins_are_the_door_s() -> None:
    from roblox_ml_serving.door.metrics import BINS as theirs
    from roblox_ml_serving.door.metrics import bin_of

    assert theirs == BINS
    for bin in range(1, BINS - 1):
        assert bin_of(lower_edge_us(bin) * 1.001 / 1e6) == bin
        assert bin_of(lower_edge_us(bin) * 0.999 / 1e6) == bin - 1
