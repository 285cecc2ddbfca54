"""Real runs: parallelism, time-outs, retries, cache, failures, cancellation. Asserted on the run's own events."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import roblox_ml as rml
from roblox_ml._backends.local import LocalExecutor
from roblox_ml._store import open_store
from roblox_ml.errors import RunError, RunFailed, RunNotFound


def events(run: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.path / "events.jsonl").read_text().splitlines()]


def go(built: Any, **arguments: Any) -> Any:
    return LocalExecutor().run(built, arguments, progress=False)


def failing(built: Any, **arguments: Any) -> Any:
    with pytest.raises(RunFailed) as caught:
        go(built, **arguments)
    return caught.value


WAITING = """
@rml.step
def a{n}(place: str) -> int:
    Path(place, "a{n}").touch()
    deadline = time.monotonic() + 60
    while len(list(Path(place).iterdir())) < 6 and time.monotonic() < deadline:
        time.sleep(0.01)
    return len(list(Path(place).iterdir()))
"""


def test_six_independent_waiting_steps_overlap(build: Callable[[str], Any], tmp_path: Path) -> None:
    # Each step returns when all six have begun: with fewer at once this could not end well.
    place = tmp_path / "begun"
    place.mkdir()
    steps = "".join(WAITING.format(n=n) for n in range(6))
    calls = "\n    ".join(f"a{n}(place)" for n in range(6))
    run = go(build(f"{steps}\n@rml.pipeline\ndef six(place: str):\n    {calls}\n"), place=str(place))
    assert [run.outputs[f"a{n}"] for n in range(6)] == [6] * 6
    open_now, most = set(), 0
    for event in events(run):
        if event["event"] == "task_started":
            open_now.add(event["task"])
        elif event["event"] == "task_finished":
            open_now.discard(event["task"])
        most = max(most, len(open_now))
    assert most == 6


def test_slots_bound_how_many_run_at_once(build: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RML_LOCAL_SLOTS", "2")
    run = go(
        build("@rml.step\ndef f(x: int) -> int:\n    return x\n@rml.pipeline\ndef p():\n    f.map([1, 2, 3, 4, 5])\n")
    )
    running, most = 0, 0
    for event in events(run):
        running += {"task_started": 1, "task_finished": -1}.get(event["event"], 0)
        most = max(most, running)
    assert run.outputs["f"] == [1, 2, 3, 4, 5]
    assert most <= 2


TIMEOUT = """
@rml.step(timeout="2s")
def stuck(place: str) -> int:
    import subprocess
    child = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"])
    away = subprocess.Popen(["sleep", "600"], start_new_session=True)
    Path(place).write_text(f"{os.getpid()} {child.pid} {away.pid}")
    time.sleep(600)
    return 1

@rml.step
def other() -> int:
    return 7

@rml.step
def after(n: int) -> int:
    return n

@rml.pipeline
def stuck_pipeline(place: str):
    after(stuck(place))
    other()
"""


def test_a_step_over_its_time_out_is_ended_with_its_children(
    build: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RML_LOCAL_GRACE", "0.5")
    error = failing(build(TIMEOUT), place=str(tmp_path / "pids"))
    assert "ran longer than its time-out of 2 s" in str(error)
    assert {n: t.state for n, t in error.run.tasks.items()} == {
        "stuck": "FAILED",
        "other": "SUCCEEDED",
        "after": "SKIPPED",
    }
    assert error.run.outputs["other"] == 7
    for pid in map(int, (tmp_path / "pids").read_text().split()):
        assert not alive(pid)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_what_a_step_leaves_running_ends_with_it(build: Callable[[str], Any]) -> None:
    source = """
@rml.step
def leave() -> int:
    import subprocess
    return subprocess.Popen(["sleep", "600"]).pid

@rml.pipeline
def leaving():
    leave()
"""
    run = go(build(source))
    assert not alive(run.outputs["leave"])


RETRY = """
@rml.step(retries=3)
def flaky(place: str) -> int:
    seen = Path(place)
    tries = len(seen.read_text()) if seen.exists() else 0
    seen.write_text("x" * (tries + 1))
    print("try", tries + 1)
    if tries < 2:
        raise ConnectionError("not yet")
    return tries + 1

@rml.pipeline
def flaky_pipeline(place: str):
    flaky(place)
"""


def test_retries_with_growing_pauses_are_recorded(build: Callable[[str], Any], tmp_path: Path) -> None:
    built = build(RETRY)
    quick = type(built)(built.name, built.ir.replace(b'backoffDuration: "1s"', b'backoffDuration: "0.1s"'), built.blobs)
    assert quick.ir != built.ir
    run = go(quick, place=str(tmp_path / "seen"))
    assert run.outputs["flaky"] == 3
    delays = [e["delay"] for e in events(run) if e["event"] == "task_retrying"]
    assert delays == [0.1, 0.2]
    log = run.logs("flaky")
    assert "try 1" in log and "--- attempt 3 ---\ntry 3" in log


EDIT = """
@rml.step
def first() -> rml.Dataset:
    out = rml.Dataset()
    (out.path / "x").write_text("1")
    return out

@rml.step
def second(d: rml.Dataset) -> rml.Dataset:
    out = rml.Dataset()
    (out.path / "x").write_text((d.path / "x").read_text() + "2")
    return out

@rml.step
def third(d: rml.Dataset) -> str:
    return (d.path / "x").read_text() + "3"

@rml.step
def aside(d: rml.Dataset) -> str:
    return "aside"

@rml.pipeline
def edit():
    d = first()
    third(second(d))
    aside(d)
"""


def states(run: Any) -> dict[str, str]:
    return {name: task.state for name, task in run.tasks.items()}


def test_editing_one_step_runs_it_and_its_dependants_again(build: Callable[[str], Any]) -> None:
    go(build(EDIT))
    again = go(build(EDIT))
    assert set(states(again).values()) == {"CACHED"}
    edited = go(build(EDIT.replace('+ "2")', '+ "two")')))
    assert states(edited) == {"first": "CACHED", "aside": "CACHED", "second": "SUCCEEDED", "third": "SUCCEEDED"}
    assert edited.outputs["third"] == "1two3"
    assert LocalExecutor().run(build(EDIT), {}, cache=False, progress=False).tasks["first"].state == "SUCCEEDED"


def test_a_cached_output_that_was_changed_is_made_again(build: Callable[[str], Any]) -> None:
    run = go(build(EDIT))
    (run.outputs["second"].path / "x").write_text("tampered")
    again = go(build(EDIT))
    assert states(again) == {"first": "CACHED", "aside": "CACHED", "second": "SUCCEEDED", "third": "CACHED"}


def test_cache_false_is_never_cached(build: Callable[[str], Any]) -> None:
    built = build("@rml.step(cache=False)\ndef f() -> int:\n    return 1\n@rml.pipeline\ndef p():\n    f()\n")
    go(built)
    assert states(go(built)) == {"f": "SUCCEEDED"}


BROKEN = """
def helper(n):
    return 1 / n

@rml.step
def bad(n: int) -> int:
    print("before the fall")
    return helper(n)

@rml.pipeline
def broken(n: int = 0):
    bad(n)
"""


def test_a_failing_step_shows_the_users_lines_and_what_to_type(build: Callable[[str], Any]) -> None:
    error = failing(build(BROKEN))
    text = str(error)
    assert "ZeroDivisionError" in text and "before the fall" in text and "return 1 / n" in text
    assert "_runtime" not in error.run.logs("bad")
    assert f"rml.get_run({error.run.id!r}).logs('bad')" in text and "debug" in text
    assert "bad" in error.run.error
    assert "ZeroDivisionError" in error.run._repr_html_()


def test_debug_runs_the_step_in_this_process(build: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    run = failing(build(BROKEN)).run
    with pytest.raises(ZeroDivisionError) as caught:
        run.debug("bad")
    assert caught.traceback[-1].name == "helper"
    good = go(build(EDIT))
    before = (good.outputs["second"].path / "x").read_text()
    returned = good.debug("second")
    assert returned.path.is_dir() or returned.metadata == {}
    assert (good.outputs["second"].path / "x").read_text() == before
    assert "rml_step" not in __import__("sys").modules


def test_an_output_that_is_not_what_was_declared_is_named(build: Callable[[str], Any]) -> None:
    text = str(failing(build("@rml.step\ndef f() -> int:\n    return 'one'\n@rml.pipeline\ndef p():\n    f()\n")))
    assert "Output is str 'one', declared as int" in text


def test_cancel_ends_what_runs(build: Callable[[str], Any], tmp_path: Path) -> None:
    source = """
@rml.step
def sleeper(place: str) -> int:
    Path(place).write_text(str(os.getpid()))
    time.sleep(600)
    return 1

@rml.step
def after(n: int) -> int:
    return n

@rml.pipeline
def sleeping(place: str):
    after(sleeper(place))
"""
    place = tmp_path / "pid"
    run = LocalExecutor().run(build(source), {"place": str(place)}, wait=False)
    wait_for(lambda: place.exists() and place.read_text())
    assert run.state == "RUNNING"
    # As another process would do it.
    (run.path / "cancel").touch()
    with pytest.raises(RunFailed, match="cancelled"):
        run.wait(timeout=60)
    assert run.state == "CANCELLED"
    assert not alive(int(place.read_text()))
    assert {t.state for t in run.tasks.values()} == {"CANCELLED"}


def wait_for(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_a_corrupt_bundle_is_refused(build: Callable[[str], Any]) -> None:
    built = build(BROKEN)
    digest = next(
        d
        for d in built.blobs
        if f"--code\n        - {d}" in built.ir.decode() or d in built.ir.decode().split("--code")[1][:90]
    )
    path = open_store().path_of(digest)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x" * len(built.blobs[digest]))
    error = failing(built, n=1)
    assert "damaged" in error.run.logs("bad")


def test_long_inputs_do_not_meet_the_argument_limit(build: Callable[[str], Any]) -> None:
    source = """
@rml.step
def long() -> list[str]:
    return ["word" * 10] * 20000

@rml.step
def count(words: list[str]) -> int:
    return len(words)

@rml.pipeline
def longer():
    count(long())
"""
    assert go(build(source)).outputs["count"] == 20000


def test_runs_at_the_same_time_do_not_meet(build: Callable[[str], Any]) -> None:
    # Nothing is unpacked yet: all of them try at once.
    built = build(EDIT)
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.append(LocalExecutor().run(built, {}, cache=False, progress=False)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [run.outputs["third"] for run in found] == ["123"] * 4
    assert len({run.id for run in found}) == 4


def test_lists_of_runs(build: Callable[[str], Any]) -> None:
    first = go(build(EDIT))
    second = failing(build(BROKEN)).run
    assert [run.id for run in rml.runs()] == [second.id, first.id]
    assert [run.id for run in rml.runs(pipeline="edit")] == [first.id]
    assert len(rml.runs(limit=1)) == 1
    assert first.id in rml.runs()._repr_html_()
    with pytest.raises(RunNotFound):
        rml.get_run("nothing")
    with pytest.raises(RunNotFound, match="did you mean 'third'"):
        first.logs("thrd")


def test_wrong_arguments_are_all_told_before_anything_starts(build: Callable[[str], Any]) -> None:
    built = build(BROKEN)
    with pytest.raises(RunError, match=r"unknown parameter 'm'.*'n' is 'x'"):
        go(built, m=1, n="x")
    assert rml.runs() == []


def test_steps_are_told_what_they_need_and_no_more(
    build: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    source = """
@rml.step(cache=False)
def environment() -> dict:
    wanted = ("RML_RUN_ID", "RML_TASK", "RML_STORE", "RML_HOME", "RML_PIPELINE", "MPLBACKEND", "RML_PARENT_PID")
    return {"env": {k: os.environ.get(k) for k in wanted}, "modules": sorted(sys.modules)}

@rml.pipeline
def telling():
    environment()
"""
    built = build(source)
    go(built)
    run = go(built)
    told = run.outputs["environment"]
    assert told["env"] == {
        "RML_RUN_ID": run.id, "RML_TASK": "environment", "RML_STORE": (Path(os.environ["RML_HOME"]) / "store").as_uri(),
        "RML_HOME": os.environ["RML_HOME"], "RML_PIPELINE": "telling", "MPLBACKEND": "agg", "RML_PARENT_PID": None,
    }  # fmt: skip
    # The second start on a machine: nothing is fetched or unpacked, so nothing that does it is imported.
    heavy = {"kfp", "yaml", "rich", "numpy", "pydantic", "asyncio", "urllib.request", "zipfile", "subprocess"}
    assert heavy & set(told["modules"]) == set()
