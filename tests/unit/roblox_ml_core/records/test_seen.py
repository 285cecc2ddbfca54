"""An exposure is logged once: a unit, an experiment, an arm, a day."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from roblox_ml_core.records import Seen


def test_once_until_the_arm_or_the_day_changes() -> None:
    seen = Seen()
    told = [seen.first("e", "u", arm, day) for arm, day in [("a", 1), ("a", 1), ("b", 1), ("b", 1), ("b", 2), ("b", 2)]]
    assert told == [True, False, True, False, True, False]
    assert seen.first("f", "u", "a", 1) and seen.first("e", "v", "b", 2)
    seen.forget("e", "u")
    assert seen.first("e", "u", "b", 2)


@given(
    st.integers(1, 4),
    st.lists(st.tuples(st.sampled_from("ef"), st.sampled_from("uvwx"), st.sampled_from("ab")), max_size=40),
)
def test_it_is_bounded_and_forgets_only_what_was_asked_for_longest_ago(capacity: int, asked) -> None:
    seen = Seen(capacity)
    order: dict[tuple[str, str], str] = {}
    for experiment, unit, arm in asked:
        key = (experiment, unit)
        expected = order.pop(key, None) != arm
        assert seen.first(experiment, unit, arm) is expected
        order[key] = arm
        while len(order) > capacity:
            del order[next(iter(order))]
        assert len(seen) == len(order)
