"""Failures per address are bounded; who proved themselves lately is not held up by a neighbour."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from roblox_ml_platform.identity.throttle import Throttle


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_after_too_many_failures_an_address_waits_out_the_minute() -> None:
    clock = Clock()
    throttle = Throttle(3, clock)
    for _ in range(3):
        assert throttle.wait_s("a", "x") == 0
        throttle.failed("a")
        clock.now += 10
    assert throttle.wait_s("a", "x") == 30  # until the first of them is a minute old
    assert throttle.wait_s("b", "x") == 0
    clock.now += 30
    assert throttle.wait_s("a", "x") == 0


def test_who_was_good_lately_is_still_looked_at() -> None:
    clock = Clock()
    throttle = Throttle(1, clock)
    throttle.succeeded("good")
    throttle.failed("a")
    assert (throttle.wait_s("a", "good"), throttle.wait_s("a", "other") > 0) == (0, True)
    clock.now += 601
    throttle.failed("a")
    assert throttle.wait_s("a", "good") > 0


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 30)), max_size=60), st.integers(1, 5))
def test_no_address_gets_more_looks_a_minute_than_allowed(steps: list[tuple[str, float]], most: int) -> None:
    clock = Clock()
    throttle = Throttle(most, clock)
    looks: dict[str, list[float]] = {"a": [], "b": []}
    for address, pause in steps:
        clock.now += pause
        if throttle.wait_s(address, "never good") == 0:
            throttle.failed(address)
            looks[address].append(clock.now)
    for times in looks.values():
        for at in times:
            assert sum(at - 60 < other <= at for other in times) <= most
