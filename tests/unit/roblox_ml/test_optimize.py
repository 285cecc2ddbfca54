"""`rml.optimize` and `rml.register(optimize="cpu")`: in a pipeline a step with its own environment; outside, refusals that teach."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

import roblox_ml as rml
from roblox_ml import _optimize
from roblox_ml._build import prepare
from roblox_ml._packaging.text import write_text_package
from roblox_ml.errors import PackageError, PipelineError


@rml.step
def load() -> rml.Dataset:
    return rml.Dataset()


@rml.step
def train(data: rml.Dataset) -> rml.Model:
    return rml.Model()


@rml.pipeline
def registers_optimised():
    data = load()
    rml.register(train(data), name="m", optimize="cpu", data=data, budget=0.01)


@rml.pipeline
def optimises():
    data = load()
    rml.register(rml.optimize(train(data), data), name="m")


def ir_of(pipeline: Any) -> dict[str, Any]:
    ir: dict[str, Any] = next(yaml.safe_load_all(prepare(pipeline).ir))
    return ir


@pytest.mark.parametrize("pipeline", [registers_optimised, optimises])
def test_a_pipeline_gets_a_step_with_an_environment_of_its_own(pipeline: Any) -> None:
    built = prepare(pipeline)
    ref = built.steps["optimize"]
    assert ref.entry == "roblox_ml._optimize:step"
    lock = built.blobs[ref.lock].decode()
    assert all(f"\n{name}==" in "\n" + lock for name in ("openvino", "nncf", "ctranslate2", "onnxruntime", "torch"))
    with zipfile.ZipFile(io.BytesIO(built.blobs[ref.code])) as bundle:
        names = bundle.namelist()
    assert "roblox_ml_serving/text/optimize/__init__.py" in names and "roblox_ml_serving/__init__.py" in names
    assert built.steps["register"].lock == "none", "the other built-in steps still need nothing"
    tasks = ir_of(pipeline)["root"]["dag"]["tasks"]
    registered = tasks["register"]["inputs"]["artifacts"]["model"]["taskOutputArtifact"]
    assert registered["producerTask"] == "optimize"


def test_what_the_budget_says_reaches_the_step() -> None:
    given = ir_of(registers_optimised)["root"]["dag"]["tasks"]["optimize"]["inputs"]["parameters"]
    assert given["budget"]["runtimeValue"]["constant"] == 0.01


def test_the_same_code_is_the_same_bundle() -> None:
    assert prepare(optimises).steps["optimize"] == prepare(registers_optimised).steps["optimize"]


@rml.pipeline
def no_data():
    rml.register(train(load()), name="m", optimize="cpu")


@rml.pipeline
def for_a_toaster():
    data = load()
    rml.register(train(data), name="m", optimize="toaster", data=data)


@rml.pipeline
def no_number():
    data = load()
    rml.optimize(train(data), data, budget=-1)


@pytest.mark.parametrize(
    ("pipeline", "code", "fix"),
    [
        (no_data, "no-data", "data=split.test"),
        (for_a_toaster, "bad-target", 'optimize="cpu"'),
        (no_number, "bad-budget", "0.005"),
    ],
)
def test_what_is_wrong_is_said_at_its_line(pipeline: Any, code: str, fix: str) -> None:
    with pytest.raises(PipelineError) as caught:
        prepare(pipeline)
    found = {finding.code: finding for finding in caught.value.findings}
    assert code in found and fix in found[code].fix and "test_optimize.py" in found[code].where


def package(folder: Path, format: str) -> Path:
    folder.mkdir()
    (folder / "package.json").write_text(
        json.dumps({"format": format, "labels": ["a", "b"], "options": {"max_length": 8}})
    )
    return folder


@pytest.mark.parametrize("format", ["onnx", "hf-text-classifier"])
def test_only_a_text_model_with_its_checkpoint_is_optimised(tmp_path: Path, format: str) -> None:
    with pytest.raises(PackageError, match="from_transformers"):
        rml.optimize(rml.Model(package(tmp_path / "p", format)), [("a", "a")])
    with pytest.raises(PackageError, match="not a model package"):
        rml.optimize(tmp_path, [("a", "a")])


def test_texts_without_labels_cannot_judge(tmp_path: Path) -> None:
    folder = package(tmp_path / "p", "hf-text-classifier")
    (folder / "model" / "hf").mkdir(parents=True)
    (folder / "model" / "hf" / "config.json").write_text("{}")
    with pytest.raises(PackageError, match="no column 'label'"):
        rml.optimize(folder, ["only", "texts"])


def test_outside_a_pipeline_another_target_is_refused() -> None:
    with pytest.raises(PackageError, match="optimize='gpu'"):
        rml.register(rml.Model(), "m", optimize="gpu")


def test_a_folder_without_a_usable_plan_is_no_package(tmp_path: Path) -> None:
    (tmp_path / "found" / "model").mkdir(parents=True)
    (tmp_path / "found" / "model" / "text.json").write_text('{"schema": 99}')
    with pytest.raises(PackageError, match="schema 99"):
        write_text_package(tmp_path / "found", ["gg"], path=tmp_path / "out")


def test_what_travels_exists() -> None:
    from importlib.util import find_spec

    for name in (*_optimize.CARRIES, *_optimize.IMPORTS):
        assert find_spec(name) is not None, name
