"""The cluster-wide objects: our ServingRuntime (Triton with the agent beside it) and the container that fetches packages.

KServe's own Triton runtime scans a folder at start. Ours starts Triton empty, in explicit mode; the agent in the same pod
checks the package that KServe fetched against its digest, writes the repository (configuration, warm-up, batching), loads
over gRPC and asks the known answer. What else the control plane wants (a canary, arms of experiments) it loads beside it.
"""

from __future__ import annotations

from .pods import HOME, Json, container_security, env, field_env, metadata, platform_env, probe
from .values import Installation, Resources, check

__all__ = ["FORMAT", "RUNTIME", "STORAGE", "runtime_objects", "serving_runtime", "storage_container"]

RUNTIME = "rml-triton"
STORAGE = "rml-packages"
FORMAT = "rml-package"
HTTP_PORT, GRPC_PORT, METRICS_PORT, AGENT_METRICS_PORT = 8080, 9000, 8002, 8003
PACKAGE = "/mnt/models"  # where KServe puts what storageUri names
TCMALLOC = "/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4"
# KServe's own name: declared here so that the agent sees the fetched package too, not the server alone.
PACKAGE_VOLUME = "kserve-provision-location"


def runtime_objects(installation: Installation) -> list[Json]:
    """What an administrator applies once per cluster."""
    check(installation)
    return [serving_runtime(installation), storage_container(installation)]


def serving_runtime(installation: Installation, agent: Resources | None = None) -> Json:
    """`ClusterServingRuntime` for model packages. Its pods take their server's name and address from Kubernetes."""
    mounts = [{"name": "home", "mountPath": HOME}, {"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108 - a volume of its own
    package = {"name": PACKAGE_VOLUME, "mountPath": PACKAGE, "readOnly": True}
    place = [
        field_env("RML_TRITON_HOST", "status.podIP"),
        *env(
            RML_TRITON_HTTP_PORT=str(HTTP_PORT),
            RML_TRITON_GRPC_PORT=str(GRPC_PORT),
            RML_TRITON_METRICS_PORT=str(METRICS_PORT),
        ),
    ]
    triton = {
        "name": "kserve-container",
        "image": installation.image,
        "imagePullPolicy": installation.pull_policy,
        "command": ["python", "-m", "roblox_ml_serving.triton"],
        # glibc's allocator keeps what a reloaded model held; tcmalloc gives it back.
        "env": [*place, *env(RML_HOME=HOME, RML_TRITON_PRELOAD=TCMALLOC)],
        "ports": [{"name": "http1", "containerPort": HTTP_PORT, "protocol": "TCP"}],
        "startupProbe": probe("/v2/health/live", HTTP_PORT, period=1, failures=120),
        "livenessProbe": probe("/v2/health/live", HTTP_PORT, period=10),
        "readinessProbe": probe("/v2/health/ready", HTTP_PORT),
        # Doors learn within a second that a pod leaves; Triton answers until they have.
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", "5"]}}},
        "resources": Resources().to_json(),
        "securityContext": container_security(),
        # The backend's processes talk to Triton through shared memory.
        "volumeMounts": [*mounts, {"name": "shm", "mountPath": "/dev/shm"}],  # noqa: S108
    }
    beside = {
        "name": "rml-agent",
        "image": installation.image,
        "imagePullPolicy": installation.pull_policy,
        "command": ["python", "-m", "roblox_ml_serving.agent"],
        "env": [
            *platform_env(installation),
            *place,
            field_env("RML_AGENT_SERVER", "metadata.name"),
            field_env("RML_AGENT_PACKAGE_REF", "metadata.annotations['roblox-ml.io/package']"),
            *env(
                RML_AGENT_PACKAGE=PACKAGE,
                RML_AGENT_LEAVE="true",
                RML_AGENT_METRICS_HOST="0.0.0.0",  # noqa: S104 - inside a pod
                RML_AGENT_METRICS_PORT=str(AGENT_METRICS_PORT),
            ),
        ],
        "ports": [{"name": "agent-metrics", "containerPort": AGENT_METRICS_PORT, "protocol": "TCP"}],
        "livenessProbe": probe("/metrics", AGENT_METRICS_PORT, period=10),
        "resources": (agent or Resources("100m", "512Mi")).to_json(),
        "securityContext": container_security(),
        "volumeMounts": [*mounts, package],
    }
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ClusterServingRuntime",
        "metadata": metadata(RUNTIME, None, annotations={"serving.kserve.io/server-type": "tritonserver"}),
        "spec": {
            "annotations": {"prometheus.kserve.io/path": "/metrics", "prometheus.kserve.io/port": str(METRICS_PORT)},
            "supportedModelFormats": [{"name": FORMAT, "version": "1", "autoSelect": True, "priority": 1}],
            "protocolVersions": ["v2", "grpc-v2"],
            "containers": [triton, beside],
            "volumes": [
                {"name": "home", "emptyDir": {}},
                {"name": "tmp", "emptyDir": {}},
                {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
                {"name": PACKAGE_VOLUME, "emptyDir": {}},
            ],
        },
    }


def storage_container(installation: Installation) -> Json:
    """`ClusterStorageContainer` for `rml://name/3@<digest>`: the package out of the blob store, every file verified."""
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ClusterStorageContainer",
        "metadata": metadata(STORAGE, None),
        "spec": {
            "workloadType": "initContainer",
            "supportedUriFormats": [{"prefix": "rml://"}],
            "container": {
                "name": "storage-initializer",
                "image": installation.image,
                "imagePullPolicy": installation.pull_policy,
                "command": ["python", "-m", "roblox_ml_serving.kserve.fetch"],
                "env": platform_env(installation),
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
                "securityContext": container_security(),
            },
        },
    }
