"""Runs in a real MLflow server: a run per run, a child per step, from outside and from within; and without a server."""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from roblox_ml._backends.local import LocalExecutor
from roblox_ml._runtime.tracking import Mlflow

ROOT = Path(__file__).resolve().parents[3]


def load(name: str, path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


support = load("experiments_support", ROOT / "tests/conformance/support.py")
Server = load("experiments_mlflow", ROOT / "tests/integration/control_plane/test_mlflow.py").Server

SOURCE = """
@rml.step
def train(lr: float, epochs: int = 3) -> rml.Metrics:
    for epoch in range(epochs):
        rml.report(epoch, lr * epoch)
    rml.card("Training").metric("loss", lr)
    return rml.Metrics(f1=0.5 + lr, nothing="text")

@rml.step
def score(m: rml.Metrics) -> float:
    return m["f1"] * 2

@rml.step
def broken(x: float) -> int:
    raise ValueError("on purpose")

@rml.pipeline
def tracked(lr: float = 0.25, fails: bool = False):
    value = score(train(lr))
    with rml.when(value < 0):
        broken(value)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("mlflow")
    one = Server(folder, port)
    one.start()
    yield one
    one.stop()


def runs_of(server: Any, run_id: str) -> list[Any]:
    import mlflow

    client = mlflow.MlflowClient(server.url)
    experiments = [e.experiment_id for e in client.search_experiments()]
    return list(client.search_runs(experiments, f"tags.`rml.run` = '{run_id}'"))


def eventually(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + 90
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.1)
    return found


def is_mirrored(run: Any) -> bool:
    try:
        return bool(json.loads((run.path / "mlflow.json").read_text()).get("state") == run.state)
    except OSError:
        return False


def test_a_run_and_its_steps_are_tracked_without_a_package(
    server: Any, tmp_path: Path, rml_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RML_MLFLOW_URL", server.url)
    run = LocalExecutor().run(support.build(SOURCE, tmp_path), {"lr": 0.25}, progress=False)
    eventually(lambda: is_mirrored(run), "the mirror")
    found = runs_of(server, run.id)
    (parent,) = [r for r in found if r.data.tags.get("rml.kind") == "pipeline"]
    children = {r.data.tags["rml.task"]: r for r in found if r is not parent}
    assert parent.info.status == "FINISHED" and parent.data.params == {"lr": "0.25"}
    assert parent.data.metrics == {"train.f1": 0.75, "score": 1.5}
    assert set(children) == {"train", "score"}
    assert {r.data.tags["mlflow.parentRunId"] for r in children.values()} == {parent.info.run_id}
    train = children["train"]
    assert train.data.metrics["f1"] == 0.75 and train.data.params == {"lr": "0.25", "epochs": "3"}
    import mlflow

    client = mlflow.MlflowClient(server.url)
    assert [m.value for m in client.get_metric_history(train.info.run_id, "reported")] == [0.0, 0.25, 0.5]
    assert [a.path for a in client.list_artifacts(train.info.run_id)] == ["card.html"]
    # Nothing is left to catch up, and a second run (from the cache) is a run of its own that says where it comes from.
    assert list((rml_home / "spool/tracking").iterdir()) == []
    again = LocalExecutor().run(support.build(SOURCE, tmp_path), {"lr": 0.25}, progress=False)
    eventually(lambda: is_mirrored(again), "the second mirror")
    cached = [r for r in runs_of(server, again.id) if r.data.tags.get("rml.task") == "train"]
    assert [r.data.tags["rml.cached_from"] for r in cached] == [f"{run.id}/train"]
    assert cached[0].data.metrics["f1"] == 0.75


AUTOLOGGED = """
import roblox_ml as rml

@rml.step(packages=["mlflow=={mlflow}"])
def fit(c: float) -> rml.Metrics:
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression
    X, y = load_iris(return_X_y=True)
    model = LogisticRegression(C=c, max_iter=500).fit(X, y)
    import mlflow
    mlflow.log_metric("mine", 1.5)
    return rml.Metrics(f1=float(model.score(X, y)))

@rml.pipeline
def autologged(c: float = 0.5):
    fit(c)
"""


def test_a_step_that_brings_mlflow_along_is_autologged(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setenv("RML_MLFLOW_URL", server.url)
    (tmp_path / "auto.py").write_text(AUTOLOGGED.format(mlflow=mlflow.__version__))
    module = load("auto", tmp_path / "auto.py")
    run = module.autologged.run(c=0.5, progress=False)
    eventually(lambda: is_mirrored(run), "the mirror")
    assert "not tracked" not in run.logs("fit"), run.logs("fit")
    found = runs_of(server, run.id)
    (child,) = [r for r in found if r.data.tags.get("rml.task") == "fit"]
    (parent,) = [r for r in found if r.data.tags.get("rml.kind") == "pipeline"]
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.info.status == "FINISHED"
    # From scikit-learn's autologging, from the step's own line, and from its outputs.
    assert child.data.params["C"] == "0.5" and "training_accuracy_score" in child.data.metrics
    assert child.data.metrics["mine"] == 1.5 and child.data.metrics["f1"] > 0.9


def test_a_server_that_is_down_delays_nothing_and_is_caught_up(
    server: Any, tmp_path: Path, rml_home: Path, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("roblox_ml._backends.local.tracked._AFTER_THE_END", 0.5)
    monkeypatch.setenv("RML_MLFLOW_URL", f"http://127.0.0.1:{free_port()}")
    first = LocalExecutor().run(support.build(SOURCE, tmp_path), {"lr": 0.125}, progress=False)
    assert first.state == "SUCCEEDED"
    log = eventually(
        lambda: (first.path / "tracking.log").is_file() and (first.path / "tracking.log").read_text(), "a line"
    )
    assert "not tracked for now" in log
    eventually(lambda: "tracked later" in (first.path / "tracking.log").read_text(), "the end of the mirror")
    assert [p.name for p in (rml_home / "spool/tracking").iterdir()] == [first.id]
    monkeypatch.setenv("RML_MLFLOW_URL", server.url)
    monkeypatch.setattr("roblox_ml._backends.local.tracked._AFTER_THE_END", 30)
    LocalExecutor().run(support.build(SOURCE, tmp_path), {"lr": 0.125}, progress=False)
    eventually(lambda: is_mirrored(first), "the run that was not tracked before")
    found = runs_of(server, first.id)
    assert len(found) == 3 and {r.info.status for r in found} == {"FINISHED"}


def test_failed_and_cancelled_runs_say_so(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RML_MLFLOW_URL", server.url)
    source = """
@rml.step
def bad() -> int:
    raise ValueError("on purpose")

@rml.pipeline
def failing():
    bad()
"""
    from roblox_ml.errors import RunFailed

    with pytest.raises(RunFailed) as caught:
        LocalExecutor().run(support.build(source, tmp_path), {}, progress=False)
    run = caught.value.run
    eventually(lambda: is_mirrored(run), "the mirror")
    assert {r.info.status for r in runs_of(server, run.id)} == {"FAILED"}


def test_tracking_can_be_turned_off(tmp_path: Path, rml_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RML_MLFLOW_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("RML_TRACKING", "off")
    run = LocalExecutor().run(support.build(SOURCE, tmp_path), {}, progress=False)
    assert run.state == "SUCCEEDED" and not (rml_home / "spool").joinpath("tracking").exists()


@pytest.mark.parametrize("body", [b"<html>", b"[1]", b"\xff"])
def test_what_is_no_mlflow_is_said_to_be_none(body: bytes) -> None:
    import http.server
    import threading

    class Wrong(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    from roblox_ml._runtime.tracking import Refused

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Wrong) as wrong:
        threading.Thread(target=wrong.serve_forever, daemon=True).start()
        with pytest.raises(Refused, match="no MLflow server"):
            Mlflow(f"http://127.0.0.1:{wrong.server_port}").get("x")
        wrong.shutdown()
