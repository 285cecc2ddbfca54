"""`rml.gc` beside a real control plane: what a registered version needs stays, with the run that made it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import roblox_ml as rml
from roblox_ml._store import open_store


def aged(folder: Path) -> None:
    then = time.time() - 30 * 86400
    for path in folder.rglob("*"):
        os.utime(path, (then, then))


def test_a_registered_version_keeps_its_files_and_its_run(planes, package, rml_home: Path, monkeypatch) -> None:
    plane = planes()
    monkeypatch.setenv("RML_CONTROL_URL", f"http://127.0.0.1:{plane.port}")
    code = open_store().put(b"code of the step")
    for run in ("made-it", "made-nothing"):
        (rml_home / "runs" / run).mkdir(parents=True)
        (rml_home / "runs" / run / "run.json").write_text("{}")
    body = package(2.0, lineage={"kind": "pipeline", "run": "made-it", "code": code})
    registered = plane.client().register("scale", body)
    orphan = open_store().put(b"nobody knows me")
    needed = {entry["sha256"] for entry in body["manifest"].values()} | {code}
    for folder in ("store", "runs"):
        aged(rml_home / folder)

    report = rml.gc(dry_run=False, keep_runs=0)

    assert {digest for digest, _ in open_store().digests()} == needed
    assert not open_store().has(orphan) and report.freed > 0
    assert [path.name for path in sorted((rml_home / "runs").iterdir())] == ["made-it"]
    assert plane.client().version("scale", registered["version"])["digest"] == registered["digest"]


def test_a_sweep_keeps_what_a_resume_of_it_needs(planes, rml_home: Path, monkeypatch) -> None:
    monkeypatch.setenv("RML_CONTROL_URL", f"http://127.0.0.1:{planes().port}")
    store = open_store()
    bundle, code, orphan = (store.put(data) for data in (b"a bundle", b"code of a step", b"nobody knows me"))
    folder = rml_home / "sweeps" / "lr"
    folder.mkdir(parents=True)
    (folder / "sweep.json").write_text(json.dumps({"schema": 1, "blobs": [bundle]}))
    (folder / "ir.yaml").write_text(f"args: [--code, {code}]\n")
    for name in ("store", "sweeps"):
        aged(rml_home / name)
    rml.gc(dry_run=False, keep_runs=0)
    assert {digest for digest, _ in store.digests()} == {bundle, code} and not store.has(orphan)


def test_a_control_plane_that_is_down_keeps_everything(planes, package, rml_home: Path, monkeypatch) -> None:
    plane = planes()
    monkeypatch.setenv("RML_CONTROL_URL", f"http://127.0.0.1:{plane.port}")
    plane.client().register("scale", package(2.0, lineage={"kind": "external", "origin": "a test", "by": "me"}))
    orphan = open_store().put(b"nobody knows me")
    aged(rml_home / "store")
    plane.kill()
    assert "does not answer" in str(rml.gc(dry_run=False, keep_runs=0))
    assert open_store().has(orphan)
    plane.start()
    rml.gc(dry_run=False, keep_runs=0)
    assert not open_store().has(orphan)


def test_a_control_plane_that_says_no_keeps_everything(planes, package, rml_home: Path, monkeypatch) -> None:
    plane = planes()
    monkeypatch.setenv("RML_CONTROL_URL", f"http://127.0.0.1:{plane.port}")
    monkeypatch.setenv("RML_TOKEN", "wrong")
    orphan = open_store().put(b"nobody knows me")
    aged(rml_home / "store")
    rml.gc(dry_run=False, keep_runs=0)
    assert open_store().has(orphan)
