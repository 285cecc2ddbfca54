"""The executor pod that Kubeflow Pipelines 2.17 makes of a task: IR and platform document in, a Pod out. Pure.

Its shape is the recorded one (`shared/data/kfp/executor-pod-2.17.yaml`): the launcher copied in by an init container, the
IR's command and arguments verbatim behind it, scratch volumes, security contexts. Argo's own two containers are left out;
they carry Argo's bookkeeping and nothing of the step. `runAsNonRoot` is said for the whole pod, as clusters enforce it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

LAUNCHER = "rml-test-launcher"
LAUNCHER_KEYS = "mlpipeline-minio-artifact"
_SCRATCH = {
    "kfp-launcher": "/kfp-launcher", "gcs-scratch": "/gcs", "s3-scratch": "/s3", "minio-scratch": "/minio",
    "dot-local-scratch": "/.local", "dot-cache-scratch": "/.cache", "dot-config-scratch": "/.config",
}  # fmt: skip
_LOCKED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}

Spec = dict[str, Any]


def executor_pod(
    name: str,
    container: Mapping[str, Any],
    platform: Mapping[str, Any],
    executor_input: Mapping[str, Any],
    component: Mapping[str, Any],
    *,
    pipeline: str,
    run_id: str,
) -> Spec:
    """The Pod of one task. `container` is the IR's, `platform` the task's entry in the platform document."""
    main: Spec = {
        "name": "main",
        "image": container["image"],
        "imagePullPolicy": platform.get("imagePullPolicy", "IfNotPresent"),
        "command": [
            "/kfp-launcher/launch", "--pipeline_name", pipeline, "--run_id", run_id, "--execution_id", "1",
            "--executor_input", json.dumps(executor_input), "--component_spec", json.dumps(component),
            "--pod_name", "$(KFP_POD_NAME)", "--pod_uid", "$(KFP_POD_UID)", "--",
        ],
        "args": [*container["command"], *container["args"]],
        "env": environment(container, platform),
        "resources": resources(container.get("resources") or {}),
        "securityContext": _LOCKED,
        "volumeMounts": [{"name": volume, "mountPath": path} for volume, path in _SCRATCH.items()],
    }  # fmt: skip
    init: Spec = {
        "name": "kfp-launcher",
        "image": container["image"],
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "/launcher/launcher.py"],
        "args": ["--copy", "/kfp-launcher/launch"],
        "securityContext": {**_LOCKED, "runAsNonRoot": True},
        "volumeMounts": [
            {"name": "kfp-launcher", "mountPath": "/kfp-launcher"},
            {"name": "launcher", "mountPath": "/launcher"},
        ],
    }
    files = ("launcher.py", "__init__.py", "_s3.py", "_s3_errors.py")
    items = [{"key": file, "path": file if file == "launcher.py" else f"s3/{file}"} for file in files]
    volumes: list[Spec] = [{"name": volume, "emptyDir": {}} for volume in _SCRATCH]
    volumes.append({"name": "launcher", "configMap": {"name": LAUNCHER, "items": items}})
    for volume, mount in extra_volumes(platform):
        volumes.append(volume)
        main["volumeMounts"].append({"name": volume["name"], "mountPath": mount})
    spec: Spec = {
        "restartPolicy": "Never",
        "initContainers": [init],
        "containers": [main],
        "volumes": volumes,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    }
    if platform.get("nodeSelector"):
        spec["nodeSelector"] = platform["nodeSelector"]["labels"]
    if platform.get("tolerations"):
        spec["tolerations"] = [
            {k: int(v) if k == "tolerationSeconds" else v for k, v in one.items()} for one in platform["tolerations"]
        ]
    if platform.get("activeDeadlineSeconds"):
        spec["activeDeadlineSeconds"] = int(platform["activeDeadlineSeconds"])
    said = platform.get("podMetadata") or {}
    labels = {"pipeline/runid": run_id, "pipelines.kubeflow.org/v2_component": "true", **(said.get("labels") or {})}
    metadata: Spec = {"name": name, "labels": labels, "annotations": dict(said.get("annotations") or {})}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def environment(container: Mapping[str, Any], platform: Mapping[str, Any]) -> list[Spec]:
    """KFP's own two variables, the launcher's keys, the IR's constants, and what the platform document refers to."""
    found: list[Spec] = [
        {"name": name, "valueFrom": {"fieldRef": {"fieldPath": f"metadata.{field}"}}}
        for name, field in (("KFP_POD_NAME", "name"), ("KFP_POD_UID", "uid"))
    ]
    found += [
        {"name": f"LAUNCHER_{key}", "valueFrom": {"secretKeyRef": {"name": LAUNCHER_KEYS, "key": key}}}
        for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_REGION")
    ]
    found += [{"name": entry["name"], "value": str(entry.get("value", ""))} for entry in container.get("env") or []]
    for kind, key_name, reference in (
        ("secret", "secretKey", "secretKeyRef"),
        ("configMap", "configMapKey", "configMapKeyRef"),
    ):
        for one in platform.get(f"{kind}AsEnv") or []:
            for pair in one["keyToEnv"]:
                source = {"name": one[f"{kind}Name"], "key": pair[key_name], "optional": bool(one.get("optional"))}
                found.append({"name": pair["envVar"], "valueFrom": {reference: source}})
    return found


def resources(said: Mapping[str, Any]) -> Spec:
    """Limits, which are the requests too unless something else is said."""
    limits: Spec = {}
    if said.get("resourceCpuLimit"):
        limits["cpu"] = said["resourceCpuLimit"]
    if said.get("resourceMemoryLimit"):
        limits["memory"] = said["resourceMemoryLimit"]
    if accelerator := said.get("accelerator"):
        limits[accelerator["resourceType"]] = accelerator["resourceCount"]
    return {"limits": limits} if limits else {}


def extra_volumes(platform: Mapping[str, Any]) -> list[tuple[Spec, str]]:
    """(volume, where it is mounted) of secrets, configuration and scratch space."""
    found: list[tuple[Spec, str]] = []
    for one in platform.get("secretAsVolume") or []:
        source = {"secretName": one["secretName"], "optional": bool(one.get("optional"))}
        found.append(({"name": one["secretName"], "secret": source}, one["mountPath"]))
    for one in platform.get("configMapAsVolume") or []:
        source = {"name": one["configMapName"], "optional": bool(one.get("optional"))}
        found.append(({"name": one["configMapName"], "configMap": source}, one["mountPath"]))
    for one in platform.get("emptyDirMounts") or []:
        source = {"medium": one.get("medium", ""), "sizeLimit": one.get("sizeLimit")}
        found.append(
            ({"name": one["volumeName"], "emptyDir": {k: v for k, v in source.items() if v}}, one["mountPath"])
        )
    return found
