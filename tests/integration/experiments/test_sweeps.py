"""Sweeps with real steps: pruning, parallel trials, failures, a driver that is killed with -9 and goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import roblox_ml as rml
from roblox_ml._sweeps.optimiser import point
from roblox_ml.errors import RunError

TUNED = """
import os, time
from pathlib import Path
import roblox_ml as rml

@rml.step
def prepare(place: str) -> int:
    with open(place + "/prepared", "a") as f:
        f.write("x")
    time.sleep(0.2)
    return 1

@rml.step
def train(base: int, lr: float, kind: str, place: str) -> float:
    if kind == "broken":
        raise ValueError("this kind never works")
    top = 1 - (lr - 0.5) ** 2 + (0.1 if kind == "b" else 0.0)
    for epoch in range(8):
        value = top * (epoch + 1) / 8
        rml.report(epoch, value)
        time.sleep(0.03)
    with open(place + "/trained", "a") as f:
        f.write(os.environ["RML_RUN_ID"] + "\\n")
    return value

@rml.step
def evaluate(value: float) -> rml.Metrics:
    return rml.Metrics(f1=value, lost=1 - value)

@rml.pipeline
def tuned(lr: float, place: str, kind: str = "a"):
    evaluate(train(prepare(place), lr, kind, place))
"""
PROGRAM = """
import sys
sys.path.insert(0, {folder!r})
import roblox_ml as rml
from tuned import tuned
rml.sweep(tuned, {{"lr": rml.uniform(0, 1), "kind": rml.choice(["a", "b"]), "place": {place!r}}},
          metric="evaluate.f1", trials=24, parallel=2, sampler={sampler!r}, name="killed")
"""


@pytest.fixture
def tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "tuned.py").write_text(TUNED)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("tuned", None)
    from importlib import import_module

    return import_module("tuned").tuned


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "place"
    folder.mkdir()
    return folder


def wait_for(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def space(place: Path, **more: Any) -> dict[str, Any]:
    return {"lr": rml.uniform(0, 1), "kind": rml.choice(["a", "b"]), "place": str(place), **more}


@pytest.mark.slow
def test_a_killed_sweep_goes_on_and_repeats_nothing(tuned: Any, place: Path, rml_home: Path, tmp_path: Path) -> None:
    program = PROGRAM.format(folder=str(tmp_path), place=str(place), sampler="random")
    state = rml_home / "sweeps" / "killed" / "state.json"
    ended: dict[int, dict[str, Any]] = {}
    for kills in (4, 11):  # killed twice: with some trials done, and again with more
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL) as driver:

            def so_many(least: int = kills) -> bool:
                trials = json.loads(state.read_text())["trials"] if state.is_file() else []
                # In the middle of a trial, so that there is one to be found again.
                amid = any(t["state"] == "RUNNING" and len(t["reports"]) > 1 for t in trials)
                return amid and sum(t["state"] in ("SUCCEEDED", "PRUNED") for t in trials) >= least

            def halted_amid() -> bool:
                """Looked at again while it stands still: what is read is what the kill finds."""
                if not so_many():
                    return False
                os.kill(driver.pid, signal.SIGSTOP)
                if so_many():
                    return True
                os.kill(driver.pid, signal.SIGCONT)
                return False

            wait_for(lambda: driver.poll() is not None or halted_amid())
            assert driver.poll() is None, "it ended before it was killed"
            os.kill(driver.pid, signal.SIGKILL)
        before = {t["number"]: t for t in json.loads(state.read_text())["trials"]}
        amid = [t["run"] for t in before.values() if t["state"] == "RUNNING"]
        assert amid
        for number, trial in ended.items():  # what was finished before the first kill is word for word the same
            assert before[number] == trial
        ended = {n: t for n, t in before.items() if t["state"] in ("SUCCEEDED", "PRUNED", "FAILED")}
    assert rml.get_sweep("killed").state == "INTERRUPTED"

    sweep = rml.sweep(
        tuned,
        space(place),
        metric="evaluate.f1",
        trials=24,
        parallel=2,
        sampler="random",
        name="killed",
        progress=False,
    )
    after = {t.number: t for t in sweep.trials}
    assert sweep.state == "FINISHED" and sorted(after) == list(range(24))
    for number, trial in ended.items():
        assert (after[number].run, after[number].state, after[number].value) == (
            trial["run"],
            trial["state"],
            trial["value"],
        )
    # Every trial has one run, each run trained to its end at most once, nothing failed, something was pruned.
    trained = Counter((place / "trained").read_text().split())
    assert set(trained.values()) == {1} and set(trained) <= {t.run for t in after.values()}
    # The trial in whose middle it was killed went on in its own run.
    assert set(amid) <= {t.run for t in after.values()}
    # (Unless what it had reported by then was enough to prune it: then there was nothing to go on with.)
    came_to = {t.run: t.state for t in after.values()}
    starts = {run: (rml.get_run(run).path / "events.jsonl").read_text().count('"run_started"') for run in amid}
    assert all(starts[run] > 1 or came_to[run] == "PRUNED" for run in amid), (starts, came_to)
    states = Counter(t.state for t in after.values())
    assert states["FAILED"] == 0 and states["PRUNED"] > 0 and states["SUCCEEDED"] > 0
    for trial in after.values():
        run = rml.get_run(trial.run)
        assert run.state == ("SUCCEEDED" if trial.state == "SUCCEEDED" else "CANCELLED")
        if trial.state == "PRUNED":
            assert run.error.startswith("pruned at step") and trial.reason == run.error
    # The shared step ran once for all, though two trials began with it at the same time and it was killed twice.
    assert len((place / "prepared").read_text()) <= 3
    # The best is the one that a sweep without any kill would have found: points depend on seed and number alone.
    points = {n: point(sweep.definition, n) for n in range(24)}
    assert {n: dict(t.params) for n, t in after.items()} == points
    truth = max(points, key=lambda n: 1 - (points[n]["lr"] - 0.5) ** 2 + (0.1 if points[n]["kind"] == "b" else 0))
    assert sweep.best.number == truth and sweep.best_run.state == "SUCCEEDED"

    compared = rml.compare(sweep)
    assert compared.runs[0].label == f"trial {truth}"
    assert {"lr", "kind"} <= set(compared.parameters) and "evaluate.f1" in compared.metrics
    assert "<svg" in compared._repr_html_() and "<svg" in sweep._repr_html_()


def test_trials_that_fail_do_not_end_the_sweep(tuned: Any, place: Path) -> None:
    kinds = {"lr": rml.choice([0.25, 0.5]), "kind": rml.choice(["a", "broken"]), "place": str(place)}
    sweep = rml.sweep(tuned, kinds, metric="evaluate.f1", sampler="grid", parallel=2, pruner="none", progress=False)
    states = {(t.params["lr"], t.params["kind"]): t for t in sweep.trials}
    assert len(states) == 4
    # Two trials began with the shared step at the same moment, and it ran once.
    assert (place / "prepared").read_text() == "x"
    assert {k: t.state for k, t in states.items()} == {
        (0.25, "a"): "SUCCEEDED", (0.5, "a"): "SUCCEEDED", (0.25, "broken"): "FAILED", (0.5, "broken"): "FAILED"
    }  # fmt: skip
    assert "this kind never works" in states[0.5, "broken"].reason
    assert sweep.best.params == {"lr": 0.5, "kind": "a"} and sweep.best.value == pytest.approx(1.0)
    # It goes on by name, with the code it was begun with; nothing is left of the grid.
    runs = [t.run for t in sweep.trials]
    assert [t.run for t in sweep.resume(trials=9).trials] == runs


def test_a_sweep_in_which_everything_fails_says_why(tuned: Any, place: Path) -> None:
    only = {"lr": rml.choice([0.25, 0.5]), "kind": "broken", "place": str(place)}
    with pytest.raises(RunError, match="all 2 trials"):
        rml.sweep(tuned, only, metric="evaluate.f1", sampler="grid", progress=False)


def test_minimising_by_tpe_within_a_budget_and_on(tuned: Any, place: Path) -> None:
    asked: dict[str, Any] = {
        "metric": "evaluate.lost",
        "direction": "minimize",
        "pruner": "none",
        "name": "tpe",
        "progress": False,
    }
    first = rml.sweep(tuned, space(place), trials=6, parallel=3, budget=0.0, **asked)
    assert first.state == "STOPPED" and first.trials == [] and "budget" in first.notes[0]
    more = rml.sweep(tuned, space(place), trials=6, parallel=3, budget="1h", **asked)
    assert more.state == "FINISHED" and len(more.trials) == 6
    assert more.best.value == min(t.value for t in more.trials if t.value is not None)
    runs = [t.run for t in more.trials]  # a sweep object shows its record as it is now
    longer = more.resume(trials=8)
    assert len(longer.trials) == 8 and [t.run for t in longer.trials[:6]] == runs
    with pytest.raises(RunError, match="begun with something else: direction"):
        rml.sweep(tuned, space(place), trials=8, **{**asked, "direction": "maximize"})
    anew = rml.sweep(tuned, space(place), trials=1, resume=False, **asked)
    assert len(anew.trials) == 1 and anew.trials[0].run not in runs
    assert sorted(s.name.split("-until-")[0] for s in rml.sweeps()) == ["tpe", "tpe"]


def test_two_drivers_of_one_sweep_are_refused(tuned: Any, place: Path, rml_home: Path) -> None:
    made = rml.sweep(tuned, space(place), metric="evaluate.f1", trials=1, sampler="random", name="mine", progress=False)
    handle = made._folder.lock()
    assert handle is not None
    try:
        with pytest.raises(RunError, match="another process"):
            made.resume(trials=2)
    finally:
        os.close(handle)
    assert len(made.resume(trials=2).trials) == 2


def test_a_run_cancelled_by_somebody_is_a_failed_trial(tuned: Any, place: Path) -> None:
    import threading

    def cancel() -> None:
        wait_for(lambda: any(t.run and t.state == "RUNNING" for s in rml.sweeps() for t in s.trials))
        trial = rml.sweeps()[0].trials[0]
        wait_for(lambda: rml.get_run(trial.run).state == "RUNNING")
        rml.get_run(trial.run).cancel()

    helper = threading.Thread(target=cancel)
    helper.start()
    sweep = rml.sweep(tuned, space(place), metric="evaluate.f1", trials=3, sampler="random", progress=False)
    helper.join()
    assert [t.state for t in sweep.trials].count("FAILED") == 1 and sweep.trials[0].reason == "cancelled"
