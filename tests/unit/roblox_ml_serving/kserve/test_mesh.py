"""The split that a mesh gets is the one that `decide` makes, and what it cannot do is said."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from roblox_ml_core.policy import decide, read_policy
from roblox_ml_serving.kserve import Installation, envoy_route, http_route, split_of
from roblox_ml_serving.kserve.mesh import TOTAL

DIGESTS = {f"feed/{version}": {"digest": f"{version:02d}" * 32} for version in range(1, 9)}
INSTALLATION = Installation("http://c:1", "ml")


def policy(**parts: Any) -> Any:
    endpoint = {"model": "feed", "version": 1, "digest": "01" * 32, "unit": "user_id"} | parts.pop("endpoint", {})
    return read_policy({"endpoints": {"feed": endpoint}, "versions": DIGESTS} | parts)


def experiment(ranges: list[list[int]], weights: list[int], refs: list[str | None], **more: Any) -> dict[str, Any]:
    arms = [
        {"name": f"a{at}", "weight": weight, "ref": ref, "params": {}}
        for at, (weight, ref) in enumerate(zip(weights, refs, strict=True))
    ]
    base = {"layer": "l", "endpoint": "feed", "salt": "e/1", "ranges": ranges, "arms": arms, "targeting": {}}
    return {"layers": {"l": {"unit": "user_id", "salt": "l/1"}}, "experiments": {"e": base | more}}


@given(
    st.integers(0, 10_000), st.integers(0, 5_000), st.integers(1, 5_000), st.integers(1, 9_999),
    st.sampled_from([None, "feed/2", "feed/1"]),
)  # fmt: skip
def test_every_request_goes_somewhere(canary: int, start: int, width: int, weight: int, control: str | None) -> None:
    canary_of = {"canary": {"ref": "feed/3", "share": canary, "salt": "c/1"}}
    found = policy(
        endpoint=canary_of, **experiment([[start, start + width]], [weight, 10_000 - weight], [control, "feed/4"])
    )
    split = split_of(found, "feed")
    assert sum(share for _, share in split.shares) == TOTAL
    assert all(share >= 0 for _, share in split.shares)
    assert len({ref for ref, _ in split.shares}) == len(split.shares)


@settings(deadline=None, max_examples=5)
@given(st.integers(500, 5_000), st.integers(1_000, 9_000), st.integers(0, 5_000))
def test_shares_are_those_of_the_decision(width: int, weight: int, canary: int) -> None:
    found = policy(
        endpoint={"canary": {"ref": "feed/3", "share": canary, "salt": "c/1"}},
        **experiment([[1_000, 1_000 + width]], [weight, 10_000 - weight], ["feed/2", "feed/4"]),
    )
    units = 20_000
    seen = Counter(decide(found, "feed", f"user-{unit}").ref for unit in range(units))
    for ref, share in split_of(found, "feed").shares:
        expected = share / TOTAL * units
        # Six standard deviations of a binomial count: one false alarm in some hundred million.
        assert abs(seen[ref] - expected) <= 6 * (expected * (1 - share / TOTAL)) ** 0.5 + 1


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (experiment([[0, 100]], [10_000], ["feed/2"], targeting={"country": {"in": ["DE"]}}), "targeting"),
        (experiment([[0, 100]], [10_000], [None]), "change parameters"),
        (
            {**experiment([[0, 100]], [10_000], ["feed/2"]),
             "holdouts": {"global": {"unit": "user_id", "salt": "h/1", "share": 100, "layers": []}}},
            "holds nobody out",
        ),
        ({"endpoint": {"shadows": [{"name": "s", "ref": "feed/2", "share": 10_000, "salt": "s/1"}]}}, "shadow s"),
    ],
)  # fmt: skip
def test_what_a_mesh_cannot_do_is_said(parts: dict[str, Any], said: str) -> None:
    assert any(said in sentence for sentence in split_of(policy(**parts), "feed").left_out)


def test_a_targeted_experiment_leaves_its_units_with_the_champion() -> None:
    parts = experiment([[0, 5_000]], [10_000], ["feed/2"], targeting={"country": {"eq": "DE"}})
    assert [(ref.version, share) for ref, share in split_of(policy(**parts), "feed").shares] == [(1, TOTAL)]


def test_killed_means_the_champion_alone() -> None:
    parts = experiment([[0, 5_000]], [10_000], ["feed/2"]) | {"kill": {"endpoints": ["feed"]}}
    assert [(ref.version, share) for ref, share in split_of(policy(**parts), "feed").shares] == [(1, TOTAL)]


def test_routes_and_clusters_name_the_same_versions() -> None:
    split = split_of(policy(endpoint={"canary": {"ref": "feed/3", "share": 500, "salt": "c"}}), "feed")
    (rule,) = http_route(split, INSTALLATION, "public")["spec"]["rules"]
    envoy = envoy_route(split, ("feed-predictor.ml.svc.cluster.local", 80))
    (route,) = envoy["route_config"]["virtual_hosts"][0]["routes"]
    weights = {c["name"]: c["weight"] for c in route["route"]["weighted_clusters"]["clusters"]}
    assert weights == {"feed.1": 950_000, "feed.3": 50_000}
    assert [backend["weight"] for backend in rule["backendRefs"]] == list(weights.values())
    assert [cluster["name"] for cluster in envoy["clusters"]] == list(weights)
    assert route["route"]["weighted_clusters"]["use_hash_policy"]
    assert route["route"]["hash_policy"] == [{"header": {"header_name": "x-rml-unit"}}]
