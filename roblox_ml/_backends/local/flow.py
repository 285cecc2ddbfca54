"""Values between tasks: a task's inputs from its scope and its predecessors' outputs, by what the IR says. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..._runtime.values import integral
from ...errors import RunError
from .placeholders import constant
from .spec import Component, TaskSpec

__all__ = ["Missing", "Outcome", "Values", "coerce", "collect", "select", "task_inputs", "with_defaults"]

_SELECTOR = re.compile(r"parseJson\(string_value\)((?:\[(?:\"[^\"]*\"|'[^']*'|\d+)\])*)")
_STEP = re.compile(r"\[(?:\"([^\"]*)\"|'([^']*)'|(\d+))\]")


@dataclass(frozen=True, slots=True)
class Values:
    """Parameters by name; artifacts by name, each a list of KFP runtime artifacts (JSON) with their digest."""

    parameters: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {"parameters": self.parameters, "artifacts": self.artifacts}

    @classmethod
    def of(cls, recorded: Mapping[str, Any]) -> Values:
        return cls(dict(recorded["parameters"]), dict(recorded["artifacts"]))


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a task ended (SUCCEEDED, FAILED, SKIPPED or CANCELLED), and what it gave."""

    state: str
    values: Values = field(default_factory=Values)


class Missing(Exception):
    """An input comes from a task that gave nothing."""


def task_inputs(task: TaskSpec, component: Component, scope: Values, outcomes: Mapping[str, Outcome]) -> Values:
    """What a task receives. Raises Missing when an input that is needed has no value."""
    parameters: dict[str, Any] = {}
    artifacts: dict[str, list[dict[str, Any]]] = {}
    for name, source in task.inputs.items():
        try:
            if "artifactType" in source or any("Artifact" in kind for kind in source):
                artifacts[name] = _artifact(source, scope, outcomes)
            else:
                value = _parameter(source, scope, outcomes)
                selector = source.get("parameterExpressionSelector")
                parameters[name] = select(value, selector) if selector else value
        except (KeyError, Missing):
            known = component.parameters.get(name)
            optional = known.optional if known else bool((component.artifacts.get(name) or {}).get("isOptional"))
            if not optional:
                raise Missing(name) from None
    return with_defaults(component, Values(parameters, artifacts))


def with_defaults(component: Component, given: Values) -> Values:
    """Values with defaults filled in and numbers as their declared type says."""
    parameters = {k: v for k, v in given.parameters.items() if v is not None}
    for name, declared in component.parameters.items():
        if name not in parameters and declared.default is not None:
            parameters[name] = declared.default
        if name in parameters:
            parameters[name] = coerce(parameters[name], declared.kind)
    return Values(parameters, given.artifacts)


def coerce(value: Any, kind: str) -> Any:
    """A value as KFP's parameter type: every number of YAML and protobuf is a double, here ints become ints again."""
    if kind == "NUMBER_INTEGER" and isinstance(value, float) and value.is_integer():
        return int(value)
    if kind == "NUMBER_DOUBLE" and isinstance(value, int | str) and not isinstance(value, bool):
        return float(value)  # text: JSON has no NaN and no infinity
    if kind in ("LIST", "STRUCT"):
        return integral(json.loads(value) if isinstance(value, str) else value)
    return value


def select(value: Any, selector: str) -> Any:
    """A part of a loop item: `parseJson(string_value)["a"]`."""
    match = _SELECTOR.fullmatch(selector.strip())
    if match is None:
        raise RunError(f"the selector {selector!r} of the IR is not supported by the local executor")
    found = json.loads(value) if isinstance(value, str) else value
    for double, single, index in _STEP.findall(match[1]):
        found = found[int(index)] if index else found[double or single]
    return found


def collect(component: Component, outcomes: Mapping[str, Outcome]) -> Values:
    """What a DAG returns: its tasks' outputs under the DAG's own names; what was skipped is absent."""
    values = Values()
    for name, said in component.outputs.items():
        selectors = said.get("artifactSelectors") or (said.get("valueFromOneof") or {}).get("parameterSelectors")
        for selector in selectors or [said.get("valueFromParameter") or {}]:
            outcome = outcomes.get(selector.get("producerSubtask", ""))
            if outcome is None or outcome.state != "SUCCEEDED":
                continue
            if "outputArtifactKey" in selector:
                found = outcome.values.artifacts.get(selector["outputArtifactKey"])
                if found is not None:
                    values.artifacts.setdefault(name, []).extend(found)
            elif selector.get("outputParameterKey") in outcome.values.parameters:
                values.parameters[name] = outcome.values.parameters[selector["outputParameterKey"]]
    return values


def _parameter(source: Mapping[str, Any], scope: Values, outcomes: Mapping[str, Outcome]) -> Any:
    if "runtimeValue" in source:
        return constant(source["runtimeValue"].get("constant"), scope.parameters)
    if "componentInputParameter" in source:
        return scope.parameters[source["componentInputParameter"]]
    if "taskOutputParameter" in source:
        origin = source["taskOutputParameter"]
        return _of(outcomes, origin["producerTask"]).parameters[origin["outputParameterKey"]]
    if "taskFinalStatus" in source:
        producer = source["taskFinalStatus"]["producerTask"]
        state = outcomes[producer].state
        error = {"code": 1, "message": f"{producer} {state.lower()}"} if state == "FAILED" else {}
        return {"state": state, "pipelineTaskName": producer, "pipelineJobResourceName": "", "error": error}
    raise RunError(f"an input of the IR is of a kind the local executor does not know: {', '.join(source)}")


def _artifact(source: Mapping[str, Any], scope: Values, outcomes: Mapping[str, Outcome]) -> list[dict[str, Any]]:
    if "componentInputArtifact" in source:
        return scope.artifacts[source["componentInputArtifact"]]
    origin = source["taskOutputArtifact"]
    return _of(outcomes, origin["producerTask"]).artifacts[origin["outputArtifactKey"]]


def _of(outcomes: Mapping[str, Outcome], producer: str) -> Values:
    if outcomes[producer].state != "SUCCEEDED":
        raise Missing(producer)
    return outcomes[producer].values
