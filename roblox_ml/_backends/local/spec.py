"""A pipeline's IR as frozen data: what the scheduler needs of KFP's PipelineSpec and its platform spec, checked.

The executor reads these bytes and nothing else, never the graph they came from: that is what makes a local run a
rehearsal of the one in a cluster. Parts of the specification that this executor does not carry out (importers, artifact
iterators) are refused by name when the IR is loaded, not met halfway through a run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any

import yaml

from ...errors import RunError
from . import secrets

__all__ = ["Component", "Container", "Iteration", "ParameterDef", "PipelineSpec", "Retry", "TaskSpec", "load"]

_MEMORY = {"K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


@dataclass(frozen=True, slots=True)
class Retry:
    """`limit` further attempts, `delay` seconds before the first, times `factor` each, never over `ceiling`."""

    limit: int = 0
    delay: float = 0.0
    factor: float = 2.0
    ceiling: float = 3600.0

    def before(self, attempt: int) -> float:
        """Seconds to wait before attempt number `attempt` (the first repetition is attempt 2)."""
        return min(self.ceiling, self.delay * self.factor ** (attempt - 2))


@dataclass(frozen=True, slots=True)
class Iteration:
    """A loop: over the list in the task input `source`, or over `items`; `item` is the loop variable's input."""

    item: str
    source: str | None = None
    items: tuple[Any, ...] = ()
    limit: int = 0


@dataclass(frozen=True, slots=True)
class Container:
    """A process to start. `memory` in bytes, `timeout` in seconds; 0 = not said. `secrets` are references, never values."""

    image: str
    command: tuple[str, ...]
    args: tuple[str, ...]
    env: Mapping[str, str]
    memory: int = 0
    gpus: int = 0
    timeout: float = 0.0
    secrets: secrets.SecretRefs = field(default_factory=secrets.SecretRefs)


@dataclass(frozen=True, slots=True)
class ParameterDef:
    """A parameter input: KFP's type name, and a default unless there is none."""

    kind: str
    optional: bool = False
    default: Any = None


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """One task of a DAG: which component, on what inputs, after whom, and under which policies."""

    name: str
    component: str
    after: tuple[str, ...]
    inputs: Mapping[str, Mapping[str, Any]]
    condition: str = ""
    always: bool = False
    iteration: Iteration | None = None
    retry: Retry = field(default_factory=Retry)
    cache: bool = False


@dataclass(frozen=True, slots=True)
class Component:
    """A container, or a DAG of tasks. Artifacts by name: KFP schema title (and version)."""

    name: str
    parameters: Mapping[str, ParameterDef]
    artifacts: Mapping[str, Mapping[str, Any]]
    output_parameters: Mapping[str, str]
    output_artifacts: Mapping[str, Mapping[str, Any]]
    container: Container | None = None
    tasks: Mapping[str, TaskSpec] = field(default_factory=dict)
    outputs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PipelineSpec:
    """The whole pipeline: its name, the root DAG, and every component by name."""

    name: str
    root: Component
    components: Mapping[str, Component]


def load(ir: bytes) -> PipelineSpec:
    """Parse IR bytes (one or two YAML documents)."""
    documents = list(yaml.load_all(ir, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    spec = next((d for d in documents if isinstance(d, dict) and "root" in d), None)
    if spec is None:
        raise RunError("this is no pipeline IR: no YAML document in it has a `root`", fix="compile the pipeline again")
    platform: Mapping[str, Any] = next(
        (d["platforms"] for d in documents if isinstance(d, dict) and "platforms" in d), {}
    )
    limits = (platform.get("kubernetes", {}).get("deploymentSpec") or {}).get("executors") or {}
    executors = (spec.get("deploymentSpec") or {}).get("executors") or {}
    asked = secrets.references(limits)
    others = secrets.hidden_from_others(asked)
    containers = {
        name: _container(name, said, limits.get(name) or {}, asked.get(name, others))
        for name, said in executors.items()
    }
    components = {name: _component(name, said, containers) for name, said in (spec.get("components") or {}).items()}
    return PipelineSpec(spec["pipelineInfo"]["name"], _component("root", spec["root"], containers), components)


def _component(name: str, said: Mapping[str, Any], containers: Mapping[str, Container]) -> Component:
    inputs = said.get("inputDefinitions") or {}
    outputs = said.get("outputDefinitions") or {}
    dag = said.get("dag") or {}
    label = said.get("executorLabel")
    if label is not None and label not in containers:
        raise RunError(f"component {name} refers to the executor {label}, which the IR does not define")
    tasks = {task: _task(task, spec) for task, spec in (dag.get("tasks") or {}).items()}
    for task in tasks.values():
        unknown = [other for other in task.after if other not in tasks]
        if unknown:
            raise RunError(f"task {task.name} of {name} waits for {', '.join(unknown)}, which is not there")
    try:
        # In an order in which they can run: the order of every table of the run.
        order = TopologicalSorter({task.name: task.after for task in tasks.values()}).static_order()
        tasks = {task: tasks[task] for task in order}
    except CycleError as error:
        raise RunError(f"the tasks of {name} wait for one another: {' → '.join(error.args[1])}") from None
    returned = dag.get("outputs") or {}
    return Component(
        name=name,
        parameters={
            key: ParameterDef(d.get("parameterType", "STRING"), bool(d.get("isOptional")), d.get("defaultValue"))
            for key, d in (inputs.get("parameters") or {}).items()
        },
        artifacts=inputs.get("artifacts") or {},
        output_parameters={
            key: d.get("parameterType", "STRING") for key, d in (outputs.get("parameters") or {}).items()
        },
        output_artifacts=outputs.get("artifacts") or {},
        container=containers[label] if label is not None else None,
        tasks=tasks,
        outputs={**(returned.get("parameters") or {}), **(returned.get("artifacts") or {})},
    )


def _task(name: str, said: Mapping[str, Any]) -> TaskSpec:
    if "artifactIterator" in said:
        raise RunError(f"task {name} iterates over artifacts, which the local executor does not support")
    inputs = said.get("inputs") or {}
    given: dict[str, Mapping[str, Any]] = {**(inputs.get("parameters") or {}), **(inputs.get("artifacts") or {})}
    after = dict.fromkeys(said.get("dependentTasks") or [])
    for source in given.values():
        for kind in ("taskOutputParameter", "taskOutputArtifact", "taskFinalStatus"):
            if kind in source:
                after[source[kind]["producerTask"]] = None
    trigger = said.get("triggerPolicy") or {}
    return TaskSpec(
        name=name,
        component=said["componentRef"]["name"],
        after=tuple(after),
        inputs=given,
        condition=trigger.get("condition") or "",
        always=trigger.get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED",
        iteration=_iteration(said),
        retry=_retry(said.get("retryPolicy") or {}),
        cache=bool((said.get("cachingOptions") or {}).get("enableCache")),
    )


def _iteration(said: Mapping[str, Any]) -> Iteration | None:
    iterator = said.get("parameterIterator")
    if iterator is None:
        return None
    items = iterator.get("items") or {}
    raw = items.get("raw")
    return Iteration(
        item=iterator["itemInput"],
        source=items.get("inputParameter"),
        items=tuple(json.loads(raw)) if raw is not None else (),
        limit=int((said.get("iteratorPolicy") or {}).get("parallelismLimit") or 0),
    )


def _retry(said: Mapping[str, Any]) -> Retry:
    return Retry(
        limit=int(said.get("maxRetryCount") or 0),
        delay=_seconds(said.get("backoffDuration"), 0.0),
        factor=float(said.get("backoffFactor") or 2.0),
        ceiling=_seconds(said.get("backoffMaxDuration"), 3600.0),
    )


def _container(name: str, said: Mapping[str, Any], limits: Mapping[str, Any], refs: secrets.SecretRefs) -> Container:
    spec = said.get("container")
    if spec is None:
        kinds = ", ".join(said) or "nothing"
        raise RunError(f"executor {name} is of a kind the local executor does not run: {kinds}")
    resources = spec.get("resources") or {}
    accelerator = resources.get("accelerator") or {}
    return Container(
        image=spec.get("image") or "",
        command=tuple(spec.get("command") or ()),
        args=tuple(spec.get("args") or ()),
        env=_environment(spec, limits),
        memory=_memory(resources),
        gpus=int(accelerator.get("count") or accelerator.get("resourceCount") or 0),
        timeout=float(limits.get("activeDeadlineSeconds") or 0),
        secrets=refs,
    )


def _environment(spec: Mapping[str, Any], limits: Mapping[str, Any]) -> dict[str, str]:
    """The container's variables, but for those that point into a volume of its pod: here that folder does not exist."""
    volumes = tuple(str(volume.get("mountPath")) for volume in limits.get("emptyDirMounts") or [])
    said = {entry["name"]: str(entry.get("value", "")) for entry in spec.get("env") or []}
    return {name: value for name, value in said.items() if value not in volumes}


def _memory(resources: Mapping[str, Any]) -> int:
    """The request, else the limit: as a quantity ("4Gi"), or as KFP's older number of gigabytes."""
    for key in ("resourceMemoryRequest", "resourceMemoryLimit"):
        text = resources.get(key)
        if text:
            digits = str(text).rstrip("KMGTi")
            try:
                return int(float(digits) * _MEMORY.get(str(text)[len(digits) :], 1))
            except ValueError:
                continue
    gigabytes = resources.get("memoryRequest") or resources.get("memoryLimit") or 0
    return int(float(gigabytes) * 10**9)


def _seconds(text: Any, default: float) -> float:
    """A protobuf duration in JSON: `30s`, `1.5s`."""
    return float(str(text).rstrip("s")) if text not in (None, "") else default
