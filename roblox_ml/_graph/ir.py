"""The graph as a KFP PipelineSpec (and platform spec), as plain dictionaries.

One component and one executor for each distinct step; code only by digest, in the arguments. The same graph and the same
digests give the same bytes (see `dump`), whatever the hash seed. The format is described in docs/formats/pipeline-ir.md.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .interface import Input, Interface
from .links import Links, Node, home, link
from .model import Channel, Component, Condition, Constant, Graph, Scope, Task
from .options import Options
from .platform_spec import SCRATCH, platform_document
from .types import ArtifactType, ParameterType

__all__ = ["DEFAULT_IMAGE", "CodeRef", "Spec", "to_ir"]

DEFAULT_IMAGE = "python:3.11-slim"
SCHEMA_VERSION = "2.1.0"
# The dialect: the KFP release whose format this is, as its own compiler writes it.
SDK_VERSION = "kfp-2.17.0"
_ARTIFACT_VERSION = "0.0.1"

Spec = dict[str, Any]


@dataclass(frozen=True, slots=True)
class CodeRef:
    """What a step's container needs to know to run its code: digests of blobs, and where to enter."""

    sdk: str
    code: str
    lock: str
    entry: str


def to_ir(
    graph: Graph,
    code: Mapping[str, CodeRef],
    *,
    image: str | None = None,
    bootstrap: str | None = None,
    links: Links | None = None,
) -> Spec:
    """`{"pipeline": …, "platform": … or None}` for a graph that `validate` found no fault with.

    `code` maps component names to their digests. The step image comes from RML_STEP_IMAGE, the bootstrap from
    `roblox_ml._runtime.stage0`, unless given.
    """
    if bootstrap is None:
        from .._runtime.stage0 import STAGE0

        bootstrap = STAGE0
    emitter = _Emitter(graph, links or link(graph))
    image = image or os.environ.get("RML_STEP_IMAGE") or DEFAULT_IMAGE
    executors = {
        f"exec-{name}": {"container": _container(component, code[name], image, bootstrap)}
        for name, component in graph.components.items()
    }
    components = {f"comp-{name}": _component(component) for name, component in graph.components.items()}
    root: Spec = {"dag": emitter.dag(graph.root)}
    root.update(_definitions("inputDefinitions", graph.parameters.inputs))
    pipeline = {
        "components": {**components, **emitter.components},
        "deploymentSpec": {"executors": executors},
        "pipelineInfo": {"name": graph.name},
        "root": root,
        "schemaVersion": SCHEMA_VERSION,
        "sdkVersion": SDK_VERSION,
    }
    return {"pipeline": pipeline, "platform": platform_document(graph.components.values())}


class _Emitter:
    """Walks the scopes; collects the components that KFP needs for loops and conditions."""

    def __init__(self, graph: Graph, links: Links) -> None:
        self._graph = graph
        self._links = links
        self.components: dict[str, Spec] = {}

    def dag(self, scope: Scope) -> Spec:
        """A DAG's tasks."""
        return {"tasks": {member.name: self._member(member, scope) for member in scope.members}}

    def _member(self, member: Node, scope: Scope) -> Spec:
        spec: Spec = {}
        edges = sorted(edge.name for edge in self._links.edges.get(member, ()))
        if edges:
            spec["dependentTasks"] = edges
        if isinstance(member, Task):
            spec |= self._task(member)
        else:
            spec |= self._group(member, scope)
        return spec

    def _task(self, task: Task) -> Spec:
        options = task.component.options
        spec: Spec = {
            "cachingOptions": {"enableCache": True} if options.cache else {},
            "componentRef": {"name": f"comp-{task.component.name}"},
            "taskInfo": {"name": task.name},
        }
        if options.retries:
            spec["retryPolicy"] = {
                "maxRetryCount": options.retries,
                "backoffDuration": "1s",
                "backoffFactor": 2.0,
                "backoffMaxDuration": "3600s",
            }
        inputs: dict[str, dict[str, Spec]] = {}
        for name, argument in task.arguments.items():
            if isinstance(argument, Constant):
                inputs.setdefault("parameters", {})[name] = {"runtimeValue": {"constant": argument.value}}
            else:
                kind, value = self._read(argument, task.scope)
                inputs.setdefault(kind, {})[name] = value
        if inputs:
            spec["inputs"] = inputs
        return spec

    def _group(self, group: Scope, scope: Scope) -> Spec:
        needs = list(self._links.needs.get(group, ()))
        component: Spec = {"dag": self.dag(group)}
        definitions: dict[str, dict[str, Spec]] = {}
        inputs: dict[str, dict[str, Spec]] = {}
        for channel in needs:
            kind, value = self._read(channel, scope)
            inputs.setdefault(kind, {})[_crossing(channel)] = value
            definitions.setdefault(kind, {})[_crossing(channel)] = _type_spec(channel.type)
        spec: Spec = {"componentRef": {"name": f"comp-{group.name}"}, "taskInfo": {"name": group.name}}
        if group.kind == "loop":
            assert group.item is not None and group.items is not None
            item = _crossing(group.item)
            definitions.setdefault("parameters", {})[item] = _type_spec(group.item.type)
            if isinstance(group.items, Channel):
                source = {"inputParameter": _crossing(group.items)}
            else:
                source = {"raw": json.dumps(group.items.value, ensure_ascii=False)}
            spec["parameterIterator"] = {"itemInput": item, "items": source}
            component |= self._loop_outputs(group, component["dag"])
        elif group.condition is not None:
            spec["triggerPolicy"] = {"condition": _cel(group.condition)}
        if definitions:
            component["inputDefinitions"] = definitions
        if inputs:
            spec["inputs"] = inputs
        self.components[f"comp-{group.name}"] = component
        return spec

    def _loop_outputs(self, group: Scope, dag: Spec) -> Spec:
        """What a loop hands out: for each output of its task, the list of all of them."""
        body = group.body
        assert body is not None
        definitions: dict[str, dict[str, Spec]] = {}
        selected: dict[str, dict[str, Spec]] = {}
        for output in body.component.interface.outputs:
            name = _collected(body, output.name)
            if isinstance(output.type, ArtifactType):
                definitions.setdefault("artifacts", {})[name] = _type_spec(ArtifactType(output.type.kfp, many=True))
                selector = {"outputArtifactKey": output.name, "producerSubtask": body.name}
                selected.setdefault("artifacts", {})[name] = {"artifactSelectors": [selector]}
            else:
                definitions.setdefault("parameters", {})[name] = _type_spec(ParameterType("LIST"))
                source = {"outputParameterKey": output.name, "producerSubtask": body.name}
                selected.setdefault("parameters", {})[name] = {"valueFromParameter": source}
        if not definitions:
            return {}
        dag["outputs"] = selected
        return {"outputDefinitions": definitions}

    def _read(self, channel: Channel, scope: Scope) -> tuple[str, Spec]:
        """How a member of `scope` reads a channel."""
        artifact = isinstance(channel.type, ArtifactType)
        kind, noun = ("artifacts", "Artifact") if artifact else ("parameters", "Parameter")
        if home(channel, self._graph.root) is not scope:
            return kind, {f"componentInput{noun}": _crossing(channel)}
        if channel.kind == "parameter":
            return kind, {f"componentInput{noun}": channel.name}
        if channel.kind == "item":
            return kind, {f"componentInput{noun}": _crossing(channel)}
        assert channel.producer is not None
        key = channel.name
        if isinstance(channel.producer, Scope):
            assert channel.producer.body is not None
            key = _collected(channel.producer.body, channel.name)
        return kind, {f"taskOutput{noun}": {f"output{noun}Key": key, "producerTask": channel.producer.name}}


def _collected(body: Task, output: str) -> str:
    return f"pipelinechannel--{body.name}-{output}"


def _crossing(channel: Channel) -> str:
    """The name of a value where it crosses into a scope; KFP's own scheme, which its executors look for."""
    producer = channel.producer
    if channel.kind == "item":
        assert isinstance(producer, Scope)
        if isinstance(producer.items, Channel):
            return f"{_crossing(producer.items)}-loop-item"
        return f"pipelinechannel--loop-item-param-{producer.name.rpartition('-')[2]}"
    if isinstance(producer, Scope):
        assert producer.body is not None
        return _collected(producer.body, channel.name)
    return (
        f"pipelinechannel--{channel.name}" if producer is None else f"pipelinechannel--{producer.name}-{channel.name}"
    )


def _cel(condition: Condition) -> str:
    """The condition in CEL, restricted to what KFP's compiler writes."""
    left, right = condition.left, condition.right
    whole = isinstance(left.type, ParameterType) and left.type.kfp == "NUMBER_INTEGER"
    if isinstance(right, Channel):
        whole = whole and isinstance(right.type, ParameterType) and right.type.kfp == "NUMBER_INTEGER"
    else:
        whole = whole and isinstance(right.value, int)
    text = f"{_operand(left, whole)} {condition.operator} {_operand(right, whole)}"
    return f"!({text})" if condition.negate else text


def _operand(value: Channel | Constant, whole: bool) -> str:
    if isinstance(value, Channel):
        read = f"inputs.parameter_values['{_crossing(value)}']"
        return f"int({read})" if whole else read
    constant = value.value
    if isinstance(constant, bool):
        return "true" if constant else "false"
    if isinstance(constant, str):
        escaped = constant.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
        return f"'{escaped}'"
    # CEL has no mixed arithmetic: against a double the constant must be one too.
    return repr(constant) if whole else repr(float(constant))


def _component(component: Component) -> Spec:
    spec: Spec = {"executorLabel": f"exec-{component.name}"}
    spec.update(_definitions("inputDefinitions", component.interface.inputs))
    spec.update(_outputs(component.interface))
    return spec


def _definitions(key: str, inputs: Iterable[Input]) -> Spec:
    found: dict[str, dict[str, Spec]] = {}
    for declared in inputs:
        spec = _type_spec(declared.type)
        if declared.optional:
            spec["isOptional"] = True
            if declared.default is not None:
                spec["defaultValue"] = declared.default
        found.setdefault("artifacts" if isinstance(declared.type, ArtifactType) else "parameters", {})[
            declared.name
        ] = spec
    return {key: found} if found else {}


def _outputs(interface: Interface) -> Spec:
    found: dict[str, dict[str, Spec]] = {}
    for output in interface.outputs:
        kind = "artifacts" if isinstance(output.type, ArtifactType) else "parameters"
        found.setdefault(kind, {})[output.name] = _type_spec(output.type)
    return {"outputDefinitions": found} if found else {}


def _type_spec(kind: ArtifactType | ParameterType) -> Spec:
    if isinstance(kind, ParameterType):
        return {"parameterType": kind.kfp}
    spec: Spec = {"artifactType": {"schemaTitle": kind.kfp, "schemaVersion": _ARTIFACT_VERSION}}
    if kind.many:
        spec["isArtifactList"] = True
    return spec


def _container(component: Component, code: CodeRef, image: str, bootstrap: str) -> Spec:
    references = ["--sdk", code.sdk, "--code", code.code, "--lock", code.lock, "--entry", code.entry]
    spec: Spec = {
        "args": [*references, "--executor_input", "{{$}}"],
        "command": ["python3", "-c", bootstrap],
        "image": component.options.image or image,
    }
    if component.options.ephemeral_storage is not None:
        spec["env"] = [{"name": "TMPDIR", "value": SCRATCH}]
    resources = _resources(component.options)
    if resources:
        spec["resources"] = resources
    return spec


def _resources(options: Options) -> Spec:
    """Both spellings of KFP 2.17: numbers (read by older backends) and the quantities as written."""
    spec: Spec = {}
    if options.cpu is not None:
        spec |= {"cpuLimit": options.cores, "resourceCpuLimit": options.cpu}
    if options.memory is not None:
        assert options.memory_bytes is not None
        spec |= {"memoryLimit": options.memory_bytes / 1e9, "resourceMemoryLimit": options.memory}
    if options.gpu is not None:
        kind, count = options.gpu
        spec["accelerator"] = {
            "count": str(count),
            "resourceCount": str(count),
            "resourceType": kind,
            "type": kind,
        }
    return spec
