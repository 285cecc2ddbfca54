"""Our specs beside kfp's own: its reader accepts them, its compiler writes the same structure for the same pipeline.

(No `from __future__ import annotations`: kfp cannot read annotations as text.)
"""

import importlib.util
import random
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, List  # noqa: UP035 - kfp reads this spelling only

import pytest
import yaml

import roblox_ml as rml
from roblox_ml._graph.dump import dump_ir, load_ir
from roblox_ml._graph.ir import CodeRef, to_ir

kfp = pytest.importorskip("kfp")
from google.protobuf import json_format  # noqa: E402
from kfp import compiler, components, dsl, kubernetes  # noqa: E402
from kfp.pipeline_spec import pipeline_spec_pb2  # noqa: E402

PROGRAMS = Path(__file__).parents[2] / "unit" / "roblox_ml" / "_graph" / "random_pipelines.py"


def random_pipelines() -> Any:
    found = importlib.util.spec_from_file_location("random_pipelines", PROGRAMS)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules.setdefault("random_pipelines", module)
    found.loader.exec_module(module)
    return module


def ours(function: Callable[..., Any]) -> bytes:
    graph, findings = rml.pipeline(name="same")(function).trace()
    assert findings == []
    code = {name: CodeRef("5" * 64, "e" * 64, "1" * 64, f"m:{name}") for name in graph.components}
    return dump_ir(to_ir(graph, code, image="img", bootstrap="boot"))


def theirs(function: Callable[..., Any], folder: Path) -> bytes:
    path = folder / "kfp.yaml"
    compiler.Compiler().compile(dsl.pipeline(name="same")(function), str(path))
    return path.read_bytes()


def as_proto(data: bytes) -> pipeline_spec_pb2.PipelineSpec:
    proto = pipeline_spec_pb2.PipelineSpec()
    json_format.ParseDict(load_ir(data)["pipeline"], proto)  # refuses any field it does not know
    return proto


def structure(data: bytes) -> Any:
    """A spec with components in place of references, numbering of groups removed, and defaults spelled out."""
    spec = json_format.MessageToDict(as_proto(data))
    parts = spec["components"]

    def dag(component: dict[str, Any]) -> Any:
        shown = {k: v for k, v in component.items() if k not in ("dag", "executorLabel", "comment")}
        if "executorLabel" in component:
            container = spec["deploymentSpec"]["executors"][component["executorLabel"]]["container"]
            shown["resources"] = container.get("resources", {})
        if "dag" in component:
            tasks = component["dag"]["tasks"]
            shown["outputs"] = component["dag"].get("outputs", {})
            shown["tasks"] = {n: {**t, "componentRef": dag(parts[t["componentRef"]["name"]])} for n, t in tasks.items()}
        return shown

    text = yaml.safe_dump(dag(spec["root"]))
    return yaml.safe_load(re.sub(r"(for-loop|condition|loop-item-param)-\d+", r"\1-N", text))


# --- the same pipelines, twice -----------------------------------------------------------------------------------


@rml.step
def make(n: int = 1) -> rml.Dataset:
    return rml.Dataset()


@rml.step(cpu=2, memory="4Gi", gpu=1, retries=2, cache=False)
def train(data: rml.Dataset, epochs: int = 3) -> rml.Model:
    return rml.Model()


@rml.step
def probe(n: int, data: rml.Dataset) -> float:
    return 1.0


@rml.step
def numbers() -> list[int]:
    return [1]


@rml.step
def best(scores: list[float]) -> int:
    return 1


@rml.step
def models(n: int) -> rml.Model:
    return rml.Model()


@rml.step
def merge(parts: list[rml.Model]) -> str:
    return ""


@dsl.component(base_image="img")
def k_make(n: int = 1) -> dsl.Dataset: ...


@dsl.component(base_image="img")
def k_train(data: dsl.Dataset, epochs: int = 3) -> dsl.Model: ...


@dsl.component(base_image="img")
def k_probe(n: int, data: dsl.Dataset) -> float: ...


@dsl.component(base_image="img")
def k_numbers() -> List[int]: ...  # noqa: UP006 - kfp reads this spelling only


@dsl.component(base_image="img")
def k_best(scores: List[float]) -> int: ...  # noqa: UP006


@dsl.component(base_image="img")
def k_models(n: int) -> dsl.Model: ...


@dsl.component(base_image="img")
def k_merge(parts: List[dsl.Model]) -> str: ...  # noqa: UP006


for component, name in (
    (k_make, "make"),
    (k_train, "train"),
    (k_probe, "probe"),
    (k_numbers, "numbers"),
    (k_best, "best"),
    (k_models, "models"),
    (k_merge, "merge"),
):
    component.component_spec.name = name


def chain_ours(epochs: int = 2) -> None:
    train(make(7), epochs)


def chain_theirs(epochs: int = 2):  # type: ignore[no-untyped-def]
    task = k_train(data=k_make(n=7).output, epochs=epochs)
    task.set_cpu_limit("2").set_memory_limit("4Gi").set_accelerator_limit(1).set_accelerator_type("nvidia.com/gpu")
    task.set_retry(2, "1s", 2.0, "3600s").set_caching_options(False)


def fan_ours() -> None:
    best(probe.map([1, 2], data=make()))


def fan_theirs():  # type: ignore[no-untyped-def]
    data = k_make()
    with dsl.ParallelFor([1, 2]) as n:
        task = k_probe(n=n, data=data.output)
    k_best(scores=dsl.Collected(task.output))


def fan_output_ours() -> None:
    merge(models.map(numbers()))


def fan_output_theirs():  # type: ignore[no-untyped-def]
    with dsl.ParallelFor(k_numbers().output) as n:
        task = k_models(n=n)
    k_merge(parts=dsl.Collected(task.output))


def branch_ours(limit: int = 3) -> None:
    data = make()
    with rml.when(best([1.0]) > limit):
        train(data)


def branch_theirs(limit: int = 3):  # type: ignore[no-untyped-def]
    data = k_make()
    with dsl.If(k_best(scores=[1.0]).output > limit):
        task = k_train(data=data.output)
        task.set_cpu_limit("2").set_memory_limit("4Gi").set_accelerator_limit(1).set_accelerator_type("nvidia.com/gpu")
        task.set_retry(2, "1s", 2.0, "3600s").set_caching_options(False)


def order_ours() -> None:
    make(1).after(numbers())


def order_theirs():  # type: ignore[no-untyped-def]
    k_make(n=1).after(k_numbers())


@pytest.mark.parametrize(
    ("mine", "other"),
    [
        (chain_ours, chain_theirs),
        (fan_ours, fan_theirs),
        (fan_output_ours, fan_output_theirs),
        (branch_ours, branch_theirs),
        (order_ours, order_theirs),
    ],
    ids=["chain", "fan-out", "fan-out over an output", "branch", "order"],
)
def test_kfp_compiles_the_same_structure(mine: Any, other: Any, tmp_path: Path) -> None:
    assert structure(ours(mine)) == structure(theirs(other, tmp_path))


def test_the_platform_document_is_the_one_kfp_kubernetes_writes(tmp_path: Path) -> None:
    @rml.step(timeout="1h", priority="high", spot=True)
    def work() -> None: ...

    def mine() -> None:
        work()

    @dsl.component(base_image="img")
    def k_work(): ...  # type: ignore[no-untyped-def]

    k_work.component_spec.name = "work"

    def other():  # type: ignore[no-untyped-def]
        task = k_work()
        kubernetes.set_timeout(task, 3600)
        kubernetes.add_pod_label(task, "kueue.x-k8s.io/priority-class", "high")
        kubernetes.add_node_selector(task, "node.kubernetes.io/lifecycle", "spot")
        kubernetes.add_toleration(
            task, key="node.kubernetes.io/lifecycle", operator="Equal", value="spot", effect="NoSchedule"
        )

    expected = load_ir(theirs(other, tmp_path))["platform"]
    renamed = yaml.safe_load(yaml.safe_dump(expected).replace("exec-k-work", "exec-work"))
    assert load_ir(ours(mine))["platform"] == renamed


def test_kfp_loads_random_specs(tmp_path: Path) -> None:
    programs = random_pipelines()
    for seed in range(12):
        _, ir = programs.spec(programs.draw(random.Random(seed).randrange))
        loaded = components.load_component_from_text(dump_ir(ir).decode())
        assert loaded.pipeline_spec == as_proto(dump_ir(ir))


def test_kfp_loads_two_documents() -> None:
    @rml.step(timeout="1h")
    def work(n: int) -> int:
        return n

    def mine(n: int = 1) -> None:
        work(n)

    loaded = components.load_component_from_text(ours(mine).decode())
    kubernetes_part = loaded.platform_spec.platforms["kubernetes"]
    assert "exec-work" in json_format.MessageToDict(kubernetes_part)["deploymentSpec"]["executors"]
