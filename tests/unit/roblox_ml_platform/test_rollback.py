"""A rollback undoes moves; it never leads forward to what was just left."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from roblox_ml_platform.rollback import stack_of, target

VERSIONS = st.integers(1, 4)


@given(st.lists(VERSIONS, max_size=12))
def test_rolling_back_retraces_the_promotions(promotions: list[int]) -> None:
    """The model: an undo stack of the promotions that changed something."""
    distinct = [v for i, v in enumerate(promotions) if i == 0 or promotions[i - 1] != v]
    moves = [(False, v) for v in promotions]
    while True:
        assert stack_of(moves) == distinct
        back = target(stack_of(moves))
        if len(distinct) < 2:
            assert back is None
            return
        distinct.pop()
        assert back == distinct[-1]
        moves.append((True, back))


@given(st.lists(VERSIONS, max_size=12), st.sets(VERSIONS))
def test_a_rollback_never_leads_to_the_present_or_to_what_is_gone(promotions: list[int], gone: set[int]) -> None:
    back = target(stack_of([(False, v) for v in promotions]), gone)
    if back is None:
        assert {v for v in promotions if v not in gone} <= set(promotions[-1:])
    else:
        assert back in promotions
        assert back not in gone
        assert back != promotions[-1]


def test_after_a_rollback_a_second_one_goes_further_and_a_promotion_starts_anew() -> None:
    moves = [(False, 1), (False, 2), (False, 3), (True, 2)]
    assert target(stack_of(moves)) == 1
    assert target(stack_of([*moves, (False, 4)])) == 2
