"""The emitted spec: what each construct becomes, sound by its own checker, the same bytes every time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import roblox_ml as rml
from roblox_ml._graph.check import check_ir, check_parameters
from roblox_ml._graph.dump import dump_ir, load_ir
from roblox_ml._graph.ir import DEFAULT_IMAGE, CodeRef, to_ir


class Pair(NamedTuple):
    data: rml.Dataset
    rows: int


@rml.step
def load(path: str = "x") -> Pair:
    return Pair(rml.Dataset(path), 1)


@rml.step(
    cpu=2, memory="4Gi", gpu=1, priority="high", spot=True, retries=2, timeout="1h", cache=False, labels={"a": "b"}
)
def train(data: rml.Dataset, epochs: int = 3) -> rml.Model:
    return rml.Model(data.path)


@rml.step
def probe(n: int, data: rml.Dataset) -> float:
    return float(n)


@rml.step
def package(n: int) -> rml.Model:
    return rml.Model()


@rml.step
def best(scores: list[float], models: list[rml.Model]) -> int:
    return len(scores)


@rml.step
def numbers() -> list[int]:
    return [1]


@rml.step
def show(n: int, ratio: float = 0.5, text: str = "", flag: bool = True) -> None:
    print(n)


def code_for(names: Any) -> dict[str, CodeRef]:
    return {name: CodeRef("5" * 64, "1e" + "0" * 62, "c" * 64, f"{name}:main") for name in names}


def ir_of(function: Callable[..., Any]) -> dict[str, Any]:
    graph, findings = rml.pipeline(function).trace()
    assert findings == []
    ir = to_ir(graph, code_for(graph.components), image="img", bootstrap="boot")
    assert check_ir(ir) == []
    return ir


def tasks_of(function: Callable[..., Any]) -> dict[str, Any]:
    tasks: dict[str, Any] = ir_of(function)["pipeline"]["root"]["dag"]["tasks"]
    return tasks


def test_a_task_says_where_its_inputs_come_from() -> None:
    def pipeline(epochs: int = 2) -> None:
        train(load("folder").data, epochs=epochs)

    tasks = tasks_of(pipeline)
    assert tasks["load"]["inputs"] == {"parameters": {"path": {"runtimeValue": {"constant": "folder"}}}}
    assert tasks["train"] == {
        "cachingOptions": {},
        "componentRef": {"name": "comp-train"},
        "dependentTasks": ["load"],
        "inputs": {
            "artifacts": {"data": {"taskOutputArtifact": {"outputArtifactKey": "data", "producerTask": "load"}}},
            "parameters": {"epochs": {"componentInputParameter": "epochs"}},
        },
        "retryPolicy": {
            "backoffDuration": "1s",
            "backoffFactor": 2.0,
            "backoffMaxDuration": "3600s",
            "maxRetryCount": 2,
        },
        "taskInfo": {"name": "train"},
    }


def test_code_goes_by_digest_into_the_arguments() -> None:
    def pipeline() -> None:
        load()

    executor = ir_of(pipeline)["pipeline"]["deploymentSpec"]["executors"]["exec-load"]
    assert executor == {
        "container": {
            "image": "img",
            "command": ["python3", "-c", "boot"],
            "args": [
                *("--sdk", "5" * 64, "--code", "1e" + "0" * 62, "--lock", "c" * 64),
                *("--entry", "load:main", "--executor_input", "{{$}}"),
            ],
        }
    }


def test_resources_and_the_platform_document() -> None:
    def pipeline() -> None:
        train(load().data)

    ir = ir_of(pipeline)
    container = ir["pipeline"]["deploymentSpec"]["executors"]["exec-train"]["container"]
    assert container["resources"] == {
        "cpuLimit": 2.0,
        "resourceCpuLimit": "2",
        "memoryLimit": 4.294967296,
        "resourceMemoryLimit": "4Gi",
        "accelerator": {
            "count": "1",
            "resourceCount": "1",
            "resourceType": "nvidia.com/gpu",
            "type": "nvidia.com/gpu",
        },
    }
    assert ir["platform"] == {
        "platforms": {
            "kubernetes": {
                "deploymentSpec": {
                    "executors": {
                        "exec-train": {
                            "activeDeadlineSeconds": "3600",
                            "nodeSelector": {"labels": {"node.kubernetes.io/lifecycle": "spot"}},
                            "podMetadata": {"labels": {"a": "b", "kueue.x-k8s.io/priority-class": "high"}},
                            "tolerations": [
                                {
                                    "effect": "NoSchedule",
                                    "key": "node.kubernetes.io/lifecycle",
                                    "operator": "Equal",
                                    "value": "spot",
                                }
                            ],
                        }
                    }
                }
            }
        }
    }


def test_nothing_asked_of_the_platform_is_no_second_document() -> None:
    def pipeline() -> None:
        load()

    assert ir_of(pipeline)["platform"] is None


def test_one_component_for_many_uses() -> None:
    def pipeline() -> None:
        data = load().data
        for epochs in range(5):
            train(data, epochs)

    spec = ir_of(pipeline)["pipeline"]
    assert sorted(spec["components"]) == ["comp-load", "comp-train"]
    assert sorted(spec["deploymentSpec"]["executors"]) == ["exec-load", "exec-train"]


def test_a_fan_out_is_a_loop_and_fans_in() -> None:
    def pipeline() -> None:
        data = load().data
        best(probe.map([1, 2], data=data), package.map(numbers()))

    spec = ir_of(pipeline)["pipeline"]
    tasks = spec["root"]["dag"]["tasks"]
    assert tasks["for-loop-1"]["parameterIterator"] == {
        "itemInput": "pipelinechannel--loop-item-param-1",
        "items": {"raw": "[1, 2]"},
    }
    assert tasks["for-loop-2"]["parameterIterator"] == {
        "itemInput": "pipelinechannel--numbers-Output-loop-item",
        "items": {"inputParameter": "pipelinechannel--numbers-Output"},
    }
    assert tasks["for-loop-2"]["dependentTasks"] == ["numbers"]
    loop = spec["components"]["comp-for-loop-1"]
    assert loop["inputDefinitions"]["parameters"]["pipelinechannel--loop-item-param-1"] == {
        "parameterType": "NUMBER_INTEGER"
    }
    assert loop["outputDefinitions"]["parameters"]["pipelinechannel--probe-Output"] == {"parameterType": "LIST"}
    assert loop["dag"]["tasks"]["probe"]["inputs"]["artifacts"]["data"] == {
        "componentInputArtifact": "pipelinechannel--load-data"
    }
    assert tasks["best"]["inputs"] == {
        "parameters": {
            "scores": {
                "taskOutputParameter": {
                    "outputParameterKey": "pipelinechannel--probe-Output",
                    "producerTask": "for-loop-1",
                }
            }
        },
        "artifacts": {
            "models": {
                "taskOutputArtifact": {
                    "outputArtifactKey": "pipelinechannel--package-Output",
                    "producerTask": "for-loop-2",
                }
            }
        },
    }
    assert spec["components"]["comp-best"]["inputDefinitions"]["artifacts"]["models"]["isArtifactList"] is True


def test_branches_and_values_handed_down_through_them() -> None:
    def pipeline(limit: int = 3) -> None:
        pair = load()
        with rml.when(pair.rows > limit), rml.when(pair.rows < 100):
            train(pair.data, pair.rows)
        with rml.otherwise():
            load()

    spec = ir_of(pipeline)["pipeline"]
    outer, other = (spec["root"]["dag"]["tasks"][f"condition-{n}"] for n in (1, 3))
    rows, limit = (f"int(inputs.parameter_values['pipelinechannel--{n}'])" for n in ("load-rows", "limit"))
    assert outer["triggerPolicy"] == {"condition": f"{rows} > {limit}"}
    assert other["triggerPolicy"] == {"condition": f"!({rows} > {limit})"}
    assert outer["dependentTasks"] == ["load"]
    inner = spec["components"]["comp-condition-1"]["dag"]["tasks"]["condition-2"]
    assert inner["triggerPolicy"] == {"condition": f"{rows} < 100"}
    assert inner["inputs"]["artifacts"] == {
        "pipelinechannel--load-data": {"componentInputArtifact": "pipelinechannel--load-data"}
    }
    assert "dependentTasks" not in inner


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (lambda n, x, s, b: n >= 2, "int(inputs.parameter_values['pipelinechannel--n']) >= 2"),
        (lambda n, x, s, b: n > 2.5, "inputs.parameter_values['pipelinechannel--n'] > 2.5"),
        (lambda n, x, s, b: x < 2, "inputs.parameter_values['pipelinechannel--x'] < 2.0"),
        (
            lambda n, x, s, b: n < x,
            "inputs.parameter_values['pipelinechannel--n'] < inputs.parameter_values['pipelinechannel--x']",
        ),
        (lambda n, x, s, b: s == "it's", "inputs.parameter_values['pipelinechannel--s'] == 'it\\'s'"),
        (lambda n, x, s, b: b == False, "inputs.parameter_values['pipelinechannel--b'] == false"),  # noqa: E712
        (lambda n, x, s, b: b, "inputs.parameter_values['pipelinechannel--b'] == true"),
        (lambda n, x, s, b: n < 3, "int(inputs.parameter_values['pipelinechannel--n']) < 3"),
    ],
)
def test_conditions_in_cel(condition: Callable[..., Any], expected: str) -> None:
    def pipeline(n: int = 1, x: float = 1.0, s: str = "", b: bool = True) -> None:
        with rml.when(condition(n, x, s, b)):
            load()

    assert tasks_of(pipeline)["condition-1"]["triggerPolicy"] == {"condition": expected}


def test_order_without_data_also_across_branches() -> None:
    def pipeline(flag: bool = True) -> None:
        first = load()
        with rml.when(flag):
            inside = load()
        load().after(first, inside)

    assert tasks_of(pipeline)["load-3"]["dependentTasks"] == ["condition-1", "load"]


def test_parameters_and_defaults() -> None:
    def pipeline(a: int, b: float = 2, c: list[int] = [1], d: str | None = None) -> None:
        show(a, ratio=b)

    root = ir_of(pipeline)["pipeline"]["root"]
    assert root["inputDefinitions"] == {
        "parameters": {
            "a": {"parameterType": "NUMBER_INTEGER"},
            "b": {"parameterType": "NUMBER_DOUBLE", "isOptional": True, "defaultValue": 2.0},
            "c": {"parameterType": "LIST", "isOptional": True, "defaultValue": [1]},
            "d": {"parameterType": "STRING", "isOptional": True},
        }
    }


def test_a_false_default_is_a_default() -> None:
    def pipeline(flag: bool = False, n: int = 0) -> None:
        show(n, flag=flag)

    parameters = ir_of(pipeline)["pipeline"]["root"]["inputDefinitions"]["parameters"]
    assert parameters["flag"]["defaultValue"] is False
    assert parameters["n"]["defaultValue"] == 0


def test_register_and_its_gate() -> None:
    def pipeline() -> None:
        rml.register(
            train(load().data), name="my-model", gate=rml.gate(f1=0.75, loss=rml.at_most(0.3)), tags={"team": "x"}
        )

    ir = ir_of(pipeline)
    task = ir["pipeline"]["root"]["dag"]["tasks"]["register"]
    constants = {k: v["runtimeValue"]["constant"] for k, v in task["inputs"]["parameters"].items()}
    assert constants == {
        "name": "my-model",
        "gate": {"f1": {"min": 0.75}, "loss": {"max": 0.3}},
        "alias": "champion",
        "tags": {"team": "x"},
    }
    assert task["cachingOptions"] == {}
    outputs = ir["pipeline"]["components"]["comp-register"]["outputDefinitions"]["parameters"]
    assert {k: v["parameterType"] for k, v in outputs.items()} == {
        "version": "NUMBER_INTEGER",
        "digest": "STRING",
        "promoted": "BOOLEAN",
    }


def test_a_dataset_is_pinned_once(tmp_path: Any) -> None:
    (tmp_path / "a.csv").write_text("x\n1\n")
    ref = rml.datasets.add("comments", tmp_path / "a.csv")

    def pipeline() -> None:
        train(rml.dataset("comments"))
        with rml.when(load().rows > 1):
            train(rml.dataset("comments"))

    tasks = tasks_of(pipeline)
    constants = {k: v["runtimeValue"]["constant"] for k, v in tasks["dataset-comments"]["inputs"]["parameters"].items()}
    assert constants == {"name": "comments", "version": ref.version, "digest": ref.digest}
    assert [name for name in tasks if name.startswith("dataset")] == ["dataset-comments"]


def test_the_image_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    def pipeline() -> None:
        load()

    graph, _ = rml.pipeline(pipeline).trace()
    code = code_for(graph.components)

    def image() -> str:
        spec = to_ir(graph, code)["pipeline"]
        return str(spec["deploymentSpec"]["executors"]["exec-load"]["container"]["image"])

    assert image() == DEFAULT_IMAGE
    monkeypatch.setenv("RML_STEP_IMAGE", "registry.example/step@sha256:0")
    assert image() == "registry.example/step@sha256:0"


def test_bytes_read_back_and_are_the_same_again() -> None:
    def pipeline(epochs: int = 2) -> None:
        pair = load()
        with rml.when(pair.rows > 1):
            train(pair.data, epochs)

    first, second = ir_of(pipeline), ir_of(pipeline)
    assert dump_ir(first) == dump_ir(second)
    assert load_ir(dump_ir(first)) == first


@pytest.mark.parametrize(
    "text", ["1e5", "12e45", "0x1f", "0o7", "n", "yes", "null", "~", "1_000", "2026-11-22", "", "a: b", "é\n"]
)
def test_text_stays_text_in_every_yaml(text: str) -> None:
    data = dump_ir({"pipeline": {"value": text, text: 1}, "platform": None}).decode()
    assert load_ir(data.encode())["pipeline"]["value"] == text
    # Readers disagree about plain scalars, never about quoted ones.
    assert data.count('"') >= 4


def test_parameters_are_judged_as_the_server_would() -> None:
    def pipeline(a: int, b: str = "x") -> None:
        show(a, text=b)

    ir = ir_of(pipeline)
    assert check_parameters(ir, {"a": 1}) == []
    assert "parameter a is not optional" in check_parameters(ir, {})[0]
    assert "zz" in check_parameters(ir, {"a": 1, "zz": 2})[0]
    assert "NUMBER_INTEGER" in check_parameters(ir, {"a": "text"})[0]
    assert "NUMBER_INTEGER" in check_parameters(ir, {"a": True})[0]


def test_the_vector_in_the_format_page_is_what_we_write() -> None:
    @rml.step
    def add(x: int, y: int = 1) -> int:
        return x + y

    def two(n: int) -> None:
        add(add(n), y=5)

    graph, findings = rml.pipeline(two).trace()
    assert findings == []
    code = {"add": CodeRef("a" * 64, "b" * 64, "c" * 64, "step:add")}
    page = (Path(__file__).parents[4] / "docs" / "formats" / "pipeline-ir.md").read_text("utf-8")
    vector = page.partition("## Test vector")[2].partition("```yaml\n")[2].partition("```")[0]
    assert dump_ir(to_ir(graph, code, image="image", bootstrap="boot")).decode() == vector
