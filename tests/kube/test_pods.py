"""Compiled pipelines as Pods of a real cluster: the IR's image, command and arguments verbatim, all bytes through S3.

What runs here is what Kubeflow Pipelines starts (the recorded executor pod), and what must come out is what the local
executor makes of the same pipeline.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import small_pipeline
import yaml
from cluster_engine import Cluster, ClusterRun

import roblox_ml as rml
from roblox_ml._build import prepare
from roblox_ml._s3 import Bucket
from roblox_ml._store import open_store


def on_cluster(cluster: Cluster, pipeline: Any, **arguments: Any) -> ClusterRun:
    """Compile, store, run as pods; the finished run."""
    built = prepare(pipeline, arguments)
    store = open_store()
    assert store.url.startswith("s3://")
    for digest, data in built.blobs.items():
        assert store.put(data) == digest
    run = ClusterRun(cluster.api, cluster.namespace, cluster.bucket, built.ir)
    run.state = run.run(built.arguments)  # type: ignore[attr-defined]
    return run


def told(run: ClusterRun) -> str:
    return "\n".join(f"--- {name}: {step.state} {step.why}\n{step.log}" for name, step in run.steps.items())


def files(run: ClusterRun, step: str, output: str) -> dict[str, bytes]:
    """An output artifact's files, from the object store."""
    (artifact,) = run.steps[step].outputs["artifacts"][output]
    name, _, prefix = artifact["uri"].partition("://")[2].partition("/")
    bucket = Bucket(name, prefix)
    return {key: bucket.get(key).read() for key, _ in bucket.listed()}


@pytest.fixture
def texts(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\nthree\nseven\n")
    (tmp_path / "b.txt").write_text("two\neleven\nfour\n")
    rml.datasets.add("texts", {path.name: path.read_bytes() for path in tmp_path.glob("?.txt")})


def test_pods_and_processes_give_the_same(cluster: Cluster, texts: None) -> None:
    run = on_cluster(cluster, small_pipeline.small, times=4)
    assert run.state == "SUCCEEDED", told(run)  # type: ignore[attr-defined]
    local = small_pipeline.small.run(times=4)
    assert "never" not in run.steps
    assert set(run.steps) == {name for name, task in local.tasks.items() if task.state == "SUCCEEDED"}
    halves = local.outputs["halve"]
    assert run.steps["halve"].outputs["parameters"] == {"count": halves.count}
    for output, made in (("first", halves.first), ("second", halves.second)):
        on_disk = {p.relative_to(made.path).as_posix(): p.read_bytes() for p in made.path.rglob("*") if p.is_file()}
        assert files(run, "halve", output) == on_disk
    (metrics,) = run.steps["join"].outputs["artifacts"]["Output"]
    mine = {name: value for name, value in metrics["metadata"].items() if not name.startswith("rml.")}
    ours = local.outputs["join"].metadata
    assert mine == {name: value for name, value in ours.items() if not name.startswith("rml.")}
    # Lineage: the same code and lock, but the run and task are the cluster's.
    assert [metrics["metadata"][f"rml.{key}"] for key in ("code", "lock", "step")] == [
        ours[f"rml.{key}"] for key in ("code", "lock", "step")
    ]
    assert (metrics["metadata"]["rml.run"], metrics["metadata"]["rml.task"]) == (run.id, "join")
    # What `run.outputs` of a remote run reads.
    (line,) = [line for line in run.steps["join"].log.splitlines() if line.startswith("::rml outputs ")]
    assert json.loads(line.partition("outputs ")[2])["artifacts"]["Output"]["artifacts"][0]["uri"] == metrics["uri"]


def test_a_step_knows_its_run_and_nothing_of_the_launcher(cluster: Cluster) -> None:
    run = on_cluster(cluster, small_pipeline.knows)
    assert run.state == "SUCCEEDED", told(run)  # type: ignore[attr-defined]
    about = run.steps["about"].outputs["parameters"]["Output"]
    assert about["uid"] != 0 and int(about["capabilities"], 16) == 0
    assert (about["run"], about["pipeline"], about["task"]) == (run.id, "knows", "about")
    assert about["launcher"] == []
    pod = cluster.api.read_namespaced_pod(run.steps["about"].pod, cluster.namespace)
    container = run.pipeline["deploymentSpec"]["executors"]["exec-about"]["container"]
    (main,) = pod.spec.containers
    assert (main.image, main.args) == (container["image"], [*container["command"], *container["args"]])
    assert about["arguments"].split("\0")[:-2] == ["python3", *main.args[1:-1]]


def test_secrets_arrive_by_environment_and_by_volume_and_stay_out_of_everything_else(cluster: Cluster) -> None:
    from kubernetes import client

    values = {"hub": {"token": "hf_3kZ-secret-by-env"}, "tls-files": {"key.pem": "pem-secret-by-volume"}}
    for name, data in values.items():
        body = client.V1Secret(metadata={"name": name}, string_data=data)
        cluster.api.create_namespaced_secret(cluster.namespace, body)
    run = on_cluster(cluster, small_pipeline.guarded)
    assert run.state == "SUCCEEDED", told(run)  # type: ignore[attr-defined]
    seen = json.loads(run.steps["secretive"].outputs["parameters"]["Output"])
    plain = ["hf_3kZ-secret-by-env", "pem-secret-by-volume"]
    assert seen["digests"] == [hashlib.sha256(text.encode()).hexdigest() for text in plain]
    assert seen["files"] == ["key.pem"] and seen["shm"] == 64 << 20
    pod = cluster.api.read_namespaced_pod(run.steps["secretive"].pod, cluster.namespace)
    assert [(t.key, t.effect) for t in pod.spec.tolerations if t.key == "gpu"] == [("gpu", "NoSchedule")]
    assert pod.spec.node_selector == {"kubernetes.io/os": "linux"} and pod.spec.active_deadline_seconds == 600
    # The store's own key too: nowhere but in the cluster's Secret.
    hidden = [*plain, cluster.s3["AWS_SECRET_ACCESS_KEY"]]
    bucket = Bucket(cluster.bucket, f"v2/artifacts/guarded/{run.id}")
    places = {
        "pipeline": yaml.safe_dump(run.pipeline), "platform": yaml.safe_dump(run.platform), "log": told(run),
        "pod": json.dumps(pod.to_dict(), default=str), "objects": repr([bucket.get(key).read() for key, _ in bucket.listed()]),
        "blobs": repr([open_store().get(digest) for digest, _ in open_store().digests()]),
    }  # fmt: skip
    for text in hidden:
        coded = base64.b64encode(text.encode()).decode()
        assert [name for name, found in places.items() if text in found or coded in found] == []


def test_a_failing_step_fails_the_run_after_its_retries_with_the_users_line(cluster: Cluster) -> None:
    run = on_cluster(cluster, small_pipeline.broken)
    step = run.steps["fails"]
    assert (run.state, step.state) == ("FAILED", "FAILED") and step.pod.endswith("-1")  # type: ignore[attr-defined]
    assert 'raise ValueError("no good")' in step.log and "executor.py" not in step.log


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9", "Connection refused"),
        ("AWS_SECRET_ACCESS_KEY", "another", "403"),
        ("RML_STORE", "s3://no-such-bucket/x", "404"),
    ],
)
def test_a_pod_that_cannot_reach_the_store_says_so_in_one_line(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, setting: str, value: str, said: str
) -> None:
    built = prepare(small_pipeline.knows, {})
    for digest, data in built.blobs.items():
        assert open_store().put(data) == digest
    run = ClusterRun(cluster.api, cluster.namespace, cluster.bucket, built.ir)
    container = run.pipeline["deploymentSpec"]["executors"]["exec-about"]["container"]
    for references in ("configMapAsEnv", "secretAsEnv"):
        for one in run.platform["exec-about"][references]:
            one["keyToEnv"] = [pair for pair in one["keyToEnv"] if pair["envVar"] != setting]
    container["env"] = [{"name": setting, "value": value}]
    assert run.run() == "FAILED"
    (line,) = run.steps["about"].log.strip().splitlines()
    assert (
        line.startswith("roblox_ml: no SDK ")
        and said in line
        and f"RML_STORE={value if setting == 'RML_STORE' else cluster.store}" in line
    )


def test_an_image_that_is_root_never_starts_and_the_reason_is_kept(cluster: Cluster) -> None:
    if cluster.image != "localhost/rml-step:1":
        pytest.skip("no image of the root user is known to this cluster (the test cluster has its pause image)")
    built = prepare(small_pipeline.knows, {})
    run = ClusterRun(cluster.api, cluster.namespace, cluster.bucket, built.ir)
    run.pipeline["deploymentSpec"]["executors"]["exec-about"]["container"]["image"] = "localhost/pause:1"
    assert run.run() == "FAILED"
    assert "root" in run.steps["about"].why
