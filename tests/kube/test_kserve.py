"""What we emit for KServe, before the real thing: CRDs, admission webhooks, and the controller that makes Deployments of it."""

from __future__ import annotations

import copy
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from roblox_ml_core.policy import read_policy
from roblox_ml_serving import kserve
from roblox_ml_serving.kserve.cluster import Cluster

from roblox_ml import _manifests
from roblox_ml.errors import NotRunning, RemoteError

DIGEST = "5b" * 32
MODEL = kserve.Model("feed", "feed-ranker", 7, DIGEST)
POLICY = {
    "endpoints": {
        "feed": {
            "model": "feed-ranker", "version": 7, "digest": DIGEST,
            "canary": {"ref": "feed-ranker/8", "share": 500, "salt": "canary/feed/1"},
        }
    },
    "versions": {"feed-ranker/7": {"digest": DIGEST}, "feed-ranker/8": {"digest": "8b" * 32}},
}  # fmt: skip


@pytest.fixture(scope="module")
def cluster(up: tuple[str, str]) -> Iterator[Any]:
    """A namespace of the cluster with everything of one endpoint applied to it, as `rml.deploy` does."""
    from kubernetes import client, config

    settings = client.Configuration()
    config.load_kube_config(up[0], client_configuration=settings)
    api = client.ApiClient(settings)
    if not any(group.name == "serving.kserve.io" for group in client.ApisApi(api).get_api_versions().groups):
        pytest.skip("the cluster of RML_TEST_KUBECONFIG has no KServe")
    core = client.CoreV1Api(api)
    there = Namespace(up[0], api, f"rml-kserve-{uuid.uuid4().hex[:6]}")
    core.create_namespace(client.V1Namespace(metadata={"name": there.name}))
    try:
        _manifests.apply(there.files(), kubeconfig=up[0], wait=False, say=lambda _: None)
        yield there
    finally:
        core.delete_namespace(there.name, propagation_policy="Background")


class Namespace:
    """What the tests ask of one namespace."""

    def __init__(self, kubeconfig: str, api: Any, name: str) -> None:
        from kubernetes import client

        self.kubeconfig, self.name = kubeconfig, name
        self.apps, self.core = client.AppsV1Api(api), client.CoreV1Api(api)
        self.scaling, self.policy = client.AutoscalingV2Api(api), client.PolicyV1Api(api)
        self.custom = client.CustomObjectsApi(api)

    @property
    def installation(self) -> kserve.Installation:
        return kserve.Installation("http://rml-control.ml.svc:18070", self.name, store="s3://models/store")

    def files(self) -> dict[str, list[dict[str, Any]]]:
        split = kserve.split_of(read_policy(POLICY), "feed")
        return kserve.manifests(
            MODEL, self.installation, scaling=kserve.Scaling(2, 5), resources=kserve.Resources("500m", "1Gi"),
            split=split, gateway="public", hostname="models.example.com",
        )  # fmt: skip

    def refusal(self, found: dict[str, Any]) -> str:
        """What the cluster says against an object; it must say something."""
        refused = Cluster(self.kubeconfig, "rml").apply([found])
        assert refused, f"the cluster took {found}"
        return refused[0]


def there(read: Callable[[], Any], seconds: float = 30.0) -> Any:
    """What `read` finds, as soon as the controller has made it."""
    from kubernetes.client import ApiException

    deadline = time.monotonic() + seconds
    while True:
        try:
            return read()
        except ApiException as error:
            if error.status != 404 or time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def test_the_controller_makes_the_deployment_that_was_meant(cluster: Namespace) -> None:
    made = there(lambda: cluster.apps.read_namespaced_deployment("feed-predictor", cluster.name))
    pod = made.spec.template.spec
    triton, agent = pod.containers
    assert (triton.name, agent.name) == ("kserve-container", "rml-agent")
    assert triton.command == ["python", "-m", "roblox_ml_serving.triton"]
    assert triton.readiness_probe.http_get.path == "/v2/models/feed-ranker.7/ready"
    assert {e.name: e.value for e in triton.env}["RML_TRITON_PRELOAD"].endswith("libtcmalloc_minimal.so.4")
    assert (triton.resources.requests["cpu"], triton.resources.limits["memory"]) == ("500m", "1Gi")
    named = {e.name: e.value_from.field_ref.field_path for e in agent.env if e.value_from and e.value_from.field_ref}
    assert named["RML_AGENT_PACKAGE_REF"] == "metadata.annotations['roblox-ml.io/package']"
    assert made.spec.template.metadata.annotations["roblox-ml.io/package"] == f"feed-ranker/7@{DIGEST}"
    mounted = {mount.mount_path: (mount.name, mount.read_only) for mount in agent.volume_mounts}
    assert mounted["/mnt/models"] == ("kserve-provision-location", True)
    assert pod.share_process_namespace
    assert (made.spec.strategy.rolling_update.max_unavailable, made.spec.strategy.rolling_update.max_surge) == (0, 1)


def test_no_container_is_root_or_can_change_its_image(cluster: Namespace) -> None:
    """Also the one that KServe adds: it fetches the package by digest, and all see the same folder."""

    def read() -> Any:
        from kubernetes.client import ApiException

        pods = cluster.core.list_namespaced_pod(cluster.name, label_selector="app=isvc.feed-predictor").items
        if not pods:
            raise ApiException(status=404)
        return pods[0].spec

    pod = there(read)
    (fetch,) = pod.init_containers
    assert fetch.command == ["python", "-m", "roblox_ml_serving.kserve.fetch"]
    assert fetch.args == [f"rml://feed-ranker/7@{DIGEST}", "/mnt/models"]
    assert [volume.name for volume in pod.volumes].count("kserve-provision-location") == 1
    for container in (fetch, *pod.containers):
        security = container.security_context
        assert security.run_as_non_root, container.name
        assert security.run_as_user == 1000, container.name
        assert security.read_only_root_filesystem, container.name
        assert security.capabilities.drop == ["ALL"], container.name
        assert security.seccomp_profile.type == "RuntimeDefault", container.name


def test_the_endpoint_scales_between_its_bounds_and_is_drained_one_by_one(cluster: Namespace) -> None:
    scaler = there(lambda: cluster.scaling.read_namespaced_horizontal_pod_autoscaler("feed-predictor", cluster.name))
    assert (scaler.spec.min_replicas, scaler.spec.max_replicas) == (2, 5)
    assert scaler.spec.scale_target_ref.name == "feed-predictor"
    (metric,) = scaler.spec.metrics
    assert (metric.resource.name, metric.resource.target.average_utilization) == ("cpu", 70)
    budget = cluster.policy.read_namespaced_pod_disruption_budget("feed-predictor", cluster.name)
    assert budget.spec.max_unavailable == 1
    labels = there(lambda: cluster.apps.read_namespaced_deployment("feed-predictor", cluster.name))
    assert budget.spec.selector.match_labels.items() <= labels.spec.template.metadata.labels.items()


def test_services_lead_to_the_pods_and_to_the_doors(cluster: Namespace) -> None:
    models = there(lambda: cluster.core.read_namespaced_service("feed-predictor", cluster.name))
    assert [(port.port, str(port.target_port)) for port in models.spec.ports] == [(80, "8080")]
    door = cluster.core.read_namespaced_service("rml-door", cluster.name)
    pods = cluster.apps.read_namespaced_deployment("rml-door", cluster.name).spec.template
    assert door.spec.selector.items() <= pods.metadata.labels.items()
    assert {port.target_port for port in door.spec.ports} == {port.name for port in pods.spec.containers[0].ports}
    scaler = cluster.scaling.read_namespaced_horizontal_pod_autoscaler("rml-door", cluster.name)
    assert (scaler.spec.min_replicas, scaler.spec.max_replicas) == (2, 6)


def test_the_route_carries_the_canarys_share(cluster: Namespace) -> None:
    route = cluster.custom.get_namespaced_custom_object(
        "gateway.networking.k8s.io", "v1", cluster.name, "httproutes", "feed"
    )
    (rule,) = route["spec"]["rules"]
    paths = {b["filters"][0]["urlRewrite"]["path"]["replaceFullPath"]: b["weight"] for b in rule["backendRefs"]}
    assert paths == {
        "/v2/models/feed-ranker.7/versions/7/infer": 950_000,
        "/v2/models/feed-ranker.8/versions/8/infer": 50_000,
    }


def test_applying_again_changes_nothing(cluster: Namespace) -> None:
    def generation() -> int:
        found = cluster.custom.get_namespaced_custom_object(
            "serving.kserve.io", "v1beta1", cluster.name, "inferenceservices", "feed"
        )
        return int(found["metadata"]["generation"])

    before = generation()
    _manifests.apply(cluster.files(), kubeconfig=cluster.kubeconfig, wait=False, say=lambda _: None)
    assert generation() == before


def test_waiting_says_what_the_cluster_says(cluster: Namespace) -> None:
    with pytest.raises(NotRunning, match=r"InferenceService feed was not ready after 1 s: .+"):
        _manifests.apply(cluster.files(), kubeconfig=cluster.kubeconfig, timeout=1, say=lambda _: None)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("spec", "predictor", "maxReplicas"), 1, "cannot be greater than MaxReplicas"),
        (("spec", "predictor", "minReplicas"), -1, "cannot be less than 0"),
        (("spec", "predictor", "minReplicas"), "two", "expected numeric|must be of type integer"),
        (("spec", "predictor", "model", "resources", "requests", "cpu"), "many", "quantities must match"),
        (("metadata", "annotations", "serving.kserve.io/autoscalerClass"), "guess", "not a supported autoscaler"),
        (("metadata", "name"), "Feed", "Invalid value|a lowercase RFC 1123"),
    ],
)
def test_bad_values_are_refused_by_the_cluster_too(
    cluster: Namespace, path: tuple[str, ...], value: object, said: str
) -> None:
    import re

    found = copy.deepcopy(cluster.files()["endpoint.yaml"][0])
    at = found
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    assert re.search(said, cluster.refusal(found))


def test_all_refusals_are_in_one_error(cluster: Namespace) -> None:
    files = copy.deepcopy(cluster.files())
    files["endpoint.yaml"][0]["spec"]["predictor"]["minReplicas"] = 9
    files["route.yaml"][0]["spec"]["rules"][0]["backendRefs"][0]["weight"] = -1
    with pytest.raises(RemoteError, match=r"refused 2 of \d+") as refused:
        _manifests.apply(files, kubeconfig=cluster.kubeconfig, wait=False, say=lambda _: None)
    assert "InferenceService feed" in str(refused.value)
    assert "HTTPRoute feed" in str(refused.value)
