"""An ONNX graph as a package: checked, described from its own inputs and outputs, and asked once for its known answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import PackageError
from ._export import clean
from ._package import TOLERANCE, model_folder, write_package
from ._tensors import Tensor, text_array

__all__ = ["from_onnx"]

# onnx.TensorProto.DataType → Open Inference Protocol datatype
_DATATYPES: Mapping[int, str] = {
    1: "FP32", 2: "UINT8", 3: "INT8", 4: "UINT16", 5: "INT16", 6: "INT32", 7: "INT64", 8: "BYTES",
    9: "BOOL", 10: "FP16", 11: "FP64", 12: "UINT32", 13: "UINT64",
}  # fmt: skip
_NUMPY = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64",
    "INT8": "int8", "INT16": "int16", "INT32": "int32", "INT64": "int64",
    "FP16": "float16", "FP32": "float32", "FP64": "float64",
}  # fmt: skip


def from_onnx(
    model: Any,
    *,
    examples: Any = None,
    labels: Sequence[str] | None = None,
    metrics: Mapping[str, Any] | None = None,
    tolerance: float = TOLERANCE,
    path: str | Path | None = None,
) -> Path:
    """Package an ONNX model: a file's path, its bytes or a `ModelProto`.

    `examples`: values by input name, or the value itself where there is one input; first dimension = batch.
    The signature is the graph's own: free dimensions are -1, and the first one of every tensor must be free.
    Returns the package's directory.
    """
    import onnx

    graph = clean(_load(model))
    _check(graph)
    inputs = [_tensor(value, "input") for value in _real_inputs(graph.graph)]
    outputs = [_tensor(value, "output") for value in graph.graph.output]
    given = _examples(examples, inputs)
    root, folder = model_folder(path)
    file = folder / "model.onnx"
    onnx.save_model(graph, str(file))
    answers = _run(file, given, [tensor.name for tensor in outputs])
    return write_package(
        root,
        format="onnx",
        inputs={tensor: given[tensor.name] for tensor in inputs},
        outputs=dict(zip(outputs, answers, strict=True)),
        labels=None if labels is None else [str(label) for label in labels],
        metrics=metrics,
        tolerance=tolerance,
    )


def _load(model: Any) -> Any:
    """The ModelProto with all its weights inside; a copy, since it is cleaned before it is written."""
    import onnx

    if isinstance(model, onnx.ModelProto):
        graph = onnx.ModelProto()
        graph.CopyFrom(model)
    elif isinstance(model, bytes):
        try:
            graph = onnx.load_model_from_string(model)
        except Exception as error:
            raise PackageError(f"these bytes are no ONNX model: {error}", where="model") from error
    else:
        file = Path(model)
        if not file.is_file():
            raise PackageError(f"there is no file {file}", where="model", fix="give the path of an .onnx file")
        try:
            graph = onnx.load_model(str(file))
        except Exception as error:
            raise PackageError(
                f"{file.name} cannot be read as ONNX: {error}",
                where="model",
                why="the file is damaged, or the file beside it that holds its weights is missing",
                fix="export it again; keep the .onnx.data file beside it",
            ) from error
    if any(tensor.HasField("data_location") and tensor.data_location == 1 for tensor in graph.graph.initializer):
        raise PackageError(
            "the weights lie in another file",
            where="model",
            why="a model given as bytes or as an object cannot bring files beside it",
            fix="give the path of the .onnx file: its weights are then taken in",
        )
    return graph


def _check(graph: Any) -> None:
    import onnx

    try:
        onnx.checker.check_model(graph, full_check=graph.ByteSize() < 2**31)
    except Exception as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise PackageError(
            f"the graph is not valid: {reason[:300]}",
            where="model",
            why="onnx.checker refuses it, so ONNX Runtime and Triton would too",
            fix="export it again with a current opset",
        ) from error


def _real_inputs(graph: Any) -> list[Any]:
    """Inputs a caller gives; old exports list the weights among them."""
    weights = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in weights]


def _tensor(value: Any, role: str) -> Tensor:
    where = f"{role} {value.name}"
    if not value.type.HasField("tensor_type"):
        raise PackageError(
            f"{where} is a sequence or a map, not a tensor",
            where=where,
            why="the inference protocol carries tensors (scikit-learn exports use maps for probabilities by default)",
            fix='convert with options={"zipmap": False}, or use Model.from_sklearn',
        )
    if not value.name.isidentifier():
        raise PackageError(
            f"{where} has a name that callers cannot write as a keyword",
            where=where,
            why="names become fields of requests and of generated clients",
            fix=f'torch.onnx.export(..., {role}_names=["{"".join(c if c.isalnum() else "_" for c in value.name)}"])',
        )
    kind = value.type.tensor_type
    datatype = _DATATYPES.get(kind.elem_type)
    if datatype is None:
        raise PackageError(
            f"{where} has an element type the inference protocol does not carry (ONNX type {kind.elem_type})",
            where=where,
            fix="add a Cast to float32 at this place of the graph",
        )
    if not kind.HasField("shape") or not kind.shape.dim:
        raise PackageError(
            f"{where} has no batch dimension",
            where=where,
            why="requests of several callers are put together along the first dimension",
            fix="export the model with a free first dimension on every input and output",
        )
    dims = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in kind.shape.dim]
    if dims[0] != -1:
        raise PackageError(
            f"{where} has a fixed first dimension ({dims[0]})",
            where=where,
            why="the first dimension is the batch; fixed, the server could never answer two requests at once",
            fix='export it free: dynamic_shapes (dynamo) or dynamic_axes={"' + value.name + '": {0: "batch"}}',
        )
    return Tensor(value.name, datatype, tuple(dims))


def _examples(examples: Any, inputs: Sequence[Tensor]) -> dict[str, Any]:
    """Arrays by input name, of the graph's types."""
    import numpy as np

    names = [tensor.name for tensor in inputs]
    if examples is None:
        raise PackageError(
            "a model needs recorded examples",
            where="examples=",
            why="they are the known answers that every server checks after loading",
            fix=f"examples={{{', '.join(f'{name!r}: rows' for name in names)}}}",
        )
    given = dict(examples) if isinstance(examples, Mapping) else {names[0]: examples} if len(names) == 1 else {}
    if set(given) != set(names):
        raise PackageError(
            f"the examples are for {sorted(given) or 'no named input'}, the graph takes {names}",
            where="examples=",
            fix=f"examples={{{', '.join(f'{name!r}: rows' for name in names)}}}",
        )
    arrays = {}
    for tensor in inputs:
        value = given[tensor.name]
        if tensor.datatype == "BYTES":
            arrays[tensor.name] = text_array([str(text) for text in value])
        else:
            arrays[tensor.name] = np.asarray(value, dtype=_NUMPY[tensor.datatype])
        have = arrays[tensor.name].shape
        fits = len(have) == len(tensor.shape) and all(
            want in (-1, size) for want, size in zip(tensor.shape, have, strict=True)
        )
        if not fits or not have[0]:
            raise PackageError(
                f"the example for {tensor.name} has shape {list(have)}, the graph takes {list(tensor.shape)}",
                where="examples=",
                fix="the first dimension is the batch: one row alone is x[None]",
            )
    return arrays


def _run(file: Path, given: Mapping[str, Any], outputs: Sequence[str]) -> list[Any]:
    """The graph's answers; asked row by row too, since a graph that mixes rows must not be batched."""
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        answers: list[Any] = session.run(list(outputs), dict(given))
        single = session.run(list(outputs), {name: value[:1] for name, value in given.items()})
    except Exception as error:
        raise PackageError(
            f"ONNX Runtime cannot run the graph on the examples: {str(error).strip()[:300]}",
            where="model",
            why="an operator it does not have, or a shape that only fits the exported sample",
            fix="export with free dimensions and a standard opset; custom operators need Model.from_python",
        ) from error
    rows = len(next(iter(given.values())))
    for name, together, alone in zip(outputs, answers, single, strict=True):
        mixes = together.shape[:1] != (rows,)
        if not mixes and together.dtype.kind == "f":
            mixes = alone.shape != together[:1].shape or not np.allclose(alone, together[:1], rtol=1e-3, atol=1e-3)
        if mixes:
            raise PackageError(
                f"output {name} of a row depends on the rows beside it (shape {list(together.shape)} for {rows} rows)",
                where=f"output {name}",
                why="the server answers several callers in one batch; here they would change each other's answers",
                fix="export the model in evaluation mode, with the batch as first dimension of every output",
            )
    return answers
