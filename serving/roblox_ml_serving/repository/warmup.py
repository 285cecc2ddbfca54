"""Warm-up from the package's recorded example: the first client must not pay for lazy loading, and a model that cannot answer
its own example must not become ready."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from roblox_ml_core.package import DATATYPES, ModelPackage

from .pbtxt import Enum, Value

__all__ = ["WARMUP_FOLDER", "raw_bytes", "warmup_files", "warmup_message"]

WARMUP_FOLDER = "warmup"


def warmup_message(package: ModelPackage) -> Mapping[str, Value] | None:
    """The `model_warmup` entry: one request of the example's shape; None for a package without a (non-empty) example."""
    if not warmup_files(package):
        return None
    assert package.examples is not None
    inputs: list[Value] = []
    for tensor in package.examples.inputs:
        kind = "TYPE_STRING" if tensor["datatype"] == "BYTES" else f"TYPE_{tensor['datatype']}"
        value: dict[str, Value] = {
            "data_type": Enum(kind),
            "dims": [int(size) for size in tensor["shape"]],
            "input_data_file": tensor["name"],
        }
        inputs.append({"key": tensor["name"], "value": value})
    return {"name": "example", "batch_size": 1, "inputs": inputs}


def warmup_files(package: ModelPackage) -> dict[str, bytes]:
    """The example's tensors as Triton reads them from `warmup/`, by file name."""
    if package.examples is None or any(0 in tensor["shape"] for tensor in package.examples.inputs):
        return {}
    return {tensor["name"]: raw_bytes(tensor["datatype"], tensor["data"]) for tensor in package.examples.inputs}


def raw_bytes(datatype: str, data: Any) -> bytes:
    """A tensor's binary form (Open Inference Protocol): little-endian numbers, or texts each behind its uint32 length."""
    if datatype == "BYTES":
        encoded = [item if isinstance(item, bytes) else str(item).encode() for item in data]
        return b"".join(struct.pack("<I", len(item)) + item for item in encoded)
    import numpy as np

    array = np.asarray(data, dtype=DATATYPES[datatype])
    return bytes(array.astype(array.dtype.newbyteorder("<")).tobytes())
