"""The recorded runs, read by our client: what a real server says about them comes out in our words."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from roblox_ml._backends.kfp import logs
from roblox_ml._backends.kfp.logs import kubernetes as real_kubernetes
from roblox_ml._backends.kfp.tasks import leaves, nodes, pod_names, workflow_of

RUNS = {"SUCCEEDED": "d86922a0-d930-4ff9-adcf-74078a1ac66f", "FAILED": "6bdc6783-c6b8-4409-97ff-710464a1b2f3"}


def recorded_run(recording: Any, ended: str) -> Any:
    return next(e["response"] for e in recording.exchanges() if e["path"].endswith(f"v2beta1/runs/{RUNS[ended]}"))


@pytest.fixture
def pod(recording: Any) -> Any:
    return yaml.safe_load((recording.FOLDER / "executor-pod-2.17.yaml").read_text("utf-8"))


def test_states_and_times(recording: Any) -> None:
    good = recorded_run(recording, "SUCCEEDED")
    assert {n.name: (n.state, n.attempts) for n in nodes(good, good["pipeline_spec"])} == {
        "make": ("SUCCEEDED", 1),
        "count": ("SUCCEEDED", 1),
    }
    make, count = nodes(good, good["pipeline_spec"])
    assert make.finished is not None and make.started is not None and make.finished - make.started == 10
    assert count.started is not None and count.started > make.finished
    bad = recorded_run(recording, "FAILED")
    # The step behind the failed one is listed without a state, starting when the run ended: it was left out.
    assert {n.name: n.state for n in nodes(bad, bad["pipeline_spec"])} == {"make": "FAILED", "count": "SKIPPED"}
    assert {n.name for n in nodes(bad, {})} == {"make", "count"}


def test_a_pod_is_named_as_the_real_one_was(recording: Any, pod: Any) -> None:
    good = recorded_run(recording, "SUCCEEDED")
    count = next(leaf for leaf in leaves(good["pipeline_spec"]) if leaf.name == "count")
    assert workflow_of(good) == "live-d68ds"
    assert pod_names(good, count) == [pod["metadata"]["name"]]


@pytest.fixture
def cluster(pod: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A Kubernetes API that has this one pod; the paths it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """Silence."""

        def do_GET(self) -> None:
            asked.append(self.path)
            text = (
                "counted 9\n"
                if "/log" in self.path
                else json.dumps({"kind": "PodList", "apiVersion": "v1", "items": [pod]}, default=str)
            )
            self.send_response(200)
            self.send_header("Content-Type", "text/plain" if "/log" in self.path else "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": f"http://127.0.0.1:{server.server_address[1]}"}}],
        "users": [{"name": "test", "user": {}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    }
    file = tmp_path / "kubeconfig"
    file.write_text(json.dumps(config))
    # kubernetes' client reads KUBECONFIG once, when it is imported.
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(file))
    monkeypatch.setattr(logs, "kubernetes", real_kubernetes)
    yield asked
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_live_pods_log_is_read_through_kubernetes(recording: Any, pod: Any, cluster: list[str]) -> None:
    good = recorded_run(recording, "SUCCEEDED")
    make, count = nodes(good, good["pipeline_spec"])
    run: Any = SimpleNamespace(
        id=RUNS["SUCCEEDED"], _connection=SimpleNamespace(kube_context=None, namespace="kubeflow")
    )
    assert logs._from_pod(run, count) == "counted 9\n"
    assert logs._from_pod(run, make) is None  # its pod is gone
    assert f"labelSelector=pipeline%2Frunid%3D{RUNS['SUCCEEDED']}" in cluster[0]
    assert f"/api/v1/namespaces/kubeflow/pods/{pod['metadata']['name']}/log?container=main" in cluster[1]
