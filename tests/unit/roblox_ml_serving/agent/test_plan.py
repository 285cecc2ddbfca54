"""The planner: single cases first, then its laws over any world hypothesis can think of."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from roblox_ml_serving.agent import (
    Check,
    Failure,
    Key,
    Limits,
    Load,
    Observed,
    Refuse,
    Reload,
    Resident,
    Unload,
    Wanted,
    plan,
)
from roblox_ml_serving.agent.plan import backoff

A, B = Key("a", 1), Key("b", 1)
NO_LIMIT = Limits(grace_s=10)


def test_what_is_missing_is_loaded_and_what_is_right_is_left_alone() -> None:
    observed = Observed(0, residents={B: Resident("db", checked=True)})
    assert plan([Wanted(A, "da"), Wanted(B, "db")], observed, NO_LIMIT) == (Load(A, "da"),)


def test_what_is_found_loaded_is_asked_before_it_counts() -> None:
    assert plan([Wanted(A, "da")], Observed(0, residents={A: Resident("da")}), NO_LIMIT) == (Check(A),)


def test_what_is_broken_is_loaded_again() -> None:
    observed = Observed(0, residents={A: Resident("da", checked=True, broken="a process ended")})
    assert plan([Wanted(A, "da")], observed, NO_LIMIT) == (Reload(A, "a process ended"),)


def test_another_package_under_the_same_version_goes_first() -> None:
    observed = Observed(0, residents={A: Resident("old", checked=True)})
    (action,) = plan([Wanted(A, "da")], observed, NO_LIMIT)
    assert isinstance(action, Unload)
    assert "old" in action.reason


def test_what_nobody_wants_stays_for_its_grace() -> None:
    observed = Observed(9, residents={A: Resident("da", checked=True)}, unwanted_since={A: 0})
    assert plan([], observed, NO_LIMIT) == ()
    assert plan([], replace(observed, now=10), NO_LIMIT) == (Unload(A, "no longer wanted"),)


def test_a_failed_version_waits_then_is_tried_then_given_up() -> None:
    wanted = [Wanted(A, "da")]
    failed = Observed(5, failures={A: Failure("da", attempts=2, retry_at=6, reason="no")})
    assert plan(wanted, failed, NO_LIMIT) == ()
    assert plan(wanted, replace(failed, now=6), NO_LIMIT) == (Load(A, "da"),)
    spent = Observed(1e9, failures={A: Failure("da", NO_LIMIT.max_attempts, 0, "no")})
    assert plan(wanted, spent, NO_LIMIT) == ()
    assert plan([Wanted(A, "another")], spent, NO_LIMIT) == (Load(A, "another"),)


def test_the_budget_refuses_with_names_and_numbers() -> None:
    limits = Limits(memory=100 << 20, grace_s=10)
    observed = Observed(0, residents={B: Resident("db", memory=60 << 20, checked=True)})
    (action,) = plan([Wanted(B, "db"), Wanted(A, "da", memory=50 << 20)], observed, limits)
    assert isinstance(action, Refuse)
    for part in ("a/1 needs about 50 MB", "60 of 100 MB", "b/1", "RML_AGENT_MEMORY_BUDGET_MB"):
        assert part in action.reason


def test_what_waits_for_its_end_gives_way_to_what_is_wanted() -> None:
    limits = Limits(memory=100, grace_s=1000)
    observed = Observed(0, residents={B: Resident("db", memory=60, checked=True)})
    (action,) = plan([Wanted(A, "da", memory=50)], observed, limits)
    assert isinstance(action, Unload)
    assert action.key == B


def test_the_back_off_grows_to_a_minute() -> None:
    assert [backoff(n) for n in (1, 2, 3, 7, 50)] == [1, 2, 4, 60, 60]


KEYS = st.builds(Key, st.sampled_from("abcd"), st.integers(1, 2))
DIGESTS = st.sampled_from(["d1", "d2"])
MEMORY = st.integers(0, 50)
WANTED = st.lists(st.builds(Wanted, KEYS, DIGESTS, MEMORY), unique_by=lambda wish: wish.key, max_size=6)
LIMITS = st.builds(Limits, st.integers(0, 150), st.floats(0, 20), st.integers(1, 5))
WORLDS = st.builds(
    Observed,
    st.floats(0, 100),
    st.dictionaries(
        KEYS, st.builds(Resident, DIGESTS, MEMORY, st.booleans(), st.sampled_from(["", "broken"])), max_size=6
    ),
    st.dictionaries(KEYS, st.builds(Failure, DIGESTS, st.integers(1, 6), st.floats(0, 100), st.just("no")), max_size=4),
    st.dictionaries(KEYS, st.floats(0, 100), max_size=4),
    st.dictionaries(KEYS, MEMORY, max_size=3),
)


@given(WANTED, WORLDS, LIMITS)
@settings(max_examples=300, deadline=None)
def test_one_action_per_version_and_none_on_what_is_busy(wanted, world, limits) -> None:
    actions = plan(wanted, world, limits)
    keys = [action.key for action in actions]
    assert len(keys) == len(set(keys))
    assert not set(keys) & set(world.busy)


@given(WANTED, WORLDS, LIMITS)
@settings(max_examples=300, deadline=None)
def test_loads_stay_within_the_budget(wanted, world, limits) -> None:
    actions = plan(wanted, world, limits)
    need = {wish.key: wish.memory for wish in wanted}
    held = sum(resident.memory for key, resident in world.residents.items() if key not in world.busy) + sum(
        world.busy.values()
    )
    loads = [action.key for action in actions if isinstance(action, Load)]
    if limits.memory and loads:
        assert held + sum(need[key] for key in loads) <= limits.memory


@given(WANTED, WORLDS, LIMITS)
@settings(max_examples=300, deadline=None)
def test_what_is_wanted_and_right_is_never_unloaded(wanted, world, limits) -> None:
    digests = {wish.key: wish.digest for wish in wanted}
    for action in plan(wanted, world, limits):
        if isinstance(action, Unload) and action.key in digests:
            assert world.residents[action.key].digest != digests[action.key]


@given(WANTED, WORLDS)
@settings(max_examples=300, deadline=None)
def test_acting_on_the_plan_ends_with_exactly_what_is_wanted(wanted, world) -> None:
    """With memory and time enough and loads that succeed, a few rounds reach the wish, and the next plan is empty."""
    limits = Limits(memory=0, grace_s=5, max_attempts=100)
    world = replace(world, busy={}, now=200.0)
    for _ in range(4):
        residents, since = dict(world.residents), dict(world.unwanted_since)
        for action in plan(wanted, world, limits):
            match action:
                case Load(key, digest):
                    residents[key] = Resident(digest, checked=True)
                case Check(key) | Reload(key):
                    residents[key] = replace(residents[key], checked=True, broken="")
                case Unload(key):
                    del residents[key]
        since = {key: since.get(key, world.now) for key in residents if key not in {wish.key for wish in wanted}}
        world = replace(world, residents=residents, unwanted_since=since, now=world.now + 100)
    assert {key: resident.digest for key, resident in world.residents.items()} == {
        wish.key: wish.digest for wish in wanted
    }
    assert plan(wanted, world, limits) == ()
