"""What a model takes and gives: named tensors with Open Inference Protocol datatypes; the first dimension is the batch.

From this one type come Triton's `config.pbtxt`, the checks of a request and the documentation of an endpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import Invalid, PackageError

__all__ = ["DATATYPES", "Signature", "TensorSpec", "as_tensor"]

# Open Inference Protocol v2 datatype -> numpy dtype name. BF16 is left out: numpy has no such type.
DATATYPES: Mapping[str, str] = {
    "BOOL": "bool",
    "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64",
    "INT8": "int8", "INT16": "int16", "INT32": "int32", "INT64": "int64",
    "FP16": "float16", "FP32": "float32", "FP64": "float64",
    "BYTES": "object",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor; -1 in `shape` is any length, and the first dimension is always the batch (-1)."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def findings(self) -> list[str]:
        """What is wrong with this tensor, in words; empty when nothing is."""
        found = []
        if not isinstance(self.name, str) or not self.name or not self.name.isidentifier():
            found.append(f"tensor name {self.name!r} is not an identifier")
        if self.datatype not in DATATYPES:
            found.append(f"tensor {self.name!r}: datatype {self.datatype!r} is none of {', '.join(DATATYPES)}")
        if not self.shape or self.shape[0] != -1:
            found.append(f"tensor {self.name!r}: shape {list(self.shape)} must start with -1, the batch")
        if any(dim == 0 or dim < -1 for dim in self.shape):
            found.append(
                f"tensor {self.name!r}: shape {list(self.shape)} has a dimension that is neither -1 nor positive"
            )
        return found

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}


@dataclass(frozen=True, slots=True)
class Signature:
    """The inputs and outputs of a model."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def __post_init__(self) -> None:
        found = [finding for spec in (*self.inputs, *self.outputs) for finding in spec.findings()]
        for what, specs in (("inputs", self.inputs), ("outputs", self.outputs)):
            names = [spec.name for spec in specs]
            if not names:
                found.append(f"no {what}")
            if len(set(names)) != len(names):
                found.append(f"two {what} of the same name")
        if found:
            raise PackageError("the signature is wrong: " + "; ".join(found), hint="see docs/formats/model-package.md")

    @classmethod
    def from_json(cls, value: Any) -> Signature:
        """Read ``{"inputs": [{"name", "datatype", "shape"}], "outputs": [...]}``."""
        try:
            return cls(_specs(value["inputs"]), _specs(value["outputs"]))
        except (KeyError, TypeError, ValueError) as error:
            raise PackageError(
                f"this is not a signature ({type(error).__name__}: {error})",
                hint='write {"inputs": [{"name": "TEXT", "datatype": "BYTES", "shape": [-1]}], "outputs": [...]}',
            ) from error

    def to_json(self) -> dict[str, Any]:
        return {
            "inputs": [spec.to_json() for spec in self.inputs],
            "outputs": [spec.to_json() for spec in self.outputs],
        }

    def arrays(self, inputs: Any) -> dict[str, Any]:
        """`inputs` as one numpy array per input tensor, all of one batch length.

        Takes a mapping by tensor name, or (for a model of one input) the value itself: a list, an array, a data frame.
        """
        named = self._named(inputs)
        missing = [spec.name for spec in self.inputs if spec.name not in named]
        unknown = sorted(set(named) - {spec.name for spec in self.inputs})
        if missing or unknown:
            parts = [f"missing {missing}"] if missing else []
            parts += [f"unknown {unknown}"] if unknown else []
            takes = ", ".join(f"{spec.name} ({spec.datatype} {list(spec.shape)})" for spec in self.inputs)
            raise Invalid(f"the inputs do not fit: {', '.join(parts)}", hint=f"this model takes {takes}")
        arrays = {spec.name: as_tensor(spec, named[spec.name]) for spec in self.inputs}
        lengths = {name: len(array) for name, array in arrays.items()}
        if len(set(lengths.values())) > 1:
            raise Invalid(f"the inputs differ in batch length: {lengths}", hint="give one row per item in every input")
        return arrays

    def _named(self, inputs: Any) -> dict[str, Any]:
        if isinstance(inputs, Mapping):
            return dict(inputs)
        columns = getattr(inputs, "columns", None)
        if columns is not None and {spec.name for spec in self.inputs} <= {str(column) for column in columns}:
            return {spec.name: inputs[spec.name].to_numpy() for spec in self.inputs}
        if len(self.inputs) != 1:
            names = ", ".join(repr(spec.name) for spec in self.inputs)
            raise Invalid("this model has several inputs", hint=f"pass a mapping with the keys {names}")
        if columns is not None:
            inputs = inputs.to_numpy()
            if len(self.inputs[0].shape) == 1 and inputs.ndim == 2 and inputs.shape[1] == 1:
                inputs = inputs[:, 0]
        return {self.inputs[0].name: inputs}


def as_tensor(spec: TensorSpec, value: Any) -> Any:
    """`value` as a numpy array of the spec's type and shape, or `Invalid`. BYTES become an object array of str."""
    import numpy as np

    if isinstance(value, str | bytes):
        raise Invalid(f"{spec.name} is one text, not a batch", hint="wrap it in a list: [text]")
    if spec.datatype == "BYTES":
        array = np.asarray(value, dtype=object)
        flat = [item.decode("utf-8", "replace") if isinstance(item, bytes) else item for item in array.ravel()]
        wrong = next((item for item in flat if not isinstance(item, str)), None)
        if wrong is not None:
            raise Invalid(f"{spec.name} takes texts, not {type(wrong).__name__}", hint="pass a list of str")
        decoded: Any = np.empty(len(flat), dtype=object)
        decoded[:] = flat
        array = decoded.reshape(array.shape)
    else:
        try:
            array = np.asarray(value)
            cast = array.astype(DATATYPES[spec.datatype])
        except (TypeError, ValueError) as error:
            raise Invalid(f"{spec.name} does not convert to {spec.datatype}: {error}", hint="pass numbers") from error
        integral = spec.datatype.startswith(("INT", "UINT"))
        if integral and not np.array_equal(cast, array):
            raise Invalid(
                f"{spec.name} holds values that {spec.datatype} cannot hold", hint="round or scale them first"
            )
        array = cast
    fits = array.ndim == len(spec.shape) and all(
        want in (-1, have) for want, have in zip(spec.shape, array.shape, strict=True)
    )
    if not fits:
        raise Invalid(
            f"{spec.name} has shape {list(array.shape)}, the model takes {list(spec.shape)}",
            hint="the first dimension is the batch; -1 is any length",
        )
    return array


def _specs(value: Sequence[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(spec["name"], spec["datatype"], tuple(int(dim) for dim in spec["shape"])) for spec in value)
