"""Pieces that all our pods share: who they run as, what they may write, how they find the platform."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .values import Installation, Scaling

__all__ = [
    "HOME",
    "Json",
    "container_security",
    "disruption_budget",
    "env",
    "labels",
    "metadata",
    "platform_env",
    "probe",
]

Json = dict[str, Any]

# The parts of a pod share this folder: the repository, packages, locks. Everything else of the root is read-only.
HOME = "/var/lib/rml"
USER = 1000


def metadata(
    name: str,
    installation: Installation | None,
    extra: Json | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Json:
    """Name, place (none for cluster-wide objects) and labels."""
    found: Json = {"name": name}
    if installation is not None:
        found["namespace"] = installation.namespace
    found["labels"] = labels() | (extra or {})
    if annotations:
        found["annotations"] = dict(annotations)
    return found


def labels() -> Json:
    return {"app.kubernetes.io/part-of": "roblox-ml", "app.kubernetes.io/managed-by": "rml"}


def container_security() -> Json:
    """Not root, no way to become it, nothing of the image to change: the `restricted` pod security standard and more."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def env(**values: str) -> list[Json]:
    return [{"name": name, "value": value} for name, value in values.items()]


def field_env(name: str, path: str) -> Json:
    return {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}


def platform_env(installation: Installation) -> list[Json]:
    """How a pod finds the control plane and the store, and proves who it is."""
    found = env(RML_HOME=HOME, RML_CONTROL_URL=installation.control_url)
    if installation.store is not None:
        found += env(RML_STORE=installation.store)
    found += [{"name": name, "value": value} for name, value in installation.environment]
    keys = (("RML_TOKEN", "token"), ("AWS_ACCESS_KEY_ID",) * 2, ("AWS_SECRET_ACCESS_KEY",) * 2)
    for name, key in keys:
        reference: Json = {"name": installation.secret, "key": key}
        # An installation without a bucket, or whose pods get a cloud identity, has no such keys.
        if name != "RML_TOKEN":
            reference["optional"] = True
        found.append({"name": name, "valueFrom": {"secretKeyRef": reference}})
    return found


def probe(path: str, port: int | str, *, period: int = 5, failures: int = 3) -> Json:
    """An HTTP probe with every default written out: what a server fills in later would look like a change."""
    return {
        "httpGet": {"path": path, "port": port, "scheme": "HTTP"},
        "periodSeconds": period, "failureThreshold": failures, "timeoutSeconds": 2, "successThreshold": 1,
    }  # fmt: skip


def disruption_budget(
    name: str, selector: Json, scaling: Scaling, installation: Installation, extra: Json | None = None
) -> Json | None:
    """At most one replica away at a time. None for a single replica, whose node could never be drained."""
    if scaling.min_replicas < 2:
        return None
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(name, installation, extra),
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": selector},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }
