"""ONNX graphs as packages: the signature is the graph's, the answers are ONNX Runtime's, bad graphs are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import roblox_ml as rml
from roblox_ml.errors import PackageError

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

WEIGHTS = np.arange(6, dtype="float32").reshape(3, 2)
ROWS = np.ones((2, 3), "float32")


def linear(
    batch: Any = "N", *, name: str = "x", op: str = "MatMul", kind: int = TensorProto.FLOAT, out: Any = None
) -> Any:
    node = helper.make_node(op, [name, "w"], ["y"], doc_string="/home/somebody/train.py")
    graph = helper.make_graph(
        [node],
        "linear",
        [helper.make_tensor_value_info(name, kind, [batch, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, out or [batch, 2])],
        [numpy_helper.from_array(WEIGHTS, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_the_graph_describes_itself(tmp_path: Path) -> None:
    from roblox_ml_core.package import loaders

    file = tmp_path / "linear.onnx"
    onnx.save_model(linear(), str(file))
    for model in (linear(), linear().SerializeToString(), file, str(file)):
        path = rml.Model.from_onnx(model, examples=ROWS, metrics={"rmse": 0.1}).path
        assert json.loads((path / "signature.json").read_text()) == {
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
        }
        loaded = loaders.load(path, check=True)
        assert loaded.predict({"x": ROWS * 2})["y"].tolist() == (ROWS * 2 @ WEIGHTS).tolist()


def test_weights_beside_the_file_come_in(tmp_path: Path) -> None:
    from roblox_ml_core.package import loaders

    file = tmp_path / "linear.onnx"
    onnx.save_model(linear(), str(file), save_as_external_data=True, location="linear.data", size_threshold=0)
    path = rml.Model.from_onnx(file, examples={"x": ROWS}).path
    assert sorted(p.name for p in (path / "model").iterdir()) == ["model.onnx"]
    assert loaders.load(path).check() == []


def test_notes_of_the_exporter_do_not_travel_and_the_callers_model_stays() -> None:
    model = linear()
    path = rml.Model.from_onnx(model, examples=ROWS).path
    assert b"/home/somebody" not in (path / "model/model.onnx").read_bytes()
    assert model.graph.node[0].doc_string


def scalar_sum() -> Any:
    """Sums over the batch: a row's answer depends on its neighbours."""
    nodes = [
        helper.make_node("ReduceSum", ["x", "axes"], ["s"], keepdims=1),
        helper.make_node("Add", ["x", "s"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "mixing",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(np.array([0], "int64"), "axes")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


REFUSED: list[tuple[Any, Any, str]] = [
    (lambda: linear(), None, "needs recorded examples"),
    (lambda: linear(batch=1), ROWS, r"fixed first dimension \(1\)"),
    (lambda: linear(name="input.1"), ROWS, "cannot write as a keyword"),
    (lambda: linear(), {"z": ROWS}, r"for \['z'\], the graph takes \['x'\]"),
    (lambda: linear(), ROWS[0], r"shape \[3\], the graph takes \[-1, 3\]"),
    (lambda: linear(op="NoSuchOp"), ROWS, "not valid"),
    (lambda: linear(kind=TensorProto.BFLOAT16), ROWS, "not valid|element type"),
    (lambda: b"not onnx", ROWS, "no ONNX model|not valid"),
    (lambda: "missing.onnx", ROWS, "there is no file"),
    (scalar_sum, ROWS, "depends on the rows beside it"),
]


@pytest.mark.parametrize(("make", "examples", "said"), REFUSED)
def test_graphs_that_cannot_be_served_are_named(make: Any, examples: Any, said: str) -> None:
    with pytest.raises(PackageError, match=said):
        rml.Model.from_onnx(make(), examples=examples)
