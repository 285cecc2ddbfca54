"""A cluster as its kubeconfig gives it: apply objects server-side, and read whether they are ready."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from roblox_ml_core.errors import Unavailable

__all__ = ["Cluster", "State", "readiness"]


@dataclass(frozen=True, slots=True)
class State:
    ready: bool
    reason: str = ""


def readiness(found: Mapping[str, Any]) -> State | None:
    """Whether an object as the cluster has it is ready; None for a kind that has nothing to become."""
    status, spec = found.get("status") or {}, found.get("spec") or {}
    seen = status.get("observedGeneration", 0) >= found["metadata"].get("generation", 0)
    conditions = {entry["type"]: entry for entry in status.get("conditions") or ()}
    if found["kind"] == "InferenceService":
        ready = seen and conditions.get("Ready", {}).get("status") == "True"
        return State(ready, "" if ready else _reasons(conditions.values(), status))
    if found["kind"] == "Deployment":
        wanted, updated = spec.get("replicas", 1), status.get("updatedReplicas", 0)
        available = status.get("availableReplicas", 0)
        ready = seen and updated >= wanted and available >= wanted
        return State(
            ready, "" if ready else f"{available} of {wanted} replicas available; {_reasons(conditions.values())}"
        )
    return None


def _reasons(conditions: Iterable[Mapping[str, Any]], status: Mapping[str, Any] | None = None) -> str:
    """What the controllers say that is wrong, each once."""
    bad = [c for c in conditions if c.get("status") != "True" and c.get("severity") != "Info"]
    found = [str(c.get("message") or c.get("reason") or f"{c['type']} is {c.get('status')}") for c in bad]
    failure = ((status or {}).get("modelStatus") or {}).get("lastFailureInfo") or {}
    if failure.get("message"):
        found.append(str(failure["message"]))
    return "; ".join(dict.fromkeys(found)) or "no controller has said anything yet: is KServe's running?"


class Cluster:
    """One cluster. `manager`: under whose name fields are owned."""

    def __init__(self, kubeconfig: str | None, manager: str) -> None:
        from kubernetes import client, config  # type: ignore[import-untyped]
        from kubernetes.config.config_exception import ConfigException  # type: ignore[import-untyped]
        from kubernetes.dynamic import DynamicClient  # type: ignore[import-untyped]

        self._manager = manager
        # A client of its own: whoever imports us may talk to another cluster.
        settings = client.Configuration()
        try:
            config.load_kube_config(kubeconfig, client_configuration=settings)
        except (ConfigException, OSError) as error:
            raise Unavailable(
                f"no cluster: the kubeconfig cannot be read: {error}", hint="set KUBECONFIG, or give kubeconfig="
            ) from error
        settings.retries = False
        try:
            self._client = DynamicClient(client.ApiClient(settings))
        except Exception as error:
            raise Unavailable(f"the cluster at {settings.host} does not answer: {error}") from error

    def apply(self, objects: Sequence[Mapping[str, Any]]) -> list[str]:
        """Apply all of them; a sentence for each that was refused."""
        refused = []
        for found in objects:
            reason = self._applied(found)
            if reason:
                refused.append(f"{found['kind']} {found['metadata']['name']}: {reason}")
        return refused

    def _applied(self, found: Mapping[str, Any]) -> str:
        from kubernetes.client import ApiException  # type: ignore[import-untyped]
        from kubernetes.dynamic.exceptions import DynamicApiError, ResourceNotFoundError  # type: ignore[import-untyped]

        try:
            kind = self._client.resources.get(api_version=found["apiVersion"], kind=found["kind"])
            self._client.server_side_apply(
                kind,
                body=dict(found),
                name=found["metadata"]["name"],
                namespace=found["metadata"].get("namespace"),
                field_manager=self._manager,
            )
        except ResourceNotFoundError:
            return f"the cluster knows no {found['kind']} of {found['apiVersion']}: install what defines it"
        except (ApiException, DynamicApiError) as error:
            return _said(error)
        return ""

    def state(self, found: Mapping[str, Any]) -> State | None:
        """`readiness` of an object that was applied."""
        if found["kind"] not in ("InferenceService", "Deployment"):
            return None
        kind = self._client.resources.get(api_version=found["apiVersion"], kind=found["kind"])
        there = self._client.get(kind, name=found["metadata"]["name"], namespace=found["metadata"].get("namespace"))
        return readiness(there.to_dict())


def _said(error: Any) -> str:
    """The API server's own sentence."""
    body = error.body.decode() if isinstance(error.body, bytes) else str(error.body or error)
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body[:500]
