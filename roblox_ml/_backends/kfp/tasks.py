"""A run on Kubeflow as our words: what the server's JSON and the pipeline's spec say about state, steps and pods.

Pure functions. The server lists Argo's nodes (drivers, executors, DAGs) without saying which is whose child; a step is the node that
has the step's name. Argo makes a node's id from its path (FNV-1a), so the pods of a step can be named without asking anybody.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from graphlib import TopologicalSorter
from typing import Any

__all__ = ["Leaf", "Node", "leaves", "node_id", "nodes", "pod_names", "seconds", "state_of", "workflow_of"]

_WORDS = {
    "CANCELED": "CANCELLED",
    "CANCELING": "RUNNING",
    "PAUSED": "RUNNING",
    "": "PENDING",
    "RUNTIME_STATE_UNSPECIFIED": "PENDING",
}
_NEVER = "1970-01-01T00:00:00Z"
_TEMPLATES = {False: "system-container-impl", True: "retry-system-container-impl"}


@dataclass(frozen=True, slots=True)
class Leaf:
    """A step of the spec: its name, the groups it is in, and whether it is in a loop (then it runs several times)."""

    name: str
    groups: tuple[str, ...] = ()
    looped: bool = False
    retries: int = 0
    component: str = ""


@dataclass(frozen=True, slots=True)
class Node:
    """One execution of a step. Times are seconds since the epoch."""

    name: str
    leaf: Leaf
    state: str
    started: float | None
    finished: float | None
    error: str = ""
    attempts: int = 0


def state_of(word: Any) -> str:
    """The server's state in the words of a local run."""
    text = str(word or "")
    return _WORDS.get(text, text)


def seconds(stamp: Any) -> float | None:
    """An RFC 3339 time; None for the server's "never"."""
    if not stamp or str(stamp) == _NEVER or str(stamp).startswith("1970-01-01T00:00:00"):
        return None
    return datetime.fromisoformat(str(stamp).replace("Z", "+00:00")).timestamp()


def leaves(spec: Mapping[str, Any]) -> list[Leaf]:
    """Every step of a pipeline spec, in an order in which they can run."""
    components = spec.get("components") or {}

    def walk(dag: Mapping[str, Any], groups: tuple[str, ...], looped: bool) -> Iterator[Leaf]:
        tasks: Mapping[str, Any] = dag.get("tasks") or {}
        for name in TopologicalSorter({n: list(_before(t, tasks)) for n, t in tasks.items()}).static_order():
            task = tasks[name]
            reference = task["componentRef"]["name"]
            component = components.get(reference) or {}
            again = looped or "parameterIterator" in task or "artifactIterator" in task
            if "dag" in component:
                yield from walk(component["dag"], (*groups, name), again)
            else:
                retries = int((task.get("retryPolicy") or {}).get("maxRetryCount") or 0)
                yield Leaf(name, groups, again, retries, reference)

    return list(walk((spec.get("root") or {}).get("dag") or {}, (), False))


def nodes(run: Mapping[str, Any], spec: Mapping[str, Any]) -> list[Node]:
    """The run's steps: what the server has of each; a step it does not mention yet is PENDING, or SKIPPED once the run is over."""
    details: list[Mapping[str, Any]] = (run.get("run_details") or {}).get("task_details") or []
    over = state_of(run.get("state")) in ("SUCCEEDED", "FAILED", "CANCELLED")
    children = {child["pod_name"] for d in details for child in d.get("child_tasks") or [] if "pod_name" in child}
    workflow = workflow_of(run)
    found: list[Node] = []
    for leaf in leaves(spec) if spec else _guessed(details, workflow):
        mine = [d for d in details if d.get("display_name") == leaf.name]
        mine.sort(key=lambda d: (str(d.get("start_time") or ""), str(d.get("task_id") or "")))
        if not mine:
            found.append(Node(leaf.name, leaf, "SKIPPED" if over else "PENDING", None, None))
        several = leaf.looped or len(mine) > 1
        for index, detail in enumerate(mine):
            attempts = _attempts(workflow, leaf, children)
            found.append(_node(f"{leaf.name}[{index}]" if several else leaf.name, leaf, detail, over, attempts))
    return found


def _node(name: str, leaf: Leaf, detail: Mapping[str, Any], over: bool, attempts: int) -> Node:
    # A step behind a failed one is listed without any state: it was left out.
    word = detail.get("state")
    state = state_of(word) if word else "SKIPPED" if over else "PENDING"
    started, finished = seconds(detail.get("start_time")), seconds(detail.get("end_time"))
    if state in ("PENDING", "SKIPPED"):
        started = finished = None
    elif state == "RUNNING":
        finished = None
    error = str((detail.get("error") or {}).get("message") or "")
    return Node(name, leaf, state, started, finished, error, attempts or (started is not None))


def _attempts(workflow: str, leaf: Leaf, children: set[str]) -> int:
    if not leaf.retries or leaf.looped:
        return 0
    path = _path(workflow, leaf)
    return sum(node_id(workflow, f"{path}({n})") in children for n in range(leaf.retries + 1))


def _guessed(details: list[Mapping[str, Any]], workflow: str) -> list[Leaf]:
    """Without the spec (its version was deleted): every node that is neither a driver, an executor nor the whole."""
    names = dict.fromkeys(str(d.get("display_name") or "") for d in details)
    drivers = {n.removesuffix("-driver") for n in names if n.endswith("-driver")}
    return [Leaf(n) for n in names if n in drivers and n not in ("root", "executor", workflow)]


def workflow_of(run: Mapping[str, Any]) -> str:
    """The Argo workflow's name: what every node's id begins with; empty before it has any."""
    for detail in (run.get("run_details") or {}).get("task_details") or []:
        for child in detail.get("child_tasks") or []:
            if child.get("pod_name"):
                return str(child["pod_name"]).rpartition("-")[0]
    return ""


def node_id(workflow: str, path: str) -> str:
    """Argo's id of the node with this path: the workflow's name and the path's 32-bit FNV-1a hash."""
    return f"{workflow}-{_fnv(path)}"


def pod_names(run: Mapping[str, Any], leaf: Leaf) -> list[str]:
    """The names the step's pods have (the last attempt first), as the server's log endpoint and Kubernetes know them."""
    workflow = workflow_of(run)
    if not workflow or leaf.looped:
        return []
    path = _path(workflow, leaf)
    paths = [f"{path}({n})" for n in range(leaf.retries, -1, -1)] if leaf.retries else [path]
    return [f"{workflow}-{_TEMPLATES[bool(leaf.retries)]}-{_fnv(p)}" for p in paths]


def _path(workflow: str, leaf: Leaf) -> str:
    return ".".join([workflow, "root", *leaf.groups, leaf.name, "executor"])


def _fnv(text: str) -> int:
    value = 0x811C9DC5
    for byte in text.encode():
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return value


def _before(task: Mapping[str, Any], known: Mapping[str, Any]) -> Iterator[str]:
    yield from (name for name in task.get("dependentTasks") or [] if name in known)
    for kind in (task.get("inputs") or {}).values():
        for source in kind.values():
            for way in ("taskOutputParameter", "taskOutputArtifact", "taskFinalStatus"):
                producer = str((source.get(way) or {}).get("producerTask") or "")
                if producer in known:
                    yield producer
