"""Values between tasks, the IR as data, placeholders, names: the pure parts."""

from __future__ import annotations

from typing import Any

import pytest

from roblox_ml._backends.local.flow import Missing, Outcome, Values, coerce, select, task_inputs
from roblox_ml._backends.local.names import Names
from roblox_ml._backends.local.placeholders import constant, resolve
from roblox_ml._backends.local.spec import Component, ParameterDef, Retry, TaskSpec, load
from roblox_ml.errors import RunError

IR = """
pipelineInfo: {name: sample}
components:
  comp-f:
    executorLabel: exec-f
    inputDefinitions: {parameters: {x: {parameterType: NUMBER_INTEGER, defaultValue: 3.0, isOptional: true}}}
    outputDefinitions: {parameters: {Output: {parameterType: NUMBER_INTEGER}}}
  comp-loop:
    dag: {tasks: {f: {componentRef: {name: comp-f}}}}
    inputDefinitions: {parameters: {item: {parameterType: NUMBER_INTEGER}}}
deploymentSpec:
  executors:
    exec-f:
      container:
        image: python:3.11
        command: [python3]
        args: [--x, "{{$.inputs.parameters['x']}}"]
        env: [{name: A, value: b}]
        resources: {resourceMemoryLimit: 4Gi, memoryLimit: 4.29, accelerator: {count: '2', type: nvidia.com/gpu}}
root:
  dag:
    tasks:
      z:
        componentRef: {name: comp-f}
        dependentTasks: [for-loop-1]
        retryPolicy: {maxRetryCount: 3, backoffDuration: 2s, backoffFactor: 3, backoffMaxDuration: 10s}
      for-loop-1:
        componentRef: {name: comp-loop}
        parameterIterator: {itemInput: item, items: {raw: '[1, 2]'}}
        iteratorPolicy: {parallelismLimit: 4}
---
platforms: {kubernetes: {deploymentSpec: {executors: {exec-f: {activeDeadlineSeconds: '90'}}}}}
"""


def test_ir_as_data() -> None:
    spec = load(IR.encode())
    container = spec.components["comp-f"].container
    assert container is not None
    assert (container.memory, container.gpus, container.timeout, container.env) == (4 * 2**30, 2, 90.0, {"A": "b"})
    assert list(spec.root.tasks) == ["for-loop-1", "z"]
    loop = spec.root.tasks["for-loop-1"].iteration
    assert loop is not None and (loop.items, loop.limit) == ((1, 2), 4)
    retry = spec.root.tasks["z"].retry
    assert [retry.before(n) for n in (2, 3, 4)] == [2.0, 6.0, 10.0]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("root:", "stem:", "no pipeline IR"),
        ("executorLabel: exec-f", "executorLabel: exec-g", "exec-g, which the IR does not define"),
        ("container:", "importer:", "does not run: importer"),
        ("dependentTasks: [for-loop-1]", "dependentTasks: [y]", "waits for y"),
        ("dependentTasks: [for-loop-1]", "dependentTasks: [z]", "wait for one another: z → z"),
        ("parameterIterator", "artifactIterator", "iterates over artifacts"),
    ],
)
def test_what_cannot_be_run_is_refused_when_loaded(old: str, new: str, message: str) -> None:
    with pytest.raises(RunError, match=message):
        load(IR.replace(old, new).encode())


def test_names() -> None:
    names = Names(load(IR.encode()))
    assert names.of(("z",)) == "z"
    assert names.of(("for-loop-1", "f"), (1,)) == "f[1]"
    assert names.below(names.spec.root, ()) == ["z"]
    assert names.all_below(names.spec.root, ()) == ["f", "z"]


def task(**inputs: Any) -> TaskSpec:
    return TaskSpec("t", "c", (), inputs, retry=Retry())


def component(**parameters: ParameterDef) -> Component:
    return Component("c", parameters, {"d": {"isOptional": True}, "e": {}}, {}, {})


def test_inputs_from_everywhere() -> None:
    scope = Values({"epochs": 2, "item": '{"a": [5, 6]}'}, {})
    artifact = {"uri": "u", "digest": "d"}
    before = {"make": Outcome("SUCCEEDED", Values({"n": 4.0}, {"Output": [artifact]})), "gone": Outcome("SKIPPED")}
    given = task(
        a={"runtimeValue": {"constant": 1.0}},
        b={"componentInputParameter": "epochs"},
        c={"taskOutputParameter": {"producerTask": "make", "outputParameterKey": "n"}},
        s={"componentInputParameter": "item", "parameterExpressionSelector": 'parseJson(string_value)["a"][1]'},
        t={"runtimeValue": {"constant": "n={{$.inputs.parameters['epochs']}}"}},
        o={"taskOutputParameter": {"producerTask": "gone", "outputParameterKey": "n"}},
        d={"taskOutputArtifact": {"producerTask": "gone", "outputArtifactKey": "Output"}},
        e={"taskOutputArtifact": {"producerTask": "make", "outputArtifactKey": "Output"}},
    )
    integer = ParameterDef("NUMBER_INTEGER")
    declared = component(
        a=integer, b=ParameterDef("NUMBER_DOUBLE"), c=integer, s=integer, t=ParameterDef("STRING"),
        o=ParameterDef("NUMBER_INTEGER", True, 7.0), z=ParameterDef("LIST", True, [1.0, 2.5]),
    )  # fmt: skip
    found = task_inputs(given, declared, scope, before)
    assert found.parameters == {"a": 1, "b": 2.0, "c": 4, "s": 6, "t": "n=2", "o": 7, "z": [1, 2.5]}
    assert {k: type(v) for k, v in found.parameters.items()}["c"] is int
    assert found.artifacts == {"e": [artifact]}


def test_a_needed_input_from_a_skipped_task_is_missing() -> None:
    given = task(a={"taskOutputParameter": {"producerTask": "gone", "outputParameterKey": "n"}})
    with pytest.raises(Missing):
        task_inputs(given, component(a=ParameterDef("STRING")), Values(), {"gone": Outcome("SKIPPED")})


def test_selectors_and_types() -> None:
    assert select({"a": {"b": 1}}, "parseJson(string_value)['a'][\"b\"]") == 1
    with pytest.raises(RunError, match="not supported"):
        select({}, "string_value.x")
    assert coerce('{"a": 2.0}', "STRUCT") == {"a": 2}
    assert type(coerce(3, "NUMBER_DOUBLE")) is float
    assert coerce(True, "NUMBER_DOUBLE") is True


def test_placeholders() -> None:
    executor_input = {
        "inputs": {
            "parameterValues": {"x": 3, "s": "a b"},
            "artifacts": {"d": {"artifacts": [{"uri": "/in/d", "metadata": {"k": 1}}]}},
        },
        "outputs": {
            "outputFile": "/o.json",
            "parameters": {"n": {"outputFile": "/n"}},
            "artifacts": {"m": {"artifacts": [{"uri": "/m"}]}},
        },
    }
    parts = [
        "{{$.inputs.parameters['x']}}-{{$.inputs.parameters[\"s\"]}}", "{{$.inputs.artifacts['d'].path}}",
        "{{$.inputs.artifacts['d'].metadata}}", "{{$.outputs.parameters['n'].output_file}}", "{{$.outputs.artifacts['m'].uri}}",
        "{{$.outputs.output_file}}", "{{$}}", "{{$.pipeline_job_name}}",
        '{"IfPresent": {"InputName": "x", "Then": ["--x", "{{$.inputs.parameters[\'x\']}}"]}}',
        '{"IfPresent": {"InputName": "y", "Then": "--y"}}', '{"Concat": ["a", "-", "b"]}',
    ]  # fmt: skip
    resolved = resolve(parts, executor_input, {"{{$.pipeline_job_name}}": "run"}, "ALL")
    assert resolved == ["3-a b", "/in/d", '{"k": 1}', "/n", "/m", "/o.json", "ALL", "run", "--x", "3", "a-b"]
    assert constant({"k": ["{{$.inputs.parameters['n']}}"]}, {"n": [1]}) == {"k": ["[1]"]}
