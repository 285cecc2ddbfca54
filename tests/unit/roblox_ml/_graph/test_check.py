"""Broken specs are told apart from sound ones before a server gets them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

import roblox_ml as rml
from roblox_ml._graph.check import check_ir
from roblox_ml._graph.ir import CodeRef, to_ir


@rml.step
def make(n: int) -> rml.Dataset:
    return rml.Dataset()


@rml.step
def use(data: rml.Dataset, n: int) -> int:
    return n


def sound() -> dict[str, Any]:
    def pipeline(n: int) -> None:
        use(make(n), 3)

    graph, findings = rml.pipeline(pipeline).trace()
    assert findings == []
    return to_ir(graph, {c: CodeRef("a", "b", "c", "m:f") for c in graph.components}, bootstrap="x")


def tasks(spec: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = spec["root"]["dag"]["tasks"]
    return found


def drop_component(spec: dict[str, Any]) -> None:
    del spec["components"]["comp-make"]


def drop_executor(spec: dict[str, Any]) -> None:
    del spec["deploymentSpec"]["executors"]["exec-use"]


def drop_task(spec: dict[str, Any]) -> None:
    del tasks(spec)["make"]


def rename_output(spec: dict[str, Any]) -> None:
    tasks(spec)["use"]["inputs"]["artifacts"]["data"]["taskOutputArtifact"]["outputArtifactKey"] = "nope"


def forget_to_wait(spec: dict[str, Any]) -> None:
    del tasks(spec)["use"]["dependentTasks"]


def drop_input(spec: dict[str, Any]) -> None:
    del tasks(spec)["use"]["inputs"]["parameters"]["n"]


def invent_input(spec: dict[str, Any]) -> None:
    tasks(spec)["make"]["inputs"]["parameters"]["z"] = {"runtimeValue": {"constant": 1}}


def unknown_parameter(spec: dict[str, Any]) -> None:
    tasks(spec)["make"]["inputs"]["parameters"]["n"] = {"componentInputParameter": "m"}


def other_type(spec: dict[str, Any]) -> None:
    spec["components"]["comp-make"]["outputDefinitions"]["artifacts"]["Output"]["artifactType"]["schemaTitle"] = (
        "system.Model"
    )


def other_parameter_type(spec: dict[str, Any]) -> None:
    spec["root"]["inputDefinitions"]["parameters"]["n"]["parameterType"] = "STRING"


def list_for_one(spec: dict[str, Any]) -> None:
    spec["components"]["comp-make"]["outputDefinitions"]["artifacts"]["Output"]["isArtifactList"] = True


def cycle(spec: dict[str, Any]) -> None:
    tasks(spec)["make"]["dependentTasks"] = ["use"]


def no_name(spec: dict[str, Any]) -> None:
    spec["pipelineInfo"] = {}


def no_tasks(spec: dict[str, Any]) -> None:
    tasks(spec).clear()


BREAKS: dict[Callable[[dict[str, Any]], None], str] = {
    drop_component: "'comp-make', which does not exist",
    drop_executor: "no executor 'exec-use'",
    drop_task: "'make', which is not in its DAG",
    rename_output: "make.nope, which does not exist",
    forget_to_wait: "without waiting",
    drop_input: "'n' gets nothing",
    invent_input: "no input 'z'",
    unknown_parameter: "'m', which does not exist",
    other_type: "system.Dataset, got system.Model",
    other_parameter_type: "NUMBER_INTEGER, got STRING",
    list_for_one: "one artifact, got the other",
    cycle: "wait for one another: make, use",
    no_name: "no name",
    no_tasks: "no task",
}


def test_a_sound_one_has_no_problem() -> None:
    assert check_ir(sound()) == []


@pytest.mark.parametrize("damage", BREAKS, ids=lambda f: f.__name__)
def test_each_break_is_told(damage: Callable[[dict[str, Any]], None]) -> None:
    ir = copy.deepcopy(sound())
    damage(ir["pipeline"])
    assert BREAKS[damage] in "; ".join(check_ir(ir))


@pytest.mark.parametrize("thing", [{"pipeline": {"hello": "world"}}, {"pipeline": None}, {"pipeline": [1]}])
def test_something_else_is_no_spec(thing: dict[str, Any]) -> None:
    assert check_ir(thing) == ["this is no pipeline spec: it has no root or no schemaVersion"]
