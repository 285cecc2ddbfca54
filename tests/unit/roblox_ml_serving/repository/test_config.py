"""Generated configurations, read back by Triton's own protobuf."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from roblox_ml_core.package import DATATYPES, Examples, ModelPackage, Signature, TensorSpec, write
from roblox_ml_serving.repository import Options, batch_config, config_pbtxt, public_config, warmup_files
from roblox_ml_serving.repository.pbtxt import Enum, render
from tritonclient.grpc import model_config_pb2

SIGNATURE = Signature(
    (TensorSpec("TEXT", "BYTES", (-1,)),), (TensorSpec("label", "BYTES", (-1,)), TensorSpec("scores", "FP32", (-1, 3)))
)


def make(root: Path, signature: Signature = SIGNATURE, examples: Examples | None = None) -> ModelPackage:
    (root / "model").mkdir(parents=True)
    (root / "model" / "model.onnx").write_bytes(b"graph")
    return write(root, format="onnx", signature=signature, examples=examples)


def parse(text: str) -> model_config_pb2.ModelConfig:
    return text_format.Parse(text, model_config_pb2.ModelConfig())


@pytest.fixture
def package(tmp_path: Path) -> ModelPackage:
    inputs = ({"name": "TEXT", "datatype": "BYTES", "shape": [2], "data": ["gg", "größe"]},)
    outputs = ({"name": "label", "datatype": "BYTES", "shape": [2], "data": ["a", "b"]},)
    return make(tmp_path / "p", examples=Examples(inputs, outputs))


def test_the_public_model_has_the_signature_to_the_letter(package) -> None:
    config = parse(public_config(package, "clf", 3))
    assert (config.name, config.platform, config.max_batch_size) == ("clf.3", "ensemble", 0)
    assert [(t.name, t.data_type, list(t.dims)) for t in config.input] == [("TEXT", model_config_pb2.TYPE_STRING, [-1])]
    assert [(t.name, list(t.dims)) for t in config.output] == [("label", [-1]), ("scores", [-1, 3])]
    (step,) = config.ensemble_scheduling.step
    assert (step.model_name, step.model_version, dict(step.input_map)) == ("clf.3.batch", 3, {"TEXT": "TEXT"})
    assert list(config.version_policy.specific.versions) == [3]
    assert config.parameters["rml.digest"].string_value == package.digest


def test_the_batch_model_batches_ragged_requests_and_warms_up(package) -> None:
    options = Options(instances=2, max_batch_requests=16, max_queue_delay_us=500, parameters={"python": '/a "b"\\c\n'})
    config = parse(batch_config(package, "clf", 3, options))
    assert (config.name, config.backend, config.max_batch_size) == ("clf.3.batch", "python", 16)
    assert config.input[0].allow_ragged_batch
    assert config.HasField("dynamic_batching")
    assert config.dynamic_batching.max_queue_delay_microseconds == 500
    (group,) = config.instance_group
    assert (group.kind, group.count) == (model_config_pb2.ModelInstanceGroup.KIND_CPU, 2)
    (warmup,) = config.model_warmup
    assert (warmup.batch_size, list(warmup.inputs["TEXT"].dims), warmup.inputs["TEXT"].input_data_file) == (
        1,
        [2],
        "TEXT",
    )
    assert config.parameters["python"].string_value == '/a "b"\\c\n'
    assert not config.response_cache.enable


def test_the_same_package_gives_the_same_bytes(package) -> None:
    assert config_pbtxt(package, "clf", 3) == config_pbtxt(package, "clf", 3)
    assert list(config_pbtxt(package, "clf", 3)) == ["clf.3", "clf.3.batch"]


def test_without_an_example_there_is_no_warm_up(tmp_path) -> None:
    config = parse(batch_config(make(tmp_path / "p"), "clf", 1, Options()))
    assert len(config.model_warmup) == 0


@pytest.mark.parametrize("datatype", DATATYPES)
def test_every_datatype_has_its_triton_type(tmp_path, datatype: str) -> None:
    signature = Signature((TensorSpec("x", datatype, (-1, 2)),), (TensorSpec("y", datatype, (-1,)),))
    config = parse(public_config(make(tmp_path / "p", signature), "m", 1))
    expected = "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"
    assert model_config_pb2.DataType.Name(config.input[0].data_type) == expected


@pytest.mark.parametrize("wrong", [{"instances": 0}, {"max_batch_requests": 0}, {"max_queue_delay_us": -1}])
def test_options_out_of_range_are_refused(wrong) -> None:
    with pytest.raises(ValueError, match="start at 1"):
        Options(**wrong)


@given(st.text())
def test_any_text_survives_the_text_format(text: str) -> None:
    clean = text.encode("utf-8", "replace").decode()
    parsed = text_format.Parse(render({"name": clean}), model_config_pb2.ModelConfig())
    assert parsed.name == clean


def test_rendering_is_strict_and_readable() -> None:
    assert render({"a": 1, "b": True, "c": Enum("X"), "d": [1, -1], "e": {}, "f": [{"g": "h"}]}) == (
        'a: 1\nb: true\nc: X\nd: [1, -1]\ne { }\nf {\n  g: "h"\n}\n'
    )
    with pytest.raises(TypeError, match="no place"):
        render({"a": 1.5})  # type: ignore[dict-item]


def test_a_text_model_takes_texts_or_ids_and_warms_up_every_bucket(tmp_path: Path) -> None:
    plan = {
        "schema": 1, "task": "sequence", "labels": ["a", "b", "c"], "max_length": 24, "buckets": [8, 24], "batch_tokens": 50,
        "engines": [{"name": "x", "runtime": "onnxruntime", "folder": "engines/x", "precision": "fp32"}],
    }  # fmt: skip
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "text.json").write_text(json.dumps(plan))
    (tmp_path / "model" / "tokenizer.json").write_text("{}")
    package = write(tmp_path, format="text-cpu", signature=SIGNATURE, labels=["a", "b", "c"], options={})
    config = parse(batch_config(package, "clf", 3, Options(instances=2, pin=True)))
    assert [(t.name, list(t.dims), t.optional, t.allow_ragged_batch) for t in config.input] == [
        (name, [-1], True, True) for name in ("TEXT", "IDS", "LENGTHS")
    ]
    assert [(t.name, list(t.dims)) for t in config.output] == [
        ("label", [-1]), ("scores", [-1, 3]), ("LOGITS", [-1, 3]),
    ]  # fmt: skip
    assert config.parameters["rml.pin"].string_value == "cores"
    files = warmup_files(package)
    sent = {
        warmup.name: [
            np.frombuffer(files[warmup.inputs[key].input_data_file], "<i4").tolist() for key in ("IDS", "LENGTHS")
        ]
        for warmup in config.model_warmup
    }
    assert sent == {"bucket-8": [[0] * 32, [8] * 4], "bucket-24": [[0] * 48, [24] * 2]}
    # What clients see knows nothing of ids.
    public = parse(public_config(package, "clf", 3))
    assert ([t.name for t in public.input], [t.name for t in public.output]) == (["TEXT"], ["label", "scores"])
    assert "rml.pin" not in parse(batch_config(package, "clf", 3, Options())).parameters
