"""Whether a pipeline file's second document says what KFP 2.17 understands: found before the upload, not in a driver's log.

The server takes any platform document and hands it to the driver, which fails in a pod of its own when a field is unknown. The
message's own definition (kfp-kubernetes) is the judge, where it is installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["check_platform"]


def check_platform(ir: Mapping[str, Any]) -> list[str]:
    """Everything wrong with the platform document of an IR as `load_ir` gives it."""
    document = ir.get("platform")
    if document is None:
        return []
    kubernetes = ((document.get("platforms") or {}).get("kubernetes") or {}) if isinstance(document, Mapping) else {}
    configs = ((kubernetes.get("deploymentSpec") or {}).get("executors")) or {}
    if not configs:
        return ["the platform document has no platforms.kubernetes.deploymentSpec.executors"]
    known = (((ir.get("pipeline") or {}).get("deploymentSpec") or {}).get("executors")) or {}
    problems = [f"platform: there is no executor {name!r}" for name in configs if name not in known]
    for name, config in configs.items():
        problems += [f"platform of {name}: {problem}" for problem in _config(config)]
    return problems


def _config(config: Mapping[str, Any]) -> list[str]:
    problems = []
    for kind in ("secretAsEnv", "secretAsVolume", "configMapAsEnv", "configMapAsVolume"):
        for entry in config.get(kind) or []:
            noun = "secret" if kind.startswith("secret") else "configMap"
            if not entry.get(f"{noun}Name") and not entry.get(f"{noun}NameParameter"):
                problems.append(f"{kind} names no {noun}")
    names = [v.get("volumeName") for v in config.get("emptyDirMounts") or []]
    names += [v.get("secretName") for v in config.get("secretAsVolume") or []]
    problems += [f"two volumes are called {name!r}" for name in sorted({n for n in names if n and names.count(n) > 1})]
    return problems + _by_message(config)


def _by_message(config: Mapping[str, Any]) -> list[str]:
    try:
        from google.protobuf import json_format
        from kfp.kubernetes import kubernetes_executor_config_pb2
    except ImportError:
        return []
    try:
        json_format.ParseDict(dict(config), kubernetes_executor_config_pb2.KubernetesExecutorConfig())
    except json_format.ParseError as error:
        return [str(error)]
    return []
