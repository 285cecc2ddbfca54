"""Whether a pipeline spec is whole: every reference resolves, every required input is given, types agree, no cycle.

Kubeflow Pipelines accepts a spec with dangling references at upload and fails when a run is created, far from the
mistake. This reads the IR as data (ours or anybody's, for instance a file given to `submit`), not the graph it came from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["check_ir", "check_parameters"]

_KINDS = (("parameters", "Parameter"), ("artifacts", "Artifact"))
# What KFP 2.17's API server accepts for each parameter type.
_ACCEPTS: Mapping[str, tuple[type, ...]] = {
    "NUMBER_INTEGER": (int, float),
    "NUMBER_DOUBLE": (int, float),
    "STRING": (str,),
    "BOOLEAN": (bool,),
    "LIST": (list,),
    "STRUCT": (dict,),
}


def check_ir(ir: Mapping[str, Any]) -> list[str]:
    """Everything wrong with a pipeline spec as `load_ir` gives it; empty when it is sound."""
    spec = ir.get("pipeline")
    if not isinstance(spec, Mapping) or "root" not in spec or "schemaVersion" not in spec:
        return ["this is no pipeline spec: it has no root or no schemaVersion"]
    problems: list[str] = []
    if not (spec.get("pipelineInfo") or {}).get("name"):
        problems.append("the pipeline has no name (pipelineInfo.name)")
    components: Mapping[str, Any] = spec.get("components") or {}
    executors = ((spec.get("deploymentSpec") or {}).get("executors")) or {}
    for name, component in components.items():
        if "dag" in component:
            problems += [f"{name}: {p}" for p in _dag(component, components)]
        elif component.get("executorLabel") not in executors:
            problems.append(f"{name}: there is no executor {component.get('executorLabel')!r}")
    problems += [f"root: {p}" for p in _dag(spec["root"], components)]
    return problems


def check_parameters(ir: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """What KFP's API server would say about a run's parameters."""
    declared = _declared(ir["pipeline"]["root"], "input").get("parameters", {})
    problems = [
        f"parameter {name} is not optional, yet has neither default value nor user provided value"
        for name, spec in declared.items()
        if name not in given and not spec.get("isOptional") and "defaultValue" not in spec
    ]
    unknown = sorted(set(given) - set(declared))
    if unknown:
        problems.append(f"parameter(s) provided are not required by pipeline: {', '.join(unknown)}")
    for name in sorted(set(given) & set(declared)):
        kind = declared[name].get("parameterType", "")
        value = given[name]
        fits = isinstance(value, _ACCEPTS.get(kind, (object,)))
        if not fits or (isinstance(value, bool) and kind.startswith("NUMBER")):
            problems.append(f"input parameter {name} requires type {kind}, got {type(value).__name__}")
    return problems


def _declared(component: Mapping[str, Any], side: str) -> Mapping[str, Mapping[str, Any]]:
    found: Mapping[str, Mapping[str, Any]] = component.get(f"{side}Definitions") or {}
    return found


def _dag(component: Mapping[str, Any], components: Mapping[str, Any]) -> Iterator[str]:
    tasks: Mapping[str, Any] = (component.get("dag") or {}).get("tasks") or {}
    if not tasks:
        yield "it has no task"
    for name, task in tasks.items():
        reference = str((task.get("componentRef") or {}).get("name"))
        if reference not in components:
            yield f"task {name} refers to the component {reference!r}, which does not exist"
            continue
        for other in task.get("dependentTasks") or ():
            if other not in tasks:
                yield f"task {name} waits for {other!r}, which is not in its DAG"
        yield from (f"task {name}: {p}" for p in _inputs(task, components[reference], component, tasks, components))
    yield from _cycle(tasks)


def _inputs(
    task: Mapping[str, Any],
    target: Mapping[str, Any],
    parent: Mapping[str, Any],
    tasks: Mapping[str, Any],
    components: Mapping[str, Any],
) -> Iterator[str]:
    given = task.get("inputs") or {}
    iterated = (task.get("parameterIterator") or {}).get("itemInput")
    for kind, noun in _KINDS:
        declared = _declared(target, "input").get(kind, {})
        sources: Mapping[str, Any] = given.get(kind) or {}
        for name in sources:
            if name not in declared:
                yield f"its component has no input {name!r}"
        for name, wanted in declared.items():
            if name in sources:
                yield from _source(name, sources[name], wanted, noun, kind, parent, task, tasks, components)
            elif not wanted.get("isOptional") and "defaultValue" not in wanted and name != iterated:
                yield f"its input {name!r} gets nothing"


def _source(
    name: str,
    source: Mapping[str, Any],
    wanted: Mapping[str, Any],
    noun: str,
    kind: str,
    parent: Mapping[str, Any],
    task: Mapping[str, Any],
    tasks: Mapping[str, Any],
    components: Mapping[str, Any],
) -> Iterator[str]:
    given: Mapping[str, Any] | None
    if f"componentInput{noun}" in source:
        key = source[f"componentInput{noun}"]
        given = _declared(parent, "input").get(kind, {}).get(key)
        if given is None:
            yield f"its input {name!r} reads the DAG's input {key!r}, which does not exist"
            return
    elif f"taskOutput{noun}" in source:
        output = source[f"taskOutput{noun}"]
        producer, key = output["producerTask"], output[f"output{noun}Key"]
        if producer not in tasks:
            yield f"its input {name!r} reads from {producer!r}, which is not in its DAG"
            return
        made = components.get(str((tasks[producer].get("componentRef") or {}).get("name")), {})
        given = _declared(made, "output").get(kind, {}).get(key)
        if given is None:
            yield f"its input {name!r} reads {producer}.{key}, which does not exist"
            return
        if producer not in (task.get("dependentTasks") or ()):
            yield f"it reads from {producer!r} without waiting for it"
    else:
        return
    yield from _types(name, given, wanted)


def _types(name: str, given: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[str]:
    if "parameterType" in wanted:
        have, want = given.get("parameterType"), wanted["parameterType"]
        if have != want and (have, want) != ("NUMBER_INTEGER", "NUMBER_DOUBLE"):
            yield f"its input {name!r} is {want}, got {have}"
        return
    have, want = _title(given), _title(wanted)
    if want not in (have, "system.Artifact"):
        yield f"its input {name!r} is {want}, got {have}"
    if bool(given.get("isArtifactList")) != bool(wanted.get("isArtifactList")):
        yield f"its input {name!r} is {'a list' if wanted.get('isArtifactList') else 'one artifact'}, got the other"


def _title(spec: Mapping[str, Any]) -> str:
    return str((spec.get("artifactType") or {}).get("schemaTitle", ""))


def _cycle(tasks: Mapping[str, Any]) -> Iterator[str]:
    waiting = {name: {o for o in task.get("dependentTasks") or () if o in tasks} for name, task in tasks.items()}
    followers: dict[str, list[str]] = {}
    for name, others in waiting.items():
        for other in others:
            followers.setdefault(other, []).append(name)
    ready = [name for name, others in waiting.items() if not others]
    for name in ready:
        for follower in followers.get(name, ()):
            waiting[follower].discard(name)
            if not waiting[follower]:
                ready.append(follower)  # the loop goes on over what is appended
    stuck = sorted(name for name, others in waiting.items() if others)
    if stuck:
        yield f"these tasks wait for one another: {', '.join(stuck)}"
