"""The whole way of `.submit()`: a client that speaks to a Kubeflow API, and pods that a real cluster runs.

The API server is the contract server of tests/contract/kfp (it answers as a recorded one), whose runs are carried out as
executor pods. What a data scientist sees of a remote run must be true of the pods.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import small_pipeline
from cluster_engine import Cluster, PodEngine

import roblox_ml as rml
from roblox_ml.errors import RunFailed

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "contract" / "kfp"))
import kfpserver


@pytest.fixture
def kubeflow(cluster: Cluster, tmp_path: Path) -> Iterator[Any]:
    engine = PodEngine(cluster)
    with kfpserver.running(engine=engine, artifacts=tmp_path / "artifacts") as server:
        server.engine = engine
        yield server
        engine.join()


def test_submitted_waited_for_and_read(kubeflow: Any) -> None:
    rml.datasets.add("texts", {"a.txt": b"one\nthree\nseven\n", "b.txt": b"two\neleven\nfour\n"})
    run = small_pipeline.small.submit(host=kubeflow.url, times=2)
    assert run.wait(timeout=240) == "SUCCEEDED" or run.state == "SUCCEEDED"
    states = {name: task.state for name, task in run.tasks.items()}
    assert states.pop("never") == "SKIPPED" and set(states.values()) == {"SUCCEEDED"}
    assert run.outputs["halve"].count == 6
    assert run.outputs["join"].metadata["rows"] == 3
    assert sorted((run.outputs["halve"].first.path / "deep" / "lines.txt").read_text().split()) == [
        "eleven",
        "one",
        "three",
    ]
    assert "joining" in run.logs("join") and "::rml" not in run.logs("join")
    pod = kubeflow.engine.cluster.api.read_namespaced_pod(
        kubeflow.engine.runs[run.id].steps["join"].pod, kubeflow.engine.cluster.namespace
    )
    assert pod.metadata.labels["pipeline/runid"] == run.id


def test_a_failed_run_is_told_with_the_users_line_and_can_be_retried(kubeflow: Any) -> None:
    run = small_pipeline.hopeless.submit(host=kubeflow.url)
    with pytest.raises(RunFailed):
        run.wait(timeout=240)
    assert run.state == "FAILED" and 'raise ValueError("no good")' in run.logs("fails-once")
    before = kubeflow.engine.runs[run.id].steps["fails-once"].pod
    with pytest.raises(RunFailed, match="no good"):
        run.retry()
    assert kubeflow.engine.runs[run.id].steps["fails-once"].pod != before


def test_a_cancelled_run_ends_its_pod(kubeflow: Any) -> None:
    run = small_pipeline.slow.submit(host=kubeflow.url)
    engine = kubeflow.engine
    end = time.monotonic() + 120
    while time.monotonic() < end and not _running(engine, run.id):
        time.sleep(0.3)
    run.cancel()
    while run.state not in ("CANCELED", "CANCELLED") and time.monotonic() < end:
        time.sleep(0.3)
    assert run.state in ("CANCELED", "CANCELLED")
    pods = engine.cluster.api.list_namespaced_pod(
        engine.cluster.namespace, label_selector=f"pipeline/runid={run.id}"
    ).items
    assert [
        pod.metadata.name for pod in pods if pod.status.phase == "Running" and not pod.metadata.deletion_timestamp
    ] == []


def _running(engine: PodEngine, run_id: str) -> bool:
    found = engine.runs.get(run_id)
    step = found.steps.get("sleeps") if found else None
    if found is None or step is None or not step.pod:
        return False
    return bool(engine.cluster.api.read_namespaced_pod(step.pod, engine.cluster.namespace).status.phase == "Running")
