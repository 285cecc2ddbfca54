"""What every model file shares: many requests in, one call of `predict` on their rows, each request's rows out.

Triton hands `execute` a list of requests. Each carries its tensors with one extra leading dimension of 1, because the model
that clients see (an ensemble that keeps the signature's shapes) wraps them so; this lets Triton batch requests of any number
of rows. Rows of one request stay together and in order, whatever else is in the batch.

Runs in the stub's interpreter: numpy 1 and the standard library only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

NUMPY_OF = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
    "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
    "FP16": np.float16, "FP32": np.float32, "FP64": np.float64, "BYTES": np.object_,
}  # fmt: skip


Batch = Mapping[str, Any]  # arrays by tensor name
Answer = Mapping[str, Any] | Exception


class BadInput(ValueError):
    """The request cannot be answered as it is; the client is told why."""


class BadOutput(RuntimeError):
    """The model answered something its signature does not allow."""


class ModelError(RuntimeError):
    """The model itself failed; the text says how."""


class Model:
    """Base of every model file's `TritonPythonModel`: subclasses give `load` and `predict`."""

    #: The most rows one call of `predict` gets; None leaves rows together.
    max_rows: ClassVar[int | None] = None

    def load(self, folder: Path, package: Mapping[str, Any], signature: Mapping[str, Any]) -> None:
        """Make the model ready from its package folder (called once)."""
        raise NotImplementedError

    def predict(self, batch: Batch) -> Mapping[str, Any]:
        """`{input: array [rows, …]}` to `{output: array [rows, …]}`; BYTES inputs come as object arrays of str."""
        raise NotImplementedError

    def initialize(self, args: Mapping[str, str]) -> None:
        check_numpy(np.__version__)
        config = json.loads(args["model_config"])
        folder = Path(args["model_repository"]) / str(args["model_version"]) / "package"
        self.instance = args.get("model_instance_name", "")
        self.parameters = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
        package = json.loads((folder / "package.json").read_text(encoding="utf-8"))
        self.signature = json.loads((folder / "signature.json").read_text(encoding="utf-8"))
        self.text = [spec["name"] for spec in self.signature["inputs"] if spec["datatype"] == "BYTES"]
        self.load(folder, package, self.signature)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        import triton_python_backend_utils as pb

        def read(request: Any, name: str) -> Any:
            tensor = pb.get_input_tensor_by_name(request, name)
            return None if tensor is None else tensor.as_numpy()

        batches: list[Answer] = []
        for request in requests:
            try:
                batches.append(
                    rows_of({spec["name"]: read(request, spec["name"]) for spec in self.signature["inputs"]})
                )
            except BadInput as error:
                batches.append(error)
        responses = []
        for answer in self.answer(batches):
            if isinstance(answer, Exception):
                code = pb.TritonError.INVALID_ARG if isinstance(answer, BadInput) else pb.TritonError.INTERNAL
                responses.append(pb.InferenceResponse(output_tensors=[], error=pb.TritonError(describe(answer), code)))
            else:
                tensors = [pb.Tensor(spec["name"], answer[spec["name"]][None]) for spec in self.signature["outputs"]]
                responses.append(pb.InferenceResponse(output_tensors=tensors))
        return responses

    def answer(self, batches: Sequence[Answer]) -> list[Answer]:
        """One answer (or exception) per batch. A failing batch is retried alone, so that it fails nobody else's."""
        answers = list(batches)
        good = {i: batch for i, batch in enumerate(batches) if not isinstance(batch, Exception)}
        for group in same_trailing_shape(good):
            results: Sequence[Answer]
            try:
                results = self._together([good[i] for i in group])
            except Exception as error:
                results = [error] if len(group) == 1 else [self._alone(good[i]) for i in group]
            for i, result in zip(group, results):  # noqa: B905 - same length by construction
                answers[i] = result
        return answers

    def _alone(self, batch: Batch) -> Answer:
        try:
            return self._together([batch])[0]
        except Exception as error:
            return error

    def _together(self, batches: Sequence[Batch]) -> list[Mapping[str, Any]]:
        counts = [len(next(iter(batch.values()))) for batch in batches]
        total = sum(counts)
        if total == 0:
            return [empty(self.signature["outputs"]) for _ in batches]
        merged = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
        for name in self.text:
            merged[name] = as_text(merged[name])
        step = self.max_rows or total
        parts = []
        for start in range(0, total, step):
            piece = {name: array[start : start + step] for name, array in merged.items()}
            parts.append(checked(self.predict(piece), self.signature["outputs"], min(step, total - start)))
        whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        ends = np.cumsum(counts)
        return [{name: array[end - count : end] for name, array in whole.items()} for end, count in zip(ends, counts)]  # noqa: B905


def check_numpy(version: str) -> None:
    """Refuse numpy 2: with it every output tensor is empty while the request succeeds."""
    if int(version.split(".")[0]) >= 2:
        raise RuntimeError(
            f"the Python backend's environment has numpy {version}; this Triton's stub was built for numpy 1 and would answer "
            "with empty tensors. Run scripts/setup_triton.py again, and start Triton with `python -m roblox_ml_serving.triton`"
        )


def rows_of(tensors: Batch) -> dict[str, Any]:
    """A request's tensors without the leading 1, checked for the same number of rows."""
    rows = {}
    for name, array in tensors.items():
        if array is None:
            raise BadInput(f"input {name!r} is missing")
        if array.ndim < 2 or array.shape[0] != 1:
            raise BadInput(f"input {name!r} has shape {list(array.shape)}: ask the model without the suffix .batch")
        rows[name] = array[0]
    counts = {name: len(array) for name, array in rows.items()}
    if len(set(counts.values())) > 1:
        raise BadInput(f"the inputs differ in their number of rows: {counts}")
    return rows


def same_trailing_shape(batches: Mapping[int, Batch]) -> list[list[int]]:
    """Group the batches whose tensors can be concatenated: all dimensions after the first are equal."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for i, batch in batches.items():
        key = tuple((name, array.shape[1:]) for name, array in batch.items())
        groups.setdefault(key, []).append(i)
    return list(groups.values())


def checked(answer: Any, outputs: Sequence[Mapping[str, Any]], rows: int) -> dict[str, Any]:
    """The answer with every output present, of the signature's type, and with one row per input row."""
    if not isinstance(answer, dict):
        raise BadOutput(f"predict returned {type(answer).__name__}; a dict of arrays by output name is expected")
    result = {}
    for spec in outputs:
        name, shape = spec["name"], spec["shape"]
        if name not in answer:
            raise BadOutput(f"the model gave no output {name!r} (it gave {sorted(answer)})")
        array = answer[name]
        array = as_bytes(array) if spec["datatype"] == "BYTES" else np.asarray(array, dtype=NUMPY_OF[spec["datatype"]])
        wrong = array.ndim != len(shape) or array.shape[0] != rows
        if wrong or any(want not in (-1, have) for want, have in zip(shape[1:], array.shape[1:])):  # noqa: B905
            raise BadOutput(
                f"output {name!r} has shape {list(array.shape)} for {rows} rows; its signature says {shape}"
            )
        result[name] = np.ascontiguousarray(array)
    return result


def as_bytes(array: Any) -> Any:
    """Text as Triton wants it: an object array of bytes."""
    array = np.asarray(array)
    flat = np.empty(array.size, dtype=np.object_)
    for i, value in enumerate(array.reshape(-1)):
        flat[i] = value if isinstance(value, bytes) else str(value).encode("utf-8")
    return flat.reshape(array.shape)


def as_text(array: Any) -> Any:
    """BYTES as Python strings. Bytes that are not UTF-8 become U+FFFD: a damaged comment is still classified."""
    flat = np.empty(array.size, dtype=np.object_)
    for i, value in enumerate(array.reshape(-1)):
        flat[i] = value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)
    return flat.reshape(array.shape)


def empty(outputs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The answer to zero rows."""
    return {
        spec["name"]: np.empty([0] + [max(0, size) for size in spec["shape"][1:]], dtype=NUMPY_OF[spec["datatype"]])
        for spec in outputs
    }


def describe(error: Exception) -> str:
    """An exception as one line for the client."""
    if isinstance(error, (BadInput, BadOutput, ModelError)):
        return str(error)
    return f"{type(error).__name__}: {error}"


def one_thread() -> int:
    """Threads per instance. More would fight with the other instances for the same cores."""
    return max(1, int(os.environ.get("OMP_NUM_THREADS", "1") or 1))
