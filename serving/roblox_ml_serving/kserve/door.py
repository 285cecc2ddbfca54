"""The doors of a namespace: Deployment, Service, autoscaler, disruption budget.

One set of doors serves every endpoint: they learn endpoints, policy and pod addresses from the control plane, and ask pods
directly. No Service lies between a door and a model server, so a version's readiness is known per pod.
"""

from __future__ import annotations

from .pods import (
    HOME,
    Json,
    container_security,
    disruption_budget,
    env,
    labels,
    metadata,
    platform_env,
    probe,
)
from .values import Door, Installation, check

__all__ = ["GRPC_PORT", "HTTP_PORT", "door_objects"]

HTTP_PORT, GRPC_PORT = 8080, 8081


def door_objects(installation: Installation, door: Door | None = None) -> list[Json]:
    """Everything that clients of a namespace need in front of its model servers."""
    door = door or Door()
    check(installation, door)
    selector = {"app.kubernetes.io/name": door.name}
    found = [_deployment(installation, door, selector), _service(installation, door, selector)]
    if not door.scaling.fixed:
        found.append(_autoscaler(installation, door, selector))
    budget = disruption_budget(door.name, selector, door.scaling, installation, selector)
    return found if budget is None else [*found, budget]


def _deployment(installation: Installation, door: Door, selector: Json) -> Json:
    container = {
        "name": "door",
        "image": installation.door_image,
        "imagePullPolicy": installation.pull_policy,
        "command": ["python", "-m", "roblox_ml_serving.door"],
        "env": [
            *platform_env(installation),
            *env(RML_DOOR_HOST="0.0.0.0", RML_DOOR_PORT=str(HTTP_PORT), RML_DOOR_GRPC_PORT=str(GRPC_PORT)),  # noqa: S104
        ],
        "ports": [
            {"name": "http", "containerPort": HTTP_PORT, "protocol": "TCP"},
            {"name": "grpc", "containerPort": GRPC_PORT, "protocol": "TCP"},
        ],
        "startupProbe": probe("/v2/health/live", "http", period=1, failures=60),
        "livenessProbe": probe("/v2/health/live", "http", period=10),
        "readinessProbe": probe("/v2/health/ready", "http"),
        # Endpoints of a Service lag behind; who still comes is answered until they have followed.
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", "5"]}}},
        "resources": door.resources.to_json(),
        "securityContext": container_security(),
        "volumeMounts": [{"name": "home", "mountPath": HOME}, {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
    }
    pod: Json = {
        "metadata": {
            "labels": labels() | selector,
            "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": str(HTTP_PORT)},
        },
        "spec": {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 45,
            "securityContext": {"fsGroup": 1000, "runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "topologySpreadConstraints": [
                {
                    "maxSkew": 1,
                    "topologyKey": "kubernetes.io/hostname",
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {"matchLabels": selector},
                }
            ],
            "containers": [container],
            "volumes": [{"name": "home", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}],
        },
    }
    if installation.service_account is not None:
        pod["spec"]["serviceAccountName"] = installation.service_account
    spec: Json = {
        "selector": {"matchLabels": selector},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "template": pod,
    }
    # With an autoscaler the count is its own; applying ours again would undo what it did.
    if door.scaling.fixed:
        spec["replicas"] = door.scaling.min_replicas
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(door.name, installation, selector),
        "spec": spec,
    }


def _service(installation: Installation, door: Door, selector: Json) -> Json:
    ports = [("http", 80, "http", None), ("grpc", HTTP_PORT + 1, "grpc", "kubernetes.io/h2c")]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(door.name, installation, selector),
        "spec": {
            "type": "ClusterIP",
            "selector": selector,
            "ports": [
                {"name": name, "port": port, "targetPort": target, "protocol": "TCP"}
                | ({} if protocol is None else {"appProtocol": protocol})
                for name, port, target, protocol in ports
            ],
        },
    }


def _autoscaler(installation: Installation, door: Door, selector: Json) -> Json:
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": metadata(door.name, installation, selector),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": door.name},
            "minReplicas": door.scaling.min_replicas,
            "maxReplicas": door.scaling.max_replicas,
            "metrics": [
                {
                    "type": "Resource",
                    "resource": {
                        "name": "cpu",
                        "target": {"type": "Utilization", "averageUtilization": door.scaling.target},
                    },
                }
            ],
        },
    }
