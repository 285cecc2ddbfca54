"""Which version answers: examples from the contract, and its laws over arbitrary snapshots."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from roblox_ml_serving.door.refusals import Reason, Refusal
from roblox_ml_serving.door.snapshot import EMPTY, SnapshotInvalid, Target, Version, build, resolve

NAMES = ["a", "b"]
versions = st.integers(1, 4)


def digest(model: str, version: int) -> str:
    return f"{model}-{version}"


ready_maps = st.dictionaries(
    st.builds(lambda m, v: f"{m}/{v}", st.sampled_from(NAMES), versions),
    st.sampled_from(["right", "other"]),
    max_size=6,
).map(lambda drawn: {key: digest(key[0], int(key[2])) if kind == "right" else "other" for key, kind in drawn.items()})
documents = st.builds(
    lambda generation, endpoints, servers: {
        "schema": 2,
        "generation": generation,
        "policy": {"endpoints": endpoints},
        "servers": servers,
    },
    st.integers(0, 99),
    st.dictionaries(
        st.sampled_from(["e1", "e2", "e3"]),
        st.builds(
            lambda m, v, p: {"model": m, "version": v, "digest": digest(m, v), "previous": p},
            st.sampled_from(NAMES),
            versions,
            st.none() | versions,
        ),
    ),
    st.dictionaries(
        st.sampled_from(["s1", "s2"]), ready_maps.map(lambda ready: {"http": "h:1", "grpc": "h:2", "ready": ready})
    ),
)


def holders(document, key: str, wanted: str) -> set[str]:
    """The servers that report `key` ready under the wanted digest (empty: any)."""
    held = {server: entry["ready"].get(key) for server, entry in document["servers"].items()}
    return {server for server, found in held.items() if found is not None and wanted in ("", found)}


@given(history=st.lists(documents, min_size=1, max_size=5))
def test_the_laws_of_resolution(history) -> None:
    snapshot = EMPTY
    for document in history:
        before = snapshot
        snapshot = build(document, before.serving)
        assert set(snapshot.endpoints) == set(document["policy"]["endpoints"])
        for name, wished in document["policy"]["endpoints"].items():
            entry = resolve(snapshot, name)
            desired = holders(document, f"{wished['model']}/{wished['version']}", wished["digest"])
            kept = before.serving.get(name)
            kept_by = holders(document, kept.key, kept.digest) if kept else set()
            if isinstance(entry, Refusal):
                assert entry.reason is Reason.NOT_READY
                assert not desired and not kept_by
                assert snapshot.serving.get(name) == kept  # refused, not forgotten
                continue
            # Only servers that report the version ready, all of them, and the wish before everything else.
            if desired:
                assert entry.is_desired and set(entry.replicas) == desired
            else:
                assert entry.serving == kept and set(entry.replicas) == kept_by
        assert build(document, snapshot.serving) == snapshot  # the same news twice changes nothing


def make(version: int, ready: dict[str, str], previous: int | None = None, generation: int = 1):
    entry = {"model": "m", "version": version, "digest": f"d{version}", "previous": previous, "signature": {}}
    servers = {"s": {"http": "h:1", "grpc": "h:2", "ready": ready}}
    return {"schema": 2, "generation": generation, "policy": {"endpoints": {"e": entry}}, "servers": servers}


def test_the_target_carries_everything_a_request_needs() -> None:
    target = resolve(build(make(3, {"m/3": "d3"})), "e")
    assert isinstance(target, Target)
    assert (target.triton_model, target.http_base, target.version_text) == ("m.3", b"/v2/models/m.3/versions/3", "3")
    assert (target.replicas, target.serving) == (("s",), Version("m", 3, "d3"))


def test_the_last_ready_version_answers_until_the_new_one_is_ready() -> None:
    first = build(make(1, {"m/1": "d1"}))
    second = build(make(2, {"m/1": "d1"}, generation=2), first.serving)
    assert resolve(second, "e").version_text == "1"
    third = build(make(2, {"m/1": "d1", "m/2": "d2"}, generation=3), second.serving)
    assert resolve(third, "e").version_text == "2"


def test_a_version_that_was_away_while_another_is_refused_answers_again() -> None:
    snapshot = build(make(2, {"m/2": "d2"}))
    for ready in ({"m/2": "d2"}, {}, {}):  # 3 is never ready; then a model server is silent for a moment
        snapshot = build(make(3, ready), snapshot.serving)
    refusal = resolve(snapshot, "e")
    assert isinstance(refusal, Refusal) and "version 3 of 'm' loaded, nor m/2, which answered before" in refusal.message
    snapshot = build(make(3, {"m/2": "d2"}), snapshot.serving)
    target = resolve(snapshot, "e")
    assert isinstance(target, Target) and (target.version_text, target.is_desired) == ("2", False)
    # What has answered and is lost is not replaced by the version before it.
    lost = build(make(3, {"m/2": "d2"}), build(make(3, {"m/3": "d3"}), snapshot.serving).serving)
    assert isinstance(resolve(lost, "e"), Refusal)
    gone = build({**make(3, {}), "policy": {"endpoints": {}}}, snapshot.serving)
    assert gone.serving == {}  # a new endpoint of that name starts afresh


def test_other_bytes_under_the_same_number_do_not_answer() -> None:
    refusal = resolve(build(make(3, {"m/3": "tampered"})), "e")
    assert isinstance(refusal, Refusal) and refusal.reason is Reason.NOT_READY
    assert "version 3 of 'm'" in refusal.message


def test_before_the_first_snapshot_nothing_is_unknown_yet() -> None:
    assert resolve(EMPTY, "e").reason is Reason.NOT_READY
    empty = build({"schema": 2, "generation": 0, "policy": {"endpoints": {}}, "servers": {}})
    assert resolve(empty, "e").reason is Reason.UNKNOWN_ENDPOINT
    assert "nothing is deployed" in resolve(empty, "e").message


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"schema": 1, "generation": 1, "policy": {"endpoints": {}}, "servers": {}},
        {"schema": 2, "generation": "x", "policy": {"endpoints": {}}, "servers": {}},
        {"schema": 2, "generation": 1, "policy": {"endpoints": {"e": {}}}, "servers": {}},
        {"schema": 2, "generation": 1, "policy": {"endpoints": {}}, "servers": {"s": 3}},
        {"schema": 2, "generation": 1, "policy": {"endpoints": []}, "servers": {}},
        {"schema": 2, "generation": 1, "policy": 3, "servers": {}},
        make(3, {}) | {"servers": {"s": {"http": "h", "grpc": "h", "ready": 3}}},
    ],
)
def test_what_is_no_snapshot_is_refused_as_a_whole(document) -> None:
    with pytest.raises(SnapshotInvalid):
        build(document)


keys = st.sampled_from(["schema", "generation", "policy", "endpoints", "servers", "e"])
leaves = st.none() | st.integers() | st.text(max_size=5)


@given(document=st.recursive(leaves, lambda inner: st.dictionaries(keys, inner, max_size=5), max_leaves=12))
def test_arbitrary_json_raises_only_one_error(document) -> None:
    try:
        built = build(document)
    except SnapshotInvalid:
        return
    assert built.generation == document["generation"]
