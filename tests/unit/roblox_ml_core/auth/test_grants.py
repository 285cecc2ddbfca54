"""The algebra of grants: a role only adds, a team is a wall, order is nothing, a token never exceeds its owner."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from roblox_ml_core.auth import EVERYTHING, ROLES, Action, Grant, Limit, Resource, Scope, decide, parse_grant
from roblox_ml_core.errors import Invalid

NAMES = ["safety", "ads", "search"]
scopes = st.one_of(st.just(EVERYTHING), st.builds(Scope, st.sampled_from(["team", "model"]), st.sampled_from(NAMES)))
grants = st.builds(Grant, st.sampled_from(sorted(ROLES)), scopes)
held = st.lists(grants, max_size=8)
actions = st.sampled_from(list(Action))
resources = st.builds(
    Resource, st.one_of(st.none(), st.sampled_from(NAMES)), st.one_of(st.none(), st.sampled_from(NAMES))
)
limits = st.one_of(st.none(), st.builds(Limit, st.sampled_from(sorted(ROLES)), scopes))


@given(actions, resources, held, grants, limits)
def test_another_role_never_takes_a_permission_away(
    action: Action, resource: Resource, have: list[Grant], more: Grant, limit: Limit | None
) -> None:
    if decide(action, resource, have, limit).allowed:
        assert decide(action, resource, [*have, more], limit).allowed


@given(actions, resources, held, limits, st.randoms())
def test_the_order_of_grants_decides_nothing(
    action: Action, resource: Resource, have: list[Grant], limit: Limit | None, random: object
) -> None:
    shuffled = list(have)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert decide(action, resource, have, limit) == decide(action, resource, shuffled + have, limit)


@given(actions, held, st.sampled_from(NAMES), st.one_of(st.none(), st.sampled_from(["toxicity", "ranker"])))
def test_a_team_s_roles_reach_no_other_team(action: Action, have: list[Grant], team: str, model: str | None) -> None:
    only = [grant for grant in have if grant.scope.kind == "team" and grant.scope.name != team]
    assert not decide(action, Resource(team, model), only).allowed
    assert not decide(action, Resource(None, model), only).allowed
    assert not decide(action, Resource(), only).allowed


@given(actions, resources, held, limits)
def test_a_token_may_never_more_than_its_owner(
    action: Action, resource: Resource, have: list[Grant], limit: Limit | None
) -> None:
    if decide(action, resource, have, limit).allowed:
        assert decide(action, resource, have).allowed
        assert limit is None or limit.allows(action, resource)


@given(actions, resources, held)
def test_permissions_are_the_union_of_what_each_grant_allows(
    action: Action, resource: Resource, have: list[Grant]
) -> None:
    assert decide(action, resource, have).allowed == any(decide(action, resource, [one]).allowed for one in have)


def test_each_rung_holds_the_rungs_below() -> None:
    ladder = ["view", "run", "register", "promote", "admin"]
    for lower, higher in itertools.pairwise(ladder):
        assert ROLES[lower] < ROLES[higher]
    assert all(role in {str(action) for action in ROLES[role]} for role in ROLES)
    # Doors believe what is said with `serve`: no role that a person gets by the ladder may bring it.
    assert [role for role in ROLES if Action.SERVE in ROLES[role]] == ["serve", "admin"]


@given(grants)
def test_a_grant_survives_being_written(grant: Grant) -> None:
    assert parse_grant(f"{grant.scope}={grant.role}") == grant


@pytest.mark.parametrize(
    "text", ["", "team:safety", "=view", "safety=view", "team:=view", "team:*=view", "all=view", "team:Safety=view",
             "*=root", "model:a/b=view", "team:safety=view=", ":x=view", "**=view"],
)  # fmt: skip
def test_what_is_no_grant_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        parse_grant(text)


def test_a_refusal_says_what_is_held_and_what_was_asked() -> None:
    have = [Grant("register", Scope("team", "safety"))]
    decision = decide(Action.PROMOTE, Resource("safety", "toxicity"), have, who="ann")
    assert decision.reason == "ann may not promote model toxicity of team safety: holds register on team:safety"
    narrow = decide(Action.REGISTER, Resource("safety", "toxicity"), have, Limit("view"), who="ci")
    assert "limited to view on *" in narrow.reason
