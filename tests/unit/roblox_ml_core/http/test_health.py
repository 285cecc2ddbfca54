"""Whom to ask: laws of the choice between servers, of leaving one out, and of the budget for second attempts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st
from roblox_ml_core.http.budget import RetryBudget
from roblox_ml_core.http.health import Health, pick, usable

OLD = 1000.0


@dataclass
class One:
    health: Health = field(default_factory=lambda: Health(0.0))


@given(st.lists(st.integers(0, 20), min_size=1, max_size=8), st.integers(0, 2**48 - 1))
def test_never_the_busiest_of_several_and_always_one_of_them(busy: list[int], draw: int) -> None:
    servers = [One() for _ in busy]
    for server, count in zip(servers, busy, strict=True):
        server.health.in_flight = count
    chosen = pick(servers, OLD, draw)
    assert chosen in servers
    if sum(server.health.in_flight == max(busy) for server in servers) == 1 and len(busy) > 1:
        assert chosen.health.in_flight < max(busy)


def test_every_pair_is_drawn_and_one_that_warms_up_gets_a_growing_part() -> None:
    servers = [One(), One(), One()]
    servers[0].health.since = OLD - 1.0  # a second ago
    draws = [(i * 0x9E3779B97F4A7C15) & (2**48 - 1) for i in range(1, 6000)]
    now = Counter(id(pick(servers, OLD, draw)) for draw in draws)
    later = Counter(id(pick(servers, OLD + 3.0, draw)) for draw in draws)
    warm = Counter(id(pick(servers, OLD + 60.0, draw)) for draw in draws)
    first = id(servers[0])
    assert 0 < now[first] < later[first] < warm[first]
    assert max(warm.values()) - min(warm.values()) < 300, "equal ones share equally"


@given(st.lists(st.tuples(st.sampled_from("okfl"), st.floats(0.0, 3.0)), max_size=40))
def test_a_lost_connection_leaves_out_for_a_bounded_time_and_somebody_is_always_asked(events) -> None:
    sick, well, now = One(), One(), 0.0
    for what, pause in events:
        now += pause
        if what == "o":
            sick.health.succeeded(0.01)
        elif what == "l":
            sick.health.failed(now, lost=True)
            assert sick.health.is_out(now) and usable([sick, well], now) == [well]
        elif what == "f":
            sick.health.failed(now, lost=False, may_leave_out=False)
        assert usable([sick], now) == [sick], "the only one is asked whatever it did"
    assert not sick.health.is_out(now + 30.0), "half a minute is the longest"
    assert 0.1 <= sick.health.warmth(now + 30.0) <= 1.0


def test_failures_in_a_row_leave_out_and_a_success_in_between_does_not() -> None:
    server = Health(0.0)
    for _ in range(10):
        server.failed(1.0, lost=False)
        server.failed(1.0, lost=False)
        server.succeeded(0.1)
    assert not server.is_out(1.0)
    for _ in range(3):
        server.failed(1.0, lost=False)
    assert server.is_out(1.5) and not server.is_out(2.1)


@given(st.lists(st.booleans(), max_size=400), st.floats(0.01, 1.0))
def test_second_attempts_are_at_most_the_reserve_and_a_part_of_the_requests(asks: list[bool], ratio: float) -> None:
    budget, spent = RetryBudget(ratio, most=10), 0
    for again in asks:
        budget.earn()
        spent += again and budget.spend()
        assert 0 <= budget.tokens <= 10
    assert spent <= 10 + ratio * len(asks) + 1e-6
