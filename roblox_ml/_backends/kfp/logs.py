"""A remote step's log, from whoever still has it: its pod, the API server, or the object store.

A pod's log ends with the pod, the server reads pods or an archive that many clusters do not keep, and the launcher's copy appears when
the step is over. So all three are asked in that order, and when none has it, what each of them said is the error.
"""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..._run_protocol import ENDED
from ..._runtime.outputs import REPORT
from ...errors import RmlSdkError, RunError
from . import objects
from .tasks import Node, node_id, node_path, pod_names, workflow_of

if TYPE_CHECKING:
    from .run import RemoteRun

__all__ = ["REPORT", "follow", "raw", "read", "reporter"]

_REPORTED = re.compile(rf"{re.escape(REPORT)}.*\n?")
_FOLLOW = 1.0
_KUBE_TIMEOUT = (3.0, 30.0)
_NEVER_STARTED = ("PENDING", "SKIPPED")


def read(run: RemoteRun, node: Node, *, quietly: bool = False) -> str:
    """What the step printed; RunError when nobody has it (`quietly`: nothing)."""
    # How a step reports its outputs is between its pod and us.
    return _REPORTED.sub("", raw(run, node, quietly=quietly))


def raw(run: RemoteRun, node: Node, *, quietly: bool = False) -> str:
    """The log with everything in it."""
    if node.state in _NEVER_STARTED:
        return ""
    said: list[str] = []
    for name, ask in (("its pod", _from_pod), ("the server", _from_server), ("the object store", _from_store)):
        try:
            found = ask(run, node)
        except Exception as error:
            found = None
            said.append(f"{name}: {_first_line(error)}")
        else:
            said.append(f"{name}: nothing")
        if found is not None:
            return found
    if quietly:
        return ""
    raise RunError(
        f"nobody has the log of step {node.name} of run {run.id} any more",
        why="; ".join(said),
        fix="give access to one of them: a kubeconfig for the cluster, or AWS_* keys for its object store; "
        "a step that Kubeflow took from its cache has its log with the run that computed it",
    )


def follow(run: RemoteRun, node: Node) -> str:
    """Print the log as it grows, until the step ends; all of it."""
    shown = ""
    while True:
        (now,) = [n for n in run._nodes_named(node.name) if n.name == node.name]
        over = now.state not in ("PENDING", "RUNNING", "RETRYING") or run.state in ENDED
        text = read(run, now, quietly=True)
        if text.startswith(shown):
            print(text[len(shown) :], end="", flush=True)
        elif text:
            print(text, end="", flush=True)  # another attempt began anew
        shown = text or shown
        if over:
            return shown
        time.sleep(_FOLLOW)


def _from_pod(run: RemoteRun, node: Node) -> str | None:
    core = kubernetes(run._connection.kube_context)
    if core is None:
        return None
    namespace = run._connection.namespace or "kubeflow"
    pods = core.list_namespaced_pod(
        namespace, label_selector=f"pipeline/runid={run.id}", _request_timeout=_KUBE_TIMEOUT
    ).items
    wanted = re.compile(rf"\.{re.escape(node.leaf.name)}\.executor(\(\d+\))?$")
    named = [(str((p.metadata.annotations or {}).get("workflows.argoproj.io/node-name", "")), p) for p in pods]
    mine = [(name, p) for name, p in named if wanted.search(name)]
    if node.at:
        path = node_path(workflow_of(run._look()), node)
        mine = [(name, p) for name, p in mine if re.sub(r"(?<=executor)\(\d+\)$", "", name) == path]
    if not mine:
        return None
    mine.sort(key=lambda pair: str(pair[1].metadata.creation_timestamp))
    index = -1 if node.at else _index(node)
    pod = mine[index if index < len(mine) else -1][1]
    answer = core.read_namespaced_pod_log(
        pod.metadata.name, namespace, container="main", _preload_content=False, _request_timeout=_KUBE_TIMEOUT
    )
    return bytes(answer.data).decode("utf-8", "replace")


def kubernetes(context: str | None) -> Any:
    """The core API of the cluster that a kubeconfig names (or the one around us); None when there is neither."""
    try:
        import kubernetes as k8s  # type: ignore[import-untyped]  # it has no types
    except ModuleNotFoundError:
        return None
    config = k8s.client.Configuration()
    try:
        if Path("/var/run/secrets/kubernetes.io/serviceaccount/token").is_file():
            k8s.config.load_incluster_config(client_configuration=config)
        else:
            k8s.config.load_kube_config(context=context or None, client_configuration=config)
    except k8s.config.ConfigException:
        return None
    # A kubeconfig of a cluster that is away must not hold up the next one to ask.
    config.retries = False
    return k8s.client.CoreV1Api(k8s.client.ApiClient(config))


def _from_server(run: RemoteRun, node: Node) -> str | None:
    """The v1alpha1 endpoint: the only one of 2.17 that gives logs. It wants a pod's name; older workflows call a pod as its node."""
    workflow = workflow_of(run._look())
    names = pod_names(run._look(), node.leaf, node.at)
    names += [node_id(workflow, node_path(workflow, node))] if names else []
    last: Exception | None = None
    for name in names:
        try:
            return _ask(run, f"/apis/v1alpha1/runs/{run.id}/nodes/{name}/log")
        except RmlSdkError as error:  # RunError too
            last = error
    if last is not None:
        raise last
    return None


def _ask(run: RemoteRun, path: str) -> str:
    from .api import told

    with told(run.host):
        answer = run._connection.client._run_api.api_client.call_api(
            path,
            "GET",
            auth_settings=["Bearer"],
            _preload_content=False,
            _return_http_data_only=True,
            _request_timeout=_KUBE_TIMEOUT,
        )
    text = bytes(answer.data).decode("utf-8", "replace")
    if refused := _refusal(text):
        raise RunError(refused)
    return text


def _refusal(text: str) -> str:
    """The server's error, which it sends with status 200 in the place of the log."""
    if not text.startswith("{"):
        return ""
    try:
        found = json.loads(text)
    except ValueError:
        return ""
    alike = isinstance(found, dict) and set(found) == {"error_details", "error_message"}
    return str(found["error_message"]) if alike else ""


def _from_store(run: RemoteRun, node: Node) -> str | None:
    if not objects.reachable(objects.root_of(run)):
        return None
    if not node.at:
        return objects.kept_log(run, node.leaf.name, _index(node) if "[" in node.name else -1)
    # The launcher's folders say nothing about iterations; the step's own report names its pod, whose name ends in its hash.
    names = pod_names(run._look(), node.leaf, node.at)
    logs = [(reporter(log), log) for log in objects.kept_logs(run, node.leaf.name)]
    if mine := [log for pod, log in logs if pod in names]:
        return mine[-1]
    others = [log for pod, log in logs if not pod]
    return others[_index(node)] if len(node.at) == 1 and _index(node) < len(others) else None


def reporter(log: str) -> str:
    """The pod that reported its outputs in this log; empty when nobody did, or did not say."""
    line = log.rpartition(REPORT)[2].partition("\n")[0] if REPORT in log else ""
    try:
        found = json.loads(line)
    except ValueError:
        return ""
    return str(found.get("pod") or "") if isinstance(found, dict) else ""


def _index(node: Node) -> int:
    return int(node.name.rpartition("[")[2].rstrip("]")) if node.name.endswith("]") else 0


def _first_line(error: Exception) -> str:
    text = str(getattr(error, "message", "") or error).strip()
    return (text.splitlines() or [type(error).__name__])[0][:200]
