"""The collector deletes nothing that anything kept refers to, and everything that is old and unreferred."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import roblox_ml as rml
from roblox_ml._gc import Node, mark, mentions, plan, seconds_of
from roblox_ml._store import open_store
from roblox_ml.errors import RmlSdkError

KINDS = ("run", "environment", "copy", "blob")


@st.composite
def graphs(draw) -> list[Node]:
    count = draw(st.integers(0, 12))
    keys = [f"n{i}" for i in range(count)]
    return [
        Node(
            key,
            draw(st.sampled_from(KINDS)),
            size=draw(st.integers(0, 100)),
            used=draw(st.floats(0, 100)),
            refers=frozenset(draw(st.lists(st.sampled_from([*keys, "unknown"]), max_size=4))),
            pinned=draw(st.booleans()),
        )
        for key in keys
    ]


@given(graphs(), st.integers(0, 4), st.floats(0, 100), st.sets(st.sampled_from(KINDS)))
def test_nothing_a_kept_thing_refers_to_is_deleted(nodes, keep_runs, older_than, closed) -> None:
    decided = plan(
        nodes, now=100.0, older_than=older_than, keep_runs=keep_runs, untouchable=dict.fromkeys(closed, "asleep")
    )
    gone = {node.key for node in decided.delete}
    kept = {node.key: node for node in decided.keep}
    assert gone.isdisjoint(kept) and gone | set(kept) == {node.key for node in nodes}
    for node in kept.values():
        assert gone.isdisjoint(node.refers)
    for node in nodes:
        if node.pinned or node.kind in closed or 100.0 - node.used < older_than:
            assert node.key in kept
    runs = sorted((node for node in nodes if node.kind == "run"), key=lambda node: node.used, reverse=True)
    assert sum(node.key in kept for node in runs) >= min(keep_runs, len(runs))


@given(graphs())
def test_what_is_old_and_unreferred_goes(nodes) -> None:
    decided = plan(nodes, now=1000.0, older_than=1.0, keep_runs=0)
    reached = mark({node.key: node for node in nodes}, [node.key for node in nodes if node.pinned])
    assert {node.key for node in decided.keep} == reached


def test_mark_follows_cycles_and_ignores_what_is_not_there() -> None:
    nodes = {
        "a": Node("a", "run", refers=frozenset({"b", "gone"})),
        "b": Node("b", "blob", refers=frozenset({"a"})),
        "c": Node("c", "blob"),
    }
    assert mark(nodes, ["a", "missing"]) == {"a", "b"}


def test_mentions_finds_digests_and_run_ids_in_any_text() -> None:
    digest = "ab" * 32
    names = {digest: frozenset({"blob:1", "environment:1"}), "run-7": frozenset({"run:7"}), "run-77": frozenset({"x"})}
    assert mentions(f'{{"args": ["--code", "{digest}"], "uri": "file:///h/runs/run-7/out"}}', names) == {
        "blob:1",
        "environment:1",
        "run:7",
    }
    assert mentions(f"sha256-{digest}", names) == {"blob:1", "environment:1"}
    assert mentions(digest + "0", names) == set()


@pytest.mark.parametrize(("text", "seconds"), [("7d", 604800), ("12h", 43200), ("1.5m", 90), (3, 3)])
def test_spans(text, seconds) -> None:
    assert seconds_of(text) == seconds


def test_a_bad_span_says_how_to_write_one() -> None:
    with pytest.raises(RmlSdkError, match="'7d'"):
        rml.gc(older_than="a week")


def aged(path: Path, days: float = 30.0) -> None:
    then = time.time() - days * 86400
    for file in [path, *path.rglob("*")]:
        os.utime(file, (then, then))


@pytest.fixture
def no_registry(monkeypatch: pytest.MonkeyPatch, free_port) -> None:
    """Nothing listens where the control plane would; by default that means there is none."""
    monkeypatch.setenv("RML_CONTROL_PORT", str(free_port()))


def test_a_home_is_swept_and_what_is_referred_to_stays(rml_home: Path, no_registry: None) -> None:
    store = open_store()
    ref = rml.datasets.add("comments", {"a.csv": b"kept by the data set"})
    bundle, orphan, shared = (
        store.put(b"bundle of the kept run"),
        store.put(b"nobody wants me"),
        store.put(b"old artifact"),
    )
    manifest = store.put(json.dumps({"files": {"x": {"sha256": shared, "size": 12}}}).encode())
    lock, stale_lock = "1" * 64, "2" * 64
    for name, text in {
        "old-run": {"bundle": orphan},
        "source-run": {"art": manifest},
        "new-run": {"code": bundle, "lock": lock, "cached": "file:///x/runs/source-run/out"},
    }.items():
        (rml_home / "runs" / name).mkdir(parents=True)
        (rml_home / "runs" / name / "record.json").write_text(json.dumps(text))
    for digest in (lock, stale_lock):
        (rml_home / "envs" / digest).mkdir(parents=True)
        (rml_home / "envs" / digest / ".complete").write_text(digest)
    aged(rml_home)
    aged(rml_home / "runs" / "new-run", 0)

    results = {}
    for key, run in {"3" * 64: "old-run", "4" * 64: "source-run"}.items():
        results[run] = rml_home / "cache" / "tasks" / key[:2] / f"{key}.json"
        results[run].parent.mkdir(parents=True)
        results[run].write_text(json.dumps({"source": f"{run}/train"}))
    aged(rml_home / "cache")
    (rml_home / "runs" / ".gc-killed").mkdir()

    before = {digest for digest, _ in store.digests()}
    planned = rml.gc(keep_runs=0)
    assert {digest for digest, _ in store.digests()} == before, "a dry run deletes nothing"
    report = rml.gc(dry_run=False, keep_runs=0)

    assert [node.key for node in report.plan.delete] == [node.key for node in planned.plan.delete]
    assert sorted(path.name for path in (rml_home / "runs").iterdir()) == ["new-run", "source-run"]
    assert {digest for digest, _ in store.digests()} == {bundle, manifest, shared, *ref.blobs}
    assert (rml_home / "envs" / lock).is_dir() and not (rml_home / "envs" / stale_lock).exists()
    assert results["source-run"].exists() and not results["old-run"].exists(), "results go with their run"
    assert report.freed >= len(b"nobody wants me")
    assert "blob" in str(report) and "<table>" in report._repr_html_()


def test_a_run_that_goes_on_stays(rml_home: Path, no_registry: None) -> None:
    import fcntl

    for name in ("busy", "ended"):
        (rml_home / "runs" / name).mkdir(parents=True)
        (rml_home / "runs" / name / "lock").touch()
    with (rml_home / "runs" / "busy" / "lock").open() as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        aged(rml_home)
        rml.gc(dry_run=False, keep_runs=0)
    assert [path.name for path in (rml_home / "runs").iterdir()] == ["busy"]


def test_no_blob_is_touched_while_a_registry_does_not_answer(rml_home: Path, no_registry: None) -> None:
    (rml_home / "control.db").touch()
    digest = open_store().put(b"perhaps a model")
    aged(rml_home)
    report = rml.gc(dry_run=False, keep_runs=0)
    assert open_store().has(digest)
    assert "registry" in str(report)


def test_a_shared_store_is_left_alone(rml_home: Path, no_registry: None, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("RML_STORE", (tmp_path / "shared").as_uri())
    digest = open_store().put(b"somebody else's")
    aged(tmp_path / "shared")
    rml.gc(dry_run=False, keep_runs=0)
    assert open_store().has(digest)


def test_a_blob_stored_again_while_the_collector_runs_survives(rml_home: Path, no_registry: None, monkeypatch) -> None:
    from roblox_ml import housekeeping

    digest = open_store().put(b"wanted again")
    aged(rml_home)
    real = housekeeping._delete

    def meanwhile(node, before):
        open_store().put(b"wanted again")
        return real(node, before)

    monkeypatch.setattr(housekeeping, "_delete", meanwhile)
    report = rml.gc(dry_run=False, keep_runs=0)
    assert open_store().get(digest) == b"wanted again"
    assert report.plan.delete == ()


def test_what_the_registry_needs_stays(rml_home: Path, monkeypatch) -> None:
    """A stand-in answers as the control plane does; the real one is asked in the integration tests."""
    from roblox_ml._runtime import control

    needed, free = open_store().put(b"a registered file"), open_store().put(b"garbage for both")
    (rml_home / "runs" / "trained-it").mkdir(parents=True)
    (rml_home / "runs" / "trained-it" / "record.json").write_text("{}")
    (rml_home / "control.db").touch()
    aged(rml_home)
    answers = {
        "/v1/models": {"models": [{"name": "m"}]},
        "/v1/models/m/versions": {"versions": [{"version": 1}]},
        "/v1/models/m/versions/1": {"lineage": {"run": "trained-it"}},
        "/v1/gc": {"blobs": [{"sha256": free, "size": 1}]},
    }
    sent = []

    def call(self, method, path, body=None):
        sent.append((method, path, body))
        return answers[path]

    monkeypatch.setattr(control.ControlPlane, "call", call)
    rml.gc(dry_run=False, keep_runs=0)
    assert [digest for digest, _ in open_store().digests()] == [needed]
    assert (rml_home / "runs" / "trained-it").is_dir(), "lineage keeps the run"
    assert all(body["dry_run"] for _, path, body in sent if path == "/v1/gc")


def test_the_registry_that_is_asked_is_this_home_s(rml_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RML_CONTROL_URL", raising=False)
    monkeypatch.setattr("roblox_ml._stack.address", lambda part: "http://127.0.0.1:4711")
    asked = []

    def call(self, method, path, body=None):
        asked.append(self.url)
        return {"models": [], "blobs": []}

    monkeypatch.setattr("roblox_ml._runtime.control.ControlPlane.call", call)
    rml.gc()
    assert set(asked) == {"http://127.0.0.1:4711"}
