"""The projection into a real MLflow server: written, repeated, drifted, healed, and caught up after an outage."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


class Server:
    """An MLflow server that can be stopped and started again on the same port."""

    def __init__(self, folder: Path, port: int) -> None:
        self.url, self._folder, self._port = f"http://127.0.0.1:{port}", folder, port
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        import urllib.request

        command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{self._folder}/mlflow.db",
            "--artifacts-destination", str(self._folder / "artifacts"),
        ]  # fmt: skip
        log = (self._folder / "log").open("ab")
        # Without the job runners, as the local stack starts it.
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        self._process = subprocess.Popen(
            command, cwd=self._folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        for _ in range(1200):
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=5):
                    return
            except OSError:
                assert self._process.poll() is None, (self._folder / "log").read_text()[-3000:]
                time.sleep(0.1)
        raise AssertionError("MLflow did not start: " + (self._folder / "log").read_text()[-3000:])

    def stop(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, 9)
            self._process.wait()
            self._process = None


@pytest.fixture
def mlflow_server(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Server]:
    folder = tmp_path / "mlflow"
    folder.mkdir()
    server = Server(folder, free_port())
    yield server
    server.stop()


def _until(plane: Any, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    state: dict[str, Any] = {}
    for _ in range(900):
        state = plane.client().model("scale")["mlflow"]
        if wanted(state):
            return state
        time.sleep(0.1)
    raise AssertionError(f"MLflow's state stayed {state}")


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_mlflow_is_a_copy_that_survives_outages_and_shows_edits(
    planes: Callable[..., Any],
    package: Callable[..., dict[str, Any]],
    mlflow_server: Server,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    plane = planes(RML_MLFLOW_ENABLED="true", RML_MLFLOW_URL=mlflow_server.url, RML_CONTROL_MLFLOW_CHECK_S="0.5")
    lineage = {
        "kind": "pipeline",
        "pipeline": "nightly",
        "run": "r1",
        "step": "train",
        "code": "",
        "git": {"commit": "c0ffee"},
    }
    fields = {"metrics": {"f1": 0.8, "loss": float("nan")}, "params": {"epochs": 3}, "tags": {"team": "safety"}}
    # MLflow is not there yet: registering works all the same, and the difference is shown.
    first = plane.client().register("scale", package(1.0, lineage=lineage, **fields))
    assert not plane.client().model("scale")["mlflow"]["in_sync"]
    mlflow_server.start()
    plane.client().register("scale", package(2.0, lineage=lineage, **fields))
    _until(plane, lambda state: state["in_sync"])

    from mlflow import MlflowClient, pyfunc, set_tracking_uri

    client = MlflowClient(mlflow_server.url, mlflow_server.url)
    theirs = client.get_model_version_by_alias("scale", "champion")
    assert theirs.tags["rml.version"] == "2"
    assert theirs.tags["team"] == "safety"
    assert theirs.tags["rml.git.commit"] == "c0ffee"
    run = client.get_run(theirs.run_id)
    assert (run.data.metrics, run.data.params) == ({"f1": 0.8}, {"epochs": "3"})
    assert client.get_experiment(run.info.experiment_id).name == "nightly"

    # The model loads by MLflow's own name, from our store, verified.
    from roblox_ml_core.package.mlflow_store import register_scheme

    register_scheme()
    monkeypatch.setenv("RML_CONTROL_URL", f"http://127.0.0.1:{plane.port}")
    set_tracking_uri(mlflow_server.url)
    loaded = pyfunc.load_model("models:/scale@champion", dst_path=str(tmp_path / "loaded"))
    assert loaded.predict({"x": [[1.0, 2.0]]})["y"].tolist() == [[2.0, 4.0]]

    # An edit behind our back is found and shown, not silently kept or undone.
    number = next(v.version for v in client.search_model_versions("name='scale'") if v.tags["rml.version"] == "1")
    client.set_registered_model_alias("scale", "champion", number)
    client.set_model_version_tag("scale", number, "team", "other")
    state = _until(plane, lambda state: len(state["differences"]) == 2 and state["differences"][0]["kind"] != "pending")
    assert {difference["kind"] for difference in state["differences"]} == {"alias", "tag"}
    assert plane.client().alias("scale", "champion")["version"] == 2
    plane.client().call("POST", "/v1/models/scale/mlflow/sync")
    _until(plane, lambda state: state["in_sync"])
    assert client.get_model_version_by_alias("scale", "champion").tags["rml.version"] == "2"

    # An outage delays the copy and loses nothing; a crash of ours in between repeats nothing.
    mlflow_server.stop()
    plane.client().promote("scale", "champion", 1)
    plane.client().register("scale", package(3.0, alias="challenger", lineage=lineage))
    plane.client().tag("scale", first["version"], {"team": None, "owner": "ann"})
    plane.kill()
    plane.start()
    mlflow_server.start()
    _until(plane, lambda state: state["in_sync"])
    versions = client.search_model_versions("name='scale'")
    assert sorted(v.tags["rml.version"] for v in versions) == ["1", "2", "3"]
    assert client.get_model_version_by_alias("scale", "champion").tags["rml.version"] == "1"
    assert client.get_model_version_by_alias("scale", "challenger").tags["rml.version"] == "3"
    one = next(v for v in versions if v.tags["rml.version"] == "1")
    assert one.tags["owner"] == "ann"
    assert "team" not in one.tags

    # What is deleted here goes there too.
    plane.client().delete_version("scale", 2)
    _until(plane, lambda state: state["in_sync"])
    assert sorted(v.tags["rml.version"] for v in client.search_model_versions("name='scale'")) == ["1", "3"]
