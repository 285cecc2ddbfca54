"""What steps ask of the cluster, as kfp-kubernetes itself writes it, and as the server receives it; no value of a secret anywhere."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from kfp import compiler, dsl, kubernetes
from kfp.kubernetes import kubernetes_executor_config_pb2 as pb

import roblox_ml as rml
from roblox_ml._backends.kfp import submit
from roblox_ml._graph.dump import dump_ir, load_ir
from roblox_ml.errors import SubmitError

sys.path.insert(0, str(Path(__file__).parent))
from support import built

VALUE = "hf_never_in_any_artefact"


@rml.step(
    cpu=2,
    memory="4Gi",
    gpu=1,
    shm="1Gi",
    ephemeral_storage="10Gi",
    timeout="1h",
    node_selector={"gpu.product": "A100"},
    tolerations=[
        rml.toleration("nvidia.com/gpu", effect="NoSchedule"),
        rml.toleration("team", "safety", "NoExecute", seconds=60),
    ],
    secrets=[
        rml.secret("hub", key="token", env="HF_TOKEN"),
        rml.secret("hub", key="user", env="HF_USER"),
        rml.secret("certificates", mount="/secrets/tls"),
    ],
    priority="high",
    queue="team-safety",
    labels={"app": "trainer"},
    image="registry.example.com/ml/step:1",
)
def heavy(n: int) -> int: ...


def asking(n: int = 1) -> None:
    heavy(n)


def theirs(folder: Path) -> pb.KubernetesExecutorConfig:
    """The same wishes, written by kfp-kubernetes."""

    @dsl.container_component
    def step():  # type: ignore[no-untyped-def]  # kfp reads annotations, not their text
        return dsl.ContainerSpec(image="x", command=["x"])

    def pipeline():  # type: ignore[no-untyped-def]
        task = step()
        kubernetes.set_timeout(task, 3600)
        kubernetes.add_node_selector(task, "gpu.product", "A100")
        kubernetes.add_toleration(task, key="nvidia.com/gpu", operator="Exists", effect="NoSchedule")
        kubernetes.add_toleration(
            task, key="team", operator="Equal", value="safety", effect="NoExecute", toleration_seconds=60
        )
        kubernetes.use_secret_as_env(task, "hub", {"token": "HF_TOKEN", "user": "HF_USER"})
        kubernetes.use_secret_as_volume(task, "certificates", "/secrets/tls")
        kubernetes.empty_dir_mount(task, "rml-shm", "/dev/shm", medium="Memory", size_limit="1Gi")
        kubernetes.empty_dir_mount(task, "rml-scratch", "/rml-scratch", size_limit="10Gi")
        kubernetes.add_pod_label(task, "app", "trainer")
        kubernetes.add_pod_label(task, "kueue.x-k8s.io/queue-name", "team-safety")
        kubernetes.add_pod_label(task, "kueue.x-k8s.io/priority-class", "high")

    path = folder / "kfp.yaml"
    compiler.Compiler().compile(dsl.pipeline(name="p")(pipeline), str(path))
    configs = load_ir(path.read_bytes())["platform"]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return json_format.ParseDict(next(iter(configs.values())), pb.KubernetesExecutorConfig())


def test_the_platform_document_is_what_kfp_kubernetes_writes(tmp_path: Path) -> None:
    document = load_ir(built(asking).ir)
    (config,) = document["platform"]["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values()
    assert json_format.ParseDict(config, pb.KubernetesExecutorConfig()) == theirs(tmp_path)
    (executor,) = document["pipeline"]["deploymentSpec"]["executors"].values()
    container = executor["container"]
    assert container["image"] == "registry.example.com/ml/step:1"
    assert container["env"] == [{"name": "TMPDIR", "value": "/rml-scratch"}]
    assert container["resources"]["accelerator"]["resourceType"] == "nvidia.com/gpu"


def test_secrets_arrive_by_reference_alone(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", VALUE)
    ready = built(asking, n=1)
    run = submit(ready, host=server.url)
    ((_, received),) = server.state.uploads
    assert received == ready.ir and b"secretName: certificates" in received and b"HF_TOKEN" in received
    engine = server.state.runs[run.id]
    assert set(engine.platform["platforms"]) == {"kubernetes"}
    everything = received.decode() + str(server.state.bodies) + str(vars(engine)) + run._repr_html_()
    assert VALUE not in everything


def test_settings_of_a_cluster_are_named_once_for_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = load_ir(built(asking).ir)
    monkeypatch.setenv("RML_STEP_SETTINGS", "rml-step")
    (config,) = load_ir(built(asking).ir)["platform"]["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values()
    (before,) = plain["platform"]["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values()
    assert (
        config["configMapAsEnv"][0]["configMapName"] == "rml-step" and config["configMapAsEnv"][0]["optional"] is True
    )
    assert {"configMapKey": "RML_STORE", "envVar": "RML_STORE"} in config["configMapAsEnv"][0]["keyToEnv"]
    assert config["secretAsEnv"][:-1] == before["secretAsEnv"] and config["secretAsEnv"][-1]["optional"] is True
    json_format.ParseDict(config, pb.KubernetesExecutorConfig())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"nodeSelecter": {}}, "nodeSelecter"),
        ({"secretAsEnv": [{"keyToEnv": []}]}, "names no secret"),
        ({"activeDeadlineSeconds": "soon"}, "activeDeadlineSeconds|soon"),
        (
            {"emptyDirMounts": [{"volumeName": "a", "mountPath": "/a"}, {"volumeName": "a", "mountPath": "/b"}]},
            "two volumes",
        ),
    ],
)
def test_a_platform_document_that_a_driver_would_choke_on_is_not_sent(
    server: Any, change: dict[str, Any], told: str
) -> None:
    ready = built(asking, n=1)
    document = load_ir(ready.ir)
    document["platform"]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-heavy"] = change
    with pytest.raises(SubmitError, match=told):
        submit(replace(ready, ir=dump_ir(document)), host=server.url)
    assert server.state.requests == []


def test_a_platform_document_for_nobody_is_not_sent(server: Any) -> None:
    ready = built(asking, n=1)
    document = load_ir(ready.ir)
    executors = document["platform"]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    executors["exec-nobody"] = executors.pop("exec-heavy")
    with pytest.raises(SubmitError, match="no executor 'exec-nobody'"):
        submit(replace(ready, ir=dump_ir(document)), host=server.url)
