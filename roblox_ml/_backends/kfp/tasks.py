"""A run on Kubeflow as our words: what the server's JSON and the pipeline's spec say about state, steps and pods.

Pure functions. The server lists Argo's nodes (drivers, executors, DAGs) without saying which is whose child; a step is the node that
has the step's name. Argo makes a node's id from its path (FNV-1a), so the pods of a step can be named without asking anybody, and an
execution in a loop is known by the iteration in its path: when it started or ended says nothing about that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from graphlib import TopologicalSorter
from itertools import islice, product
from typing import Any

__all__ = ["Leaf", "Node", "leaves", "node_id", "node_path", "nodes", "pod_names", "seconds", "state_of", "workflow_of"]

_WORDS = {
    "CANCELED": "CANCELLED",
    "CANCELING": "RUNNING",
    "PAUSED": "RUNNING",
    "": "PENDING",
    "RUNTIME_STATE_UNSPECIFIED": "PENDING",
}
_NEVER = "1970-01-01T00:00:00Z"
_ITERATION = re.compile(r"iteration-iterations\((\d+):.*\)")  # what Argo shows of a loop's body
_MOST_ITERATIONS = 20_000  # of nested loops: hashes of 32 bits tell no more apart
_TEMPLATES = {False: "system-container-impl", True: "retry-system-container-impl"}


@dataclass(frozen=True, slots=True)
class Leaf:
    """A step of the spec: its name, the groups it is in, and whether it is in a loop (then it runs several times).

    `loops` are those of its groups that run once for each item.
    """

    name: str
    groups: tuple[str, ...] = ()
    looped: bool = False
    retries: int = 0
    component: str = ""
    loops: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Node:
    """One execution of a step. Times are seconds since the epoch; `at` is the index in each loop around it."""

    name: str
    leaf: Leaf
    state: str
    started: float | None
    finished: float | None
    error: str = ""
    attempts: int = 0
    at: tuple[int, ...] = ()


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

    def walk(dag: Mapping[str, Any], groups: tuple[str, ...], loops: tuple[str, ...], looped: bool) -> Iterator[Leaf]:
        tasks: Mapping[str, Any] = dag.get("tasks") or {}
        for name in TopologicalSorter({n: list(_before(t, tasks)) for n, t in tasks.items()}).static_order():
            task = tasks[name]
            reference = task["componentRef"]["name"]
            component = components.get(reference) or {}
            iterated = "parameterIterator" in task or "artifactIterator" in task
            if "dag" in component:
                around = (*loops, name) if iterated else loops
                yield from walk(component["dag"], (*groups, name), around, looped or iterated)
            else:
                retries = int((task.get("retryPolicy") or {}).get("maxRetryCount") or 0)
                yield Leaf(name, groups, looped or iterated, retries, reference, loops)

    return list(walk((spec.get("root") or {}).get("dag") or {}, (), (), False))


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
        if leaf.loops and workflow:
            found += [
                _node(_indexed(leaf.name, at), leaf, detail, over, _attempts(workflow, leaf, children, at), at)
                for at, detail in _by_iteration(leaf, mine, details, workflow)
            ]
            continue
        several = leaf.looped or len(mine) > 1
        for index, detail in enumerate(mine):
            attempts = _attempts(workflow, leaf, children)
            found.append(_node(f"{leaf.name}[{index}]" if several else leaf.name, leaf, detail, over, attempts))
    return found


def _by_iteration(
    leaf: Leaf, mine: list[Mapping[str, Any]], details: list[Mapping[str, Any]], workflow: str
) -> list[tuple[tuple[int, ...], Mapping[str, Any]]]:
    """A step's executions with their iterations, in that order. One that has no pod yet takes what index is left."""
    shown = [_ITERATION.fullmatch(str(d.get("display_name") or "")) for d in details]
    most = max([len(mine), *(int(match[1]) + 1 for match in shown if match)])
    every = list(islice(product(range(most), repeat=len(leaf.loops)), _MOST_ITERATIONS))
    known = {node_id(workflow, _path(workflow, leaf, at)): at for at in every}
    taken: dict[tuple[int, ...], Mapping[str, Any]] = {}
    waiting: list[Mapping[str, Any]] = []
    for detail in mine:
        pods = (str(child.get("pod_name") or "") for child in detail.get("child_tasks") or [])
        at = next((known[pod] for pod in pods if pod in known), None)
        if at is None or at in taken:
            waiting.append(detail)
        else:
            taken[at] = detail
    free = (at for at in every if at not in taken)
    return sorted([*taken.items(), *zip(list(free), waiting, strict=False)], key=lambda pair: pair[0])


def _indexed(name: str, at: tuple[int, ...]) -> str:
    return name + "".join(f"[{index}]" for index in at)


def _node(
    name: str, leaf: Leaf, detail: Mapping[str, Any], over: bool, attempts: int, at: tuple[int, ...] = ()
) -> Node:
    # A step behind a failed one is listed without any state: it was left out.
    word = detail.get("state")
    state = state_of(word) if word else "SKIPPED" if over else "PENDING"
    started, finished = seconds(detail.get("start_time")), seconds(detail.get("end_time"))
    if state in ("PENDING", "SKIPPED"):
        started = finished = None
    elif state == "RUNNING":
        finished = None
    error = str((detail.get("error") or {}).get("message") or "")
    return Node(name, leaf, state, started, finished, error, attempts or (started is not None), at)


def _attempts(workflow: str, leaf: Leaf, children: set[str], at: tuple[int, ...] = ()) -> int:
    if not leaf.retries or (leaf.looped and not at):
        return 0
    path = _path(workflow, leaf, at)
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


def node_path(workflow: str, node: Node) -> str:
    """Argo's path of the node whose pods carry an execution out."""
    return _path(workflow, node.leaf, node.at)


def pod_names(run: Mapping[str, Any], leaf: Leaf, at: tuple[int, ...] = ()) -> list[str]:
    """The names the step's pods have (the last attempt first), as the server's log endpoint and Kubernetes know them."""
    workflow = workflow_of(run)
    if not workflow or (leaf.looped and not at):
        return []
    path = _path(workflow, leaf, at)
    paths = [f"{path}({n})" for n in range(leaf.retries, -1, -1)] if leaf.retries else [path]
    return [f"{workflow}-{_TEMPLATES[bool(leaf.retries)]}-{_fnv(p)}" for p in paths]


def _path(workflow: str, leaf: Leaf, at: tuple[int, ...] = ()) -> str:
    indices = dict(zip(leaf.loops, at, strict=False))
    parts = [workflow, "root"]
    for group in leaf.groups:
        parts.append(group)
        if group in indices:
            # Kubeflow's names for a loop's body: Argo's withSequence adds "(index:item)", and the items are the indices.
            parts += [f"iteration-iterations({indices[group]}:{indices[group]})", "iteration-item"]
    return ".".join([*parts, leaf.name, "executor"])


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
