"""Tensors as the Open Inference Protocol writes them: datatypes, signatures and recorded values.

A signature is read off real values or a graph, never asked of the user; every tensor's first dimension is the batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import PackageError

__all__ = ["TEXT_INPUT", "Tensor", "datatype_of", "from_array", "record", "text_array"]

# numpy dtype (kind + item size) → Open Inference Protocol datatype
_DATATYPES: Mapping[str, str] = {
    "b1": "BOOL",
    "u1": "UINT8", "u2": "UINT16", "u4": "UINT32", "u8": "UINT64",
    "i1": "INT8", "i2": "INT16", "i4": "INT32", "i8": "INT64",
    "f2": "FP16", "f4": "FP32", "f8": "FP64",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output of a model: `shape` has -1 for every dimension that is free, the first one always."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}


TEXT_INPUT = Tensor("TEXT", "BYTES", (-1,))


def datatype_of(array: Any, name: str) -> str:
    """The protocol's datatype of a numpy array; text (str, bytes or object of them) is BYTES."""
    kind = array.dtype.kind
    if kind in "US" or (kind == "O" and all(isinstance(value, str | bytes) for value in array.ravel())):
        return "BYTES"
    try:
        return _DATATYPES[f"{kind}{array.dtype.itemsize}"]
    except KeyError:
        raise PackageError(
            f"{name} is an array of {array.dtype}",
            where=name,
            why="the inference protocol carries booleans, integers, floats and text",
            fix=f"convert it before you return or record it, as in {name}.astype('float32') or [str(x) for x in {name}]",
        ) from None


def from_array(name: str, array: Any) -> Tensor:
    """The signature of a value: its first dimension becomes the batch, the others stay as they are."""
    if array.ndim == 0:
        raise PackageError(
            f"{name} is a single value, not a batch",
            where=name,
            why="the first dimension of every tensor is the batch: requests are put together along it",
            fix=f"give {name} one row per example, as in numpy.array([value])",
        )
    return Tensor(name, datatype_of(array, name), (-1, *array.shape[1:]))


def record(tensor: Tensor, array: Any) -> dict[str, Any]:
    """A value in v2 JSON form, flat in row-major order, with the shape it really had."""
    values = array.ravel().tolist()
    if tensor.datatype == "BYTES":
        values = [value.decode("utf-8") if isinstance(value, bytes) else str(value) for value in values]
    elif tensor.datatype.startswith("FP"):
        import numpy as np

        if not bool(np.isfinite(array).all()):
            raise PackageError(
                f"{tensor.name} holds NaN or infinity for the examples",
                where=tensor.name,
                why="such a value cannot be compared when the model is loaded, nor written as JSON",
                fix="look at the training (a diverged model answers NaN), or give examples the model can answer",
            )
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(array.shape), "data": values}


def text_array(texts: Sequence[str]) -> Any:
    """Texts as a numpy array of objects, so that their lengths stay their own."""
    import numpy as np

    array: Any = np.empty(len(texts), dtype=object)
    array[:] = list(texts)
    return array
