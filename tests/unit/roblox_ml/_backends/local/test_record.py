"""The event log on disk: torn lines, damage, one writer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from roblox_ml._backends.local.record import EventLog, EventReader, RunFolder
from roblox_ml.errors import RunError, RunNotFound


def write(folder: RunFolder, count: int) -> None:
    log = EventLog(folder)
    log.append("run_started", pid=1, identity="", tasks=[f"t{i}" for i in range(count)])
    for i in range(count):
        log.append("task_skipped", task=f"t{i}", reason="ünïcode")
    log.close()


def test_what_is_appended_is_read(rml_home: Path) -> None:
    folder = RunFolder.create("r-1", {"pipeline": "p", "arguments": {}}, b"ir")
    write(folder, 3)
    state = EventReader(folder.events_path).poll()
    assert state.seq == 4 and [t.state for t in state.tasks.values()] == ["SKIPPED"] * 3


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keep=st.integers(0, 10_000))
def test_a_log_cut_anywhere_is_read_and_continued(keep: int, tmp_path: Path) -> None:
    path = tmp_path / "r"
    (path / "logs").mkdir(parents=True, exist_ok=True)
    (path / "events.jsonl").write_bytes(b"")
    folder = RunFolder(path)
    write(folder, 5)
    whole = folder.events_path.read_bytes()
    cut = keep % (len(whole) + 1)
    folder.events_path.write_bytes(whole[:cut])
    assert EventReader(folder.events_path).poll().seq == whole[:cut].count(b"\n")
    log = EventLog(folder)
    log.append("run_finished", state="FAILED", reason="")
    log.close()
    numbers = [json.loads(line)["seq"] for line in folder.events_path.read_text().splitlines()]
    assert numbers == list(range(1, whole[:cut].count(b"\n") + 2))


def test_damage_in_the_middle_is_not_passed_over(rml_home: Path) -> None:
    folder = RunFolder.create("r-1", {"pipeline": "p"}, b"")
    write(folder, 2)
    text = folder.events_path.read_bytes()
    folder.events_path.write_bytes(text.replace(b'"seq"', b"seq", 1))
    with pytest.raises(RunError, match="damaged at byte 0"):
        EventReader(folder.events_path).poll()


def test_the_lock_has_one_holder(rml_home: Path) -> None:
    import os

    folder = RunFolder.create("r-1", {}, b"")
    assert not folder.is_attended()
    held = folder.lock()
    assert held is not None and folder.lock() is None and folder.is_attended()
    os.close(held)
    assert not folder.is_attended()


@dataclass
class Notice:
    kind: str


def test_what_is_not_json_is_recorded_as_its_fields(rml_home: Path) -> None:
    folder = RunFolder.create("r-1", {"notify": (Notice("slack"),), "path": Path("x")}, b"")
    assert folder.about["notify"] == [{"kind": "slack"}] and folder.about["path"] == "x"


@pytest.mark.parametrize("name", ["", "nothing", "../runs", "."])
def test_no_such_run(name: str, rml_home: Path) -> None:
    with pytest.raises(RunNotFound):
        RunFolder.open(name)
