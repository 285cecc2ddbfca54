"""What holds of every policy: total, deterministic, sticky, disjoint, monotone under growth, independent between layers."""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from roblox_ml_core.policy import (
    SCALE,
    NoRoom,
    PolicyInvalid,
    UnknownEndpoint,
    allocate,
    bucket,
    decide,
    decide_frame,
    digest_of,
    read_policy,
    seed_of,
)  # fmt: skip
from roblox_ml_core.policy.allocation import free, size
from xxhash import xxh64_intdigest

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
contexts = st.dictionaries(st.sampled_from(["country", "age", "session_id", "inference_id", "user_id"]), json_values)
units = st.none() | st.text(max_size=40)
shares = st.integers(0, 3000)


@st.composite
def policies(draw: Any) -> dict[str, Any]:
    """A policy such as the control plane writes: experiments placed by `allocate`."""
    versions = {f"m/{v}": {"digest": str(v)} for v in range(1, 5)}
    layers = {f"l{i}": {"unit": draw(st.sampled_from(["user_id", "session_id"])), "salt": f"l{i}"} for i in range(3)}
    experiments: dict[str, Any] = {}
    taken: dict[str, list[Any]] = {name: [] for name in layers}
    for number in range(draw(st.integers(0, 6))):
        layer = draw(st.sampled_from(sorted(layers)))
        ranges = allocate(taken[layer], (), min(draw(shares), size(free(taken[layer]))))
        taken[layer] += ranges
        cut = draw(st.integers(0, SCALE))
        refs = st.sampled_from([None, *versions]) if layer == "l0" else st.none()
        experiments[f"e{number}"] = {
            "layer": layer, "endpoint": draw(st.sampled_from(["a", "b"])), "salt": f"e{number}/1",
            "ranges": [list(r) for r in ranges],
            "arms": [
                {"name": "control", "weight": cut, "ref": draw(refs), "params": {}},
                {"name": "new", "weight": SCALE - cut, "ref": draw(refs), "params": {f"p{number}": 1}},
            ],
            "targeting": draw(st.sampled_from([{}, {"country": {"in": ["DE"]}}, {"age": {"gte": 13, "ne": 20}}])),
        }  # fmt: skip
    canary = draw(st.none() | st.just({"ref": "m/2", "share": 4000, "salt": "c"}))
    return {
        "endpoints": {
            "a": {"model": "m", "version": 1, "digest": "1", "canary": canary,
                  "shadows": [{"name": "s", "ref": "m/3", "share": 5000, "salt": "s"}]},
            "b": {"model": "m", "version": 1, "digest": "1"},
        },
        "versions": versions, "layers": layers, "experiments": experiments,
        "holdouts": {"h": {"unit": "user_id", "salt": "h", "share": draw(st.integers(0, 5000)), "layers": []}},
        "kill": {},
    }  # fmt: skip


@settings(max_examples=150)
@given(policies(), units, contexts, st.sampled_from(["a", "b"]))
def test_total_deterministic_and_consistent(document: Any, unit: Any, context: Any, endpoint: str) -> None:
    policy = read_policy(document)
    assert policy.findings == ()
    decision = decide(policy, endpoint, unit, context)
    assert decision == decide(read_policy(copy.deepcopy(document)), endpoint, unit, context)
    assert decision.champion.key == "m/1" and decision.ref in policy.endpoints[endpoint].refs
    experiments = [name for name, _ in decision.arms]
    layers = [document["experiments"][name]["layer"] for name in experiments]
    assert len(set(layers)) == len(layers), "one experiment a layer"
    assert all(document["experiments"][name]["endpoint"] == endpoint for name in experiments)
    assert [(e.experiment, e.arm) for e in decision.exposures] == list(decision.arms)
    assert decision.ref not in decision.shadows
    if policy.endpoints[endpoint].contextual is False:  # what the door does not read cannot matter
        known = {key: value for key, value in context.items() if key == "inference_id"}
        assert decide(policy, endpoint, unit, known) == decision


@settings(max_examples=60)
@given(policies(), st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=30), st.data())
def test_growth_moves_nobody(document: Any, ids: list[str], data: Any) -> None:
    if not document["experiments"]:
        return
    name = data.draw(st.sampled_from(sorted(document["experiments"])))
    grown = copy.deepcopy(document)
    one = grown["experiments"][name]
    others = [
        r for n, e in grown["experiments"].items() if n != name and e["layer"] == one["layer"] for r in e["ranges"]
    ]
    own = [tuple(r) for r in one["ranges"]]
    room = size(free([*map(tuple, others), *own]))
    share = size(own) + data.draw(st.integers(0, room))
    one["ranges"] = [list(r) for r in allocate([tuple(r) for r in others], own, share)]
    before, after = read_policy(document), read_policy(grown)
    for unit in ids:
        for endpoint in ("a", "b"):
            context = {"session_id": unit, "country": "DE", "age": 15}
            was = dict(decide(before, endpoint, unit, context).arms)
            now = dict(decide(after, endpoint, unit, context).arms)
            assert was.items() <= now.items(), "who is in stays in, in the same arm"
            assert set(now) - set(was) <= {name}, "and nobody else comes in anywhere"


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, SCALE)), max_size=25))
def test_buckets_are_never_shared_and_history_leads_back(moves: list[tuple[int, int]]) -> None:
    held: dict[int, tuple[Any, ...]] = {}
    for who, share in moves:
        others = [r for other, ranges in held.items() if other != who for r in ranges]
        before = held.get(who, ())
        try:
            held[who] = allocate(others, before, share)
        except NoRoom as full:
            assert full.free == size(free([*others, *before])) < share - size(before)
            continue
        assert size(held[who]) == share
        everything = sorted(r for ranges in held.values() for r in ranges)
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(everything))
        assert size(free(everything)) == SCALE - size(everything)
        assert allocate(others, held[who], share) == held[who]
        smaller = allocate(others, held[who], share // 2)
        assert set(buckets(smaller)) <= set(buckets(held[who]))
    with pytest.raises(ValueError, match="not between"):
        allocate((), (), SCALE + 1)


def buckets(ranges: Any) -> list[int]:
    return [b for low, high in ranges for b in range(low, high)]


broken = st.recursive(
    st.none() | st.integers(-5, 20000) | st.text(max_size=6),
    lambda inner: (
        st.dictionaries(
            st.sampled_from(["layer", "endpoint", "salt", "ranges", "arms", "targeting", "name", "weight", "ref"]),
            inner,
        )
        | st.lists(inner, max_size=3)
    ),
    max_leaves=10,
)


@given(policies(), broken, st.sampled_from(["experiments", "holdouts"]))
def test_what_cannot_be_understood_takes_nothing_else_down(document: Any, junk: Any, where: str) -> None:
    document["holdouts"]["h"]["share"] = 0
    sound = read_policy(document)
    mangled = copy.deepcopy(document)
    mangled[where]["zz"] = junk
    policy = read_policy(mangled)
    if "zz" not in policy.experiments and where == "experiments":
        assert any("zz" in finding for finding in policy.findings)
        for unit in ("u1", "u2", "u3"):
            assert decide(policy, "a", unit) == decide(sound, "a", unit)


@given(json_values)
def test_arbitrary_json_raises_one_error(document: Any) -> None:
    try:
        policy = read_policy(document)
    except PolicyInvalid:
        return
    assert policy.digest == digest_of(document)


def test_an_unknown_endpoint_and_second_owners() -> None:
    entry = {"model": "m", "version": 1, "digest": "1"}
    arms = [{"name": "x", "weight": SCALE, "ref": "m/1"}]
    base = {"layer": "l0", "endpoint": "a", "salt": "s", "arms": arms}
    document = {
        "endpoints": {"a": entry}, "versions": {"m/1": {"digest": "1"}},
        "layers": {"l0": {"unit": "user_id", "salt": "0"}, "l1": {"unit": "user_id", "salt": "1"}},
        "experiments": {
            "first": {**base, "ranges": [[0, 10]]}, "overlaps": {**base, "ranges": [[5, 20]]},
            "second-owner": {**base, "layer": "l1", "ranges": [[0, 10]]}, "light": {**base, "ranges": [[20, 30]], "arms": []},
        },
    }  # fmt: skip
    policy = read_policy(document)
    assert set(policy.experiments) == {"first"}
    assert len(policy.findings) == 3 and "sum to 0" in " ".join(policy.findings)
    with pytest.raises(UnknownEndpoint, match="no endpoint is called 'b'"):
        decide(policy, "b", "u")


def chi_square_limit(freedom: int) -> float:
    """The 1 - 1e-6 quantile, by Wilson and Hilferty's cube."""
    return freedom * (1 - 2 / (9 * freedom) + 4.753 * math.sqrt(2 / (9 * freedom))) ** 3


def test_layers_are_independent_and_shares_are_met_over_a_million_units() -> None:
    count, cells = 1_000_000, 16
    seeds = [seed_of(f"layer/{name}") for name in ("ranking", "pages", "experiment/a/1")]
    ids = [b"user-%d" % number for number in range(count)]
    drawn = [np.fromiter((xxh64_intdigest(i, seed) for i in ids), np.uint64, count) for seed in seeds]
    # The upper four bits are the sixteenth of the buckets in which the unit lies.
    cell = [np.asarray(hashes >> np.uint64(60), np.int64) for hashes in drawn]
    for hashes in drawn:
        hits = np.bincount(np.asarray(hashes >> np.uint64(56), np.int64), minlength=256)
        assert ((hits - count / 256) ** 2 / (count / 256)).sum() < chi_square_limit(255)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        table = np.bincount(cell[one] * cells + cell[other], minlength=cells * cells)
        expected = count / cells**2
        assert ((table - expected) ** 2 / expected).sum() < chi_square_limit(cells**2 - 1)
    assert bucket(seeds[0], "user-7") == (int(drawn[0][7]) * SCALE) >> 64


def test_a_frame_is_decided_as_its_rows_are() -> None:
    arms = [{"name": "control", "weight": 5000}, {"name": "new", "weight": 5000, "ref": "m/2", "params": {"k": 2}}]
    document = {
        "endpoints": {"a": {"model": "m", "version": 1, "digest": "1"}}, "versions": {"m/2": {"digest": "2"}},
        "layers": {"l": {"unit": "user_id", "salt": "l"}},
        "experiments": {"e": {"layer": "l", "endpoint": "a", "salt": "e/1", "ranges": [[0, 5000]], "arms": arms,
                              "targeting": {"country": {"eq": "DE"}}}},
    }  # fmt: skip
    policy, ids = read_policy(document), [f"u{i}" for i in range(400)]
    columns = decide_frame(policy, "a", ids, {"country": "DE"})
    for row, unit in enumerate(ids):
        one = decide(policy, "a", unit, {"country": "DE"})
        found = {name: values[row] for name, values in columns.items()}
        assert found == {
            "unit": unit, "model": "m", "version": one.ref.version, "role": one.role, "params": dict(one.params),
            "arm.e": dict(one.arms).get("e"),
        }  # fmt: skip
    assert {"control", "new", None} == set(columns["arm.e"])
    assert set(decide_frame(policy, "a", ids, [{}] * 400)["arm.e"]) == {None}
    with pytest.raises(ValueError, match="400 units and 1 contexts"):
        decide_frame(policy, "a", ids, [{}])
