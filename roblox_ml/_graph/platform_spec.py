"""The second document of a pipeline file: what its steps ask of Kubernetes, as kfp-kubernetes 2.17 writes it.

KFP's driver turns it into the pod. Where its message has no field, the nearest thing that its driver does carry out is used:
`/dev/shm` is a memory-backed emptyDir (the message's own `enabledSharedMemory` is read by no driver of 2.17), room for temporary
files is an emptyDir with a limit (there is no ephemeral-storage resource), Kueue's queue and priority class are labels (there is
no priorityClassName). docs/formats/pipeline-ir.md is the contract.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from .cluster import Secret, Toleration
from .model import Component
from .options import Options

__all__ = ["SCRATCH", "SETTINGS", "platform_document"]

SCRATCH = "/rml-scratch"
_SHM = "/dev/shm"  # noqa: S108 - the pod's own, mounted for this step alone
# What a cluster's ConfigMap and Secret named by RML_STEP_SETTINGS may tell every step: where the store is, and its keys.
# Where packages come from is said as pip says it; an index's address may hold a password, so it may be in the Secret.
SETTINGS = (
    "AWS_ENDPOINT_URL",
    "AWS_REGION",
    "PIP_FIND_LINKS",
    "PIP_NO_INDEX",
    "PIP_TRUSTED_HOST",
    "RML_CONTROL_URL",
    "RML_STORE",
)
SECRETS = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL", "RML_TOKEN",
)  # fmt: skip
_QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
_PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"
# Where a cluster's interruptible machines are found; the label and taint most node provisioners agree on.
_SPOT = ("node.kubernetes.io/lifecycle", "spot")

Spec = dict[str, Any]


def platform_document(components: Iterable[Component]) -> Spec | None:
    """The platform spec of these components; None when none of them asks for anything."""
    site = os.environ.get("RML_STEP_SETTINGS") or ""
    executors = {f"exec-{c.name}": spec for c in components if (spec := executor_config(c.options, site))}
    if not executors:
        return None
    return {"platforms": {"kubernetes": {"deploymentSpec": {"executors": executors}}}}


def executor_config(options: Options, site: str = "") -> Spec:
    """One executor's `KubernetesExecutorConfig`. `site` names a ConfigMap and a Secret with settings for every step."""
    spec: Spec = {}
    if options.timeout is not None:
        spec["activeDeadlineSeconds"] = str(options.timeout)
    labels = dict(options.labels)
    if options.queue is not None:
        labels[_QUEUE_LABEL] = options.queue
    if options.priority is not None:
        labels[_PRIORITY_LABEL] = options.priority
    if labels:
        spec["podMetadata"] = {"labels": labels}
    nodes, tolerations = dict(options.node_selector), list(options.tolerations)
    if options.spot:
        nodes.setdefault(*_SPOT)
        tolerations.append(Toleration(*_SPOT, "NoSchedule"))
    if nodes:
        spec["nodeSelector"] = {"labels": nodes}
    if tolerations:
        spec["tolerations"] = [one.spec for one in dict.fromkeys(tolerations)]
    volumes = _volumes(options)
    if volumes:
        spec["emptyDirMounts"] = volumes
    by_env, by_mount = _secrets(options.secrets)
    if site:
        by_env.append(_reference("secret", site, [{"secretKey": k, "envVar": k} for k in SECRETS], optional=True))
        settings = [{"configMapKey": k, "envVar": k} for k in SETTINGS]
        spec["configMapAsEnv"] = [_reference("configMap", site, settings, optional=True)]
    if by_env:
        spec["secretAsEnv"] = by_env
    if by_mount:
        spec["secretAsVolume"] = by_mount
    return spec


def _volumes(options: Options) -> list[Spec]:
    found: list[Spec] = []
    if options.shm is not None:
        found.append({"volumeName": "rml-shm", "mountPath": _SHM, "medium": "Memory", "sizeLimit": options.shm})
    if options.ephemeral_storage is not None:
        found.append({"volumeName": "rml-scratch", "mountPath": SCRATCH, "sizeLimit": options.ephemeral_storage})
    return found


def _secrets(secrets: Iterable[Secret]) -> tuple[list[Spec], list[Spec]]:
    """As environment (the keys of one secret together) and as volumes."""
    keys: dict[str, list[Spec]] = {}
    mounted: list[Spec] = []
    for secret in secrets:
        if secret.env:
            keys.setdefault(secret.name, []).append({"secretKey": secret.key, "envVar": secret.env})
        else:
            mounted.append({**_named("secret", secret.name), "mountPath": secret.mount, "optional": False})
    return [_reference("secret", name, found, optional=False) for name, found in keys.items()], mounted


def _reference(kind: str, name: str, keys: list[Spec], *, optional: bool) -> Spec:
    return {**_named(kind, name), "keyToEnv": keys, "optional": optional}


def _named(kind: str, name: str) -> Spec:
    """Both spellings that kfp-kubernetes writes: older drivers read the first, newer ones the second."""
    return {f"{kind}Name": name, f"{kind}NameParameter": {"runtimeValue": {"constant": name}}}
