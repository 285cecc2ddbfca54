"""An endpoint on a Kubernetes cluster with KServe: the objects as files, or applied and waited for.

    rml.manifests("feed", target="kserve", out="deploy/feed", control_url="https://rml.example.com")
    rml.deploy("feed@champion", target="kserve")

What is applied is what the files say. Objects are applied server-side under the name of this tool: what other tools own in
them (an autoscaler's replica count, a label of an administrator) stays theirs, and a conflict names who owns what.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import _siblings
from ._addresses import control, control_url, translated
from .errors import NotRunning, RemoteError

__all__ = ["apply", "manifests", "objects"]

MANAGER = "rml"
TARGETS = ("kserve",)
#: What a namespace's user may not touch: an administrator applies it once.
CLUSTER_WIDE = ("ClusterServingRuntime", "ClusterStorageContainer")


def manifests(
    endpoint: str,
    target: str = "kserve",
    out: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> dict[str, list[dict[str, Any]]]:
    """The Kubernetes objects of an endpoint, by file name; written to the folder `out` if one is given.

    Args:
        endpoint: an endpoint of the control plane; its present version is what new pods start with.
        settings: `namespace`, `control_url`, `store`, `image`, `door_image`, `secret`, `service_account`, `storage_uri`,
            `min_replicas`, `max_replicas`, `scale_by` ("cpu" or "queue"), `scale_target`, `prometheus`, `cpu`, `memory`,
            `cpu_limit`, `gateway`, `hostname`, `mesh` (also write what a mesh needs to split traffic without a door).

    Raises:
        NotFound: there is no such endpoint.
        RemoteError: a cluster would refuse some values; the message names each.
    """
    found, left_out = objects(endpoint, target, **settings)
    if out is not None:
        _siblings.load("roblox_ml_serving.kserve").write(found, Path(out), left_out)
    return found


def objects(
    endpoint: str,
    target: str = "kserve",
    *,
    namespace: str = "default",
    control_url: str | None = None,
    store: str | None = None,
    image: str | None = None,
    door_image: str | None = None,
    secret: str | None = None,
    service_account: str | None = None,
    environment: Mapping[str, str] | None = None,
    storage_uri: str = "",
    min_replicas: int = 1,
    max_replicas: int = 1,
    scale_by: str = "cpu",
    scale_target: int | None = None,
    prometheus: str | None = None,
    cpu: str = "1",
    memory: str = "2Gi",
    cpu_limit: str | None = None,
    gateway: str | None = None,
    hostname: str | None = None,
    mesh: bool = False,
) -> tuple[dict[str, list[dict[str, Any]]], tuple[str, ...]]:
    """`manifests`, and what of the endpoint's policy a mesh cannot carry out."""
    if target not in TARGETS:
        raise RemoteError(f"no target is called {target!r}", fix=f"write target={TARGETS[0]!r}", code="invalid")
    kserve = _siblings.load("roblox_ml_serving.kserve")
    with control() as plane:
        known = plane.endpoint(endpoint)
        snapshot = plane.snapshot() if mesh or gateway else None
        digest = known.get("digest") or plane.version(known["model"], int(known["version"]))["digest"]
    with translated():
        given = {
            "image": image, "door_image": door_image, "secret": secret, "service_account": service_account,
            "store": store or _reachable(os.environ.get("RML_STORE")),
        }  # fmt: skip
        installation = kserve.Installation(
            control_url or _control(), namespace, environment=tuple(sorted((environment or {}).items())),
            **{name: value for name, value in given.items() if value is not None},
        )  # fmt: skip
        target_value = scale_target if scale_target is not None else {"queue": 20}.get(scale_by, 70)
        split = None
        if snapshot is not None:
            policy = _siblings.load("roblox_ml_core.policy").read_policy(snapshot["policy"])
            split = kserve.split_of(policy, endpoint)
        found = kserve.manifests(
            kserve.Model(endpoint, known["model"], int(known["version"]), digest, storage_uri),
            installation,
            scaling=kserve.Scaling(min_replicas, max_replicas, scale_by, target_value, prometheus),
            resources=kserve.Resources(cpu, memory, cpu_limit),
            split=split,
            gateway=gateway,
            hostname=hostname,
        )
    return found, () if split is None else split.left_out


def _control() -> str:
    return control_url()


def _reachable(store: str | None) -> str | None:
    """The store's address as pods see it; none for a folder of this machine, which the control plane then serves."""
    return store if store and store.partition(":")[0] in ("s3", "http", "https") else None


def apply(
    files: Mapping[str, Sequence[Mapping[str, Any]]],
    *,
    kubeconfig: str | None = None,
    wait: bool = True,
    timeout: float = 300.0,
    say: Callable[[str], None] | None = None,
    cluster_wide: bool = True,
) -> None:
    """Apply the objects of `manifests` server-side through the kubeconfig, and wait until what serves is ready.

    Args:
        kubeconfig: a file; $KUBECONFIG or ~/.kube/config if left out.
        cluster_wide: also apply what belongs to the whole cluster; False for a user who may not.

    Raises:
        RemoteError: the cluster refused an object; all refusals are in the message, in the cluster's own words.
        NotRunning: it was not ready in time; the message has what the cluster says about it.
    """
    serving = _siblings.load("roblox_ml_serving.kserve.cluster")
    speak = say or (lambda line: print(line, flush=True))
    flat = [found for name, group in files.items() if name != "envoy.yaml" for found in group]
    chosen = [found for found in flat if cluster_wide or found["kind"] not in CLUSTER_WIDE]
    cluster = serving.Cluster(kubeconfig, MANAGER)
    if refused := cluster.apply(chosen):
        raise RemoteError(
            f"the cluster refused {len(refused)} of {len(chosen)} object(s):\n"
            + "\n".join(f"  {line}" for line in refused),
            fix="what was accepted stays; correct the values and apply again",
            code="refused",
        )
    speak(f"applied {len(chosen)} object(s)")
    if not wait:
        return
    deadline = time.monotonic() + timeout
    for found in chosen:
        state = cluster.state(found)
        while state is not None and not state.ready:
            if time.monotonic() > deadline:
                raise NotRunning(
                    f"{found['kind']} {found['metadata']['name']} was not ready after {timeout:.0f} s: {state.reason}",
                    fix=f"kubectl -n {found['metadata'].get('namespace', 'default')} describe "
                    f"{found['kind'].lower()} {found['metadata']['name']}",
                )
            time.sleep(0.5)
            state = cluster.state(found)
        if state is not None:
            speak(f"{found['kind']} {found['metadata']['name']} is ready")
