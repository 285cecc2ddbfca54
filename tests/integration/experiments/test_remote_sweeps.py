"""Sweeps on Kubeflow: the server is the contract server, which carries the very bytes out that it was sent."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import roblox_ml as rml
from roblox_ml._sweeps.driving import Driver

sys.path.insert(0, str(Path(__file__).parents[2] / "contract" / "kfp"))
import kfpserver
from local_engine import LocalEngine

AWAY = """
import os, time
import roblox_ml as rml

@rml.step
def train(lr: float, kind: str) -> rml.Metrics:
    if kind == "broken":
        raise ValueError("this kind never works")
    os.environ.pop("RML_REPORTS", None)  # as in a pod: what is reported goes into the log
    for epoch in range(4):
        rml.report(epoch, lr * (epoch + 1) / 4)
    return rml.Metrics(f1=lr)

@rml.pipeline
def away(lr: float, kind: str = "a"):
    train(lr, kind)
"""


@pytest.fixture
def kubeflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    pytest.importorskip("kfp", reason="kfp is not installed")
    from roblox_ml._backends.kfp import connection

    monkeypatch.setattr("roblox_ml._backends.kfp.logs.kubernetes", lambda context: None)
    monkeypatch.setattr("roblox_ml._sweeps.beginning._LOOK_REMOTE", 0.1)
    engine, artifacts = LocalEngine(), tmp_path / "bucket"
    with kfpserver.running(engine=engine, artifacts=artifacts) as server:
        yield rml.connect(server.url, pipeline_root=artifacts.as_uri())
        engine.close()
    connection._last.clear()


@pytest.fixture
def away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "away.py").write_text(AWAY)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("away", None)
    from importlib import import_module

    return import_module("away").away


def test_trials_run_there_fail_there_and_are_found_again(
    kubeflow: Any, away: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    axes = {"lr": rml.choice([0.25, 0.5, 0.75]), "kind": rml.choice(["a", "broken"])}
    asked: dict[str, Any] = {
        "metric": "train.f1",
        "sampler": "grid",
        "parallel": 2,
        "on": kubeflow,
        "pruner": "none",
        "progress": False,
    }
    look, looks = Driver._look, []

    def interrupted(self: Driver, one: Any) -> bool:
        looks.append(one)
        if len(looks) == 4:
            raise KeyboardInterrupt
        return look(self, one)

    monkeypatch.setattr(Driver, "_look", interrupted)
    with pytest.raises(KeyboardInterrupt):
        rml.sweep(away, axes, **asked)
    (stopped,) = rml.sweeps()
    assert stopped.state == "STOPPED"
    begun = {t.number: t.run for t in stopped.trials}
    done = rml.sweep(away, axes, **asked)
    assert done.state == "FINISHED" and begun.items() <= {t.number: t.run for t in done.trials}.items()
    # Six runs on the server, not one more, each called after its trial and marked with the sweep.
    runs = kubeflow.runs(labels={"rml-sweep": done.name}, limit=100)
    assert len(runs) == 6 and {r.id for r in runs} == {t.run for t in done.trials}
    assert sorted(r.name[-6:] for r in runs) == [f"-t{n:04d}" for n in range(6)]
    states = {(t.params["lr"], t.params["kind"]): t.state for t in done.trials}
    assert {state for (_, kind), state in states.items() if kind == "broken"} == {"FAILED"}
    assert done.best.params == {"lr": 0.75, "kind": "a"} and done.best.value == 0.75
    reported = {t.params["lr"]: t.reports for t in done.trials if t.state == "SUCCEEDED"}
    assert reported[0.5] == ((0, 0.125), (1, 0.25), (2, 0.375), (3, 0.5))
    assert kubeflow.run(done.best.run).state == "SUCCEEDED"
    compared = rml.compare([kubeflow.run(t.run) for t in done.ranked()[:2]])
    assert compared.parameters == ["lr"] and compared.metrics == ["train.f1"]
    assert done.run(done.best.number).id == done.best.run
