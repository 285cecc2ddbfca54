"""The client without the door decides what the door decides: whatever is ready, whatever was before, whoever asks."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from roblox_ml_core.settings import DoorSettings
from roblox_ml_serving.door.refusals import Refused
from roblox_ml_serving.door.service import Door
from roblox_ml_serving.door.snapshot import Snapshot, Target, build

from roblox_ml._direct.view import SnapshotUnreadable, View, look
from roblox_ml.errors import NotFound, RmlSdkError

DIGESTS = {version: f"{version}" * 64 for version in range(1, 6)}


def document(
    champion: int = 1,
    ready: dict[str, dict[int, str]] | None = None,
    canary: int = 0,
    killed: bool = False,
    targeting: Any = None,
    generation: int = 1,
) -> dict[str, Any]:
    """Two layers of other units, a holdout, a canary, a shadow; `ready`: server → version → digest."""

    def arms(ref: str | None) -> list[dict[str, Any]]:
        return [
            {"name": "control", "weight": 4000, "ref": "feed/1" if ref else None, "params": {}},
            {"name": "new", "weight": 6000, "ref": ref, "params": {"k": 20}},
        ]

    return {
        "schema": 2,
        "generation": generation,
        "digest": f"d{generation}",
        "policy": {
            "endpoints": {
                "feed": {
                    "model": "feed", "version": champion, "digest": DIGESTS[champion], "unit": "user_id", "preprocess": None,
                    "canary": {"ref": "feed/4", "share": canary, "salt": "canary"} if canary else None,
                    "shadows": [{"name": "s", "ref": "feed/5", "share": 10_000, "salt": "shadow"}],
                    "signature": {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}], "outputs": []},
                }
            },
            "versions": {f"feed/{version}": {"digest": digest, "preprocess": None} for version, digest in DIGESTS.items()},
            "layers": {"ranking": {"unit": "user_id", "salt": "layer/ranking"}, "places": {"unit": "place", "salt": "layer/places"}},
            "experiments": {
                "ranker": {"layer": "ranking", "endpoint": "feed", "salt": "e/1", "ranges": [[0, 3000], [5000, 6000]],
                           "arms": arms("feed/3"), "targeting": targeting or {}},
                "colour": {"layer": "places", "endpoint": "feed", "salt": "e/2", "ranges": [[0, 7000]], "arms": arms(None),
                           "targeting": {}},
            },
            "holdouts": {"global": {"unit": "user_id", "salt": "holdout/global", "share": 500, "layers": []}},
            "kill": {"experiments": False, "canaries": False, "shadows": False, "endpoints": ["feed"] if killed else []},
        },
        "servers": {
            name: {"http": f"{name}:1", "grpc": f"{name}:2", "ready": {f"feed/{version}": digest for version, digest in held.items()}}
            for name, held in (ready if ready is not None else {"a": DIGESTS}).items()
        },
    }  # fmt: skip


def doors(snapshot: Snapshot, unit: str | None, context: str, identity: str) -> Any:
    door = Door(DoorSettings())
    door.snapshot = snapshot
    return door.decide("feed", unit, context, identity)


def test_ten_thousand_units_get_what_the_door_gives_them() -> None:
    known = document(canary=1500, targeting={"age": {"gte": 13}})
    view, snapshot = look(known, "feed"), build(known)
    door = Door(DoorSettings())
    door.snapshot = snapshot
    found: set[tuple[str, str, int]] = set()
    for n in range(10_000):
        unit, context = f"user-{n}", {"place": f"place-{n % 97}", "age": n % 20}
        ours, target = view.decide(unit, context, f"id-{n}")
        theirs, doors_target = door.decide("feed", unit, json.dumps(context), f"id-{n}")
        assert ours == theirs and target.key == doors_target.serving.key
        found.add((ours.role, target.key, len(ours.arms)))
    assert {role for role, _, _ in found} == {"champion", "canary", "arm"} and {count for _, _, count in found} == {
        0,
        1,
        2,
    }


texts = st.none() | st.text(max_size=8)
contexts = st.dictionaries(
    st.sampled_from(["place", "age", "country", "user_id", "inference_id"]),
    st.text(max_size=5) | st.integers() | st.booleans() | st.none(),
)
right = st.sets(st.integers(1, 5)).map(lambda held: {version: DIGESTS[version] for version in held})
holdings = right | st.dictionaries(st.integers(1, 5), st.sampled_from([*DIGESTS.values()]), max_size=5)
documents = st.builds(
    document,
    champion=st.integers(1, 3),
    ready=st.dictionaries(st.sampled_from("abc"), holdings, max_size=3),
    canary=st.sampled_from([0, 1, 5000, 10_000]),
    killed=st.booleans(),
    targeting=st.sampled_from([None, {"age": {"gte": 13}}, {"country": {"in": ["DE"]}}]),
)


@given(st.lists(documents, min_size=1, max_size=5), texts, contexts)
def test_through_any_history_it_answers_and_refuses_as_the_door(
    history: list[dict[str, Any]], unit: str | None, context: dict[str, Any]
) -> None:
    view: View | None = None
    snapshot: Snapshot | None = None
    for generation, known in enumerate(history):
        known = {**known, "generation": generation}
        view = look(known, "feed", view)
        snapshot = build(known, snapshot.serving if snapshot else {})
        entry = snapshot.endpoints["feed"]
        assert (view.champion is not None) == isinstance(entry, Target)
        if view.champion is None:
            with pytest.raises(RmlSdkError, match="not ready"):
                view.decide(unit, context, "i")
            with pytest.raises(Refused):
                doors(snapshot, unit, json.dumps(context), "i")
            continue
        ours, target = view.decide(unit, json.loads(json.dumps(context)), "i")
        theirs, doors_target = doors(snapshot, unit, json.dumps(context), "i")
        assert ours == theirs
        assert (target.key, target.servers, target.triton_model) == (
            doors_target.serving.key, doors_target.replicas, doors_target.triton_model,
        )  # fmt: skip
        assert target.path.encode() == doors_target.infer_path
        assert all(one in view.addresses for one in target.servers)


@given(st.recursive(st.none() | st.integers() | st.text(max_size=3), lambda inner: st.lists(inner) | st.dictionaries(
    st.sampled_from(["schema", "generation", "policy", "servers", "endpoints", "feed"]), inner)), st.booleans())  # fmt: skip
def test_whatever_comes_is_read_or_refused_as_unreadable(found: Any, whole: bool) -> None:
    broken = {**document(), **found} if whole and isinstance(found, dict) else found
    try:
        assert isinstance(look(broken, "feed"), View)
    except SnapshotUnreadable as error:
        assert "snapshot" in str(error)


def test_what_a_door_prepares_is_left_out_or_refused() -> None:
    known = document(canary=10_000)
    known["policy"]["versions"]["feed/4"]["preprocess"] = {"kind": "text", "files": {}}
    view = look(known, "feed")
    assert view.left_out == {"feed/4": "the door prepares its requests"}
    decision, target = view.decide(None, {}, "i")
    assert decision.role == "canary" and target is view.champion
    with pytest.raises(NotFound, match="endpoints: feed"):
        look(known, "fed").ready()
