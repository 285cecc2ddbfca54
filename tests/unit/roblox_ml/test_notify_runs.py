"""What a run says of itself, and that nothing about the saying can harm it: a spool that is no folder, full, or slow."""

from __future__ import annotations

import dataclasses
import errno
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import roblox_ml as rml
from roblox_ml import _events
from roblox_ml._backends.local import LocalExecutor, resume
from roblox_ml.errors import RunFailed

SOURCE = """
@rml.step(cache=False, retries=1)
def work(place: str) -> int:
    print("epoch 1 of 3")
    print("using", os.environ.get("SOME_API_KEY"), "password=hunter2hunter2")
    if not Path(place, "good").exists():
        raise ValueError("no rows in 2026-11-22")
    return 1

@rml.pipeline
def nightly(place: str):
    work(place)
"""


@pytest.fixture
def build(tmp_path: Path) -> Callable[[str], Any]:
    path = Path(__file__).resolve().parents[2] / "conformance" / "support.py"
    spec = importlib.util.spec_from_file_location("notify_support", path)
    assert spec is not None and spec.loader is not None
    support = importlib.util.module_from_spec(spec)
    sys.modules["notify_support"] = support
    spec.loader.exec_module(support)
    notify = (rml.slack("#ml", on=["failure", "recovery"]), rml.email("a@b.org", on="success"))
    return lambda source: dataclasses.replace(support.build(source, tmp_path), notify=notify)


def spooled() -> list[dict[str, Any]]:
    assert _events.flush(10)
    return sorted((json.loads(path.read_text()) for path in _events.spool().glob("*.json")), key=lambda e: e["at"])


def test_a_failed_run_says_where_and_why_without_its_secrets(
    build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "zq81-very-private")
    with pytest.raises(RunFailed):
        LocalExecutor().run(build(SOURCE), {"place": str(tmp_path)}, progress=False)
    started, retry, failed = spooled()
    assert [e["type"] for e in (started, retry, failed)] == ["run.started", "run.retry", "run.failed"]
    assert {e["pipeline"] for e in (started, retry, failed)} == {"nightly"}
    assert retry["subject"] == {**failed["subject"], "task": "work", "attempt": 1}
    facts = failed["facts"]
    assert facts["step"] == "work" and facts["attempt"] == 2 and facts["error"] == "ValueError: no rows in 2026-11-22"
    assert "epoch 1 of 3" in facts["log"] and any("no rows" in line for line in facts["log"])
    assert [one["target"] for one in failed["notify"]] == ["#ml", "a@b.org"]
    text = json.dumps([started, retry, failed])
    assert "zq81-very-private" not in text and "hunter2" not in text and "********" in text
    for event in (started, retry, failed):
        assert event["id"] == _events.event_id(event["type"], event["subject"])


def test_a_retried_run_that_succeeds_is_another_end(build: Any, tmp_path: Path) -> None:
    with pytest.raises(RunFailed) as failure:
        LocalExecutor().run(build(SOURCE), {"place": str(tmp_path)}, progress=False)
    (tmp_path / "good").touch()
    run = failure.value.run
    resume(run._folder)
    run.wait()
    ends = [(e["type"], e["subject"]["execution"]) for e in spooled() if e["type"] in ("run.failed", "run.succeeded")]
    assert ends == [("run.failed", 1), ("run.succeeded", 2)]


def test_a_trial_of_a_sweep_is_told_of_by_nobody(build: Any, tmp_path: Path) -> None:
    (tmp_path / "good").touch()
    LocalExecutor().run(build(SOURCE), {"place": str(tmp_path)}, progress=False, sweep="s-1")
    assert spooled() == []


def no_folder(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    (home / "spool").write_text("in the way")


def read_only(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    (home / "spool").symlink_to("/sys/kernel")  # not writable, not even by root


def full(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    real = os.fsync

    def fsync(handle: int) -> None:
        if "/spool/events/" in os.readlink(f"/proc/self/fd/{handle}"):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize("harm", [no_folder, read_only, full], ids=lambda harm: harm.__name__)
def test_a_spool_that_cannot_be_written_leaves_the_run_alone_and_is_said_in_its_record(
    harm: Callable[..., None], build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rml_home: Path
) -> None:
    harm(monkeypatch, rml_home)
    (tmp_path / "good").touch()
    run = LocalExecutor().run(build(SOURCE), {"place": str(tmp_path)}, progress=False)
    assert run.state == "SUCCEEDED" and run.outputs["work"] == 1
    last = json.loads((run.path / "events.jsonl").read_text().splitlines()[-1])
    assert last["event"] == "telling_failed" and "spool" in last["reason"]
    assert rml.get_run(run.id).state == "SUCCEEDED"


def test_a_disk_that_hangs_does_not_hang_the_run(build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "good").touch()
    real, release = os.fsync, tmp_path / "release"

    def fsync(handle: int) -> None:
        while "/spool/events/" in os.readlink(f"/proc/self/fd/{handle}") and not release.exists():
            time.sleep(0.05)
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    try:
        run = LocalExecutor().run(build(SOURCE), {"place": str(tmp_path)}, progress=False)
        assert run.state == "SUCCEEDED"
        assert "is slow" in (run.path / "events.jsonl").read_text()
    finally:
        release.touch()
    assert [e["type"] for e in spooled()] == ["run.started", "run.succeeded"], "what was slow arrives"


def test_a_spool_that_nobody_reads_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_events, "_MOST_WAITING", 20)
    hook = rml.webhook("https://example.com/x", on="failure")
    asked = [_events.emit("run.failed", {"run": str(n)}, [hook]).id for n in range(10)]
    for n in range(30):
        _events.emit("run.started", {"run": str(n)}, [])
    _events.flush(10)
    assert _events._WRITER._sent.wait(10)
    found = [e["id"] for e in spooled()]
    assert len(found) <= 20 and set(asked) <= set(found)


def test_an_event_of_any_size_is_small() -> None:
    emission = _events.emit("run.failed", {"run": "r"}, [], log=["x" * 1000] * 1000)
    assert emission.trouble(10) == ""
    assert len(emission.data) < 10_000 and json.loads(emission.data)["facts"]["cut"]
