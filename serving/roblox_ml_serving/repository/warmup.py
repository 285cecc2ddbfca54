"""Warm-up from the package's recorded example: the first client must not pay for lazy loading, and a model that cannot answer
its own example must not become ready."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

from roblox_ml_core.package import DATATYPES, ModelPackage

from ..backends.rml_text_plan import read_plan
from .pbtxt import Enum, Value

__all__ = ["TEXT_CPU", "WARMUP_FOLDER", "raw_bytes", "warmup_files", "warmup_messages"]

WARMUP_FOLDER = "warmup"
TEXT_CPU = "text-cpu"
WARM_ROWS = 4


def warmup_messages(package: ModelPackage) -> list[Value]:
    """The `model_warmup` entries: the package's (non-empty) example, and for a text model one call of each bucket."""
    return [
        {
            "name": name,
            "batch_size": 1,
            "inputs": [
                {
                    "key": tensor.name,
                    "value": {
                        "data_type": Enum("TYPE_STRING" if tensor.datatype == "BYTES" else f"TYPE_{tensor.datatype}"),
                        "dims": list(tensor.shape),
                        "input_data_file": tensor.file,
                    },
                }
                for tensor in tensors
            ],
        }
        for name, tensors in _requests(package).items()
    ]


def warmup_files(package: ModelPackage) -> dict[str, bytes]:
    """The tensors of all requests as Triton reads them from `warmup/`, by file name."""
    return {
        tensor.file: raw_bytes(tensor.datatype, tensor.data)
        for tensors in _requests(package).values()
        for tensor in tensors
    }


class _Tensor(NamedTuple):
    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Any
    file: str


def _requests(package: ModelPackage) -> dict[str, list[_Tensor]]:
    """Every warm-up request, by its name."""
    requests = {}
    examples = package.examples
    if examples is not None and not any(0 in tensor["shape"] for tensor in examples.inputs):
        requests["example"] = [
            _Tensor(t["name"], t["datatype"], tuple(int(size) for size in t["shape"]), t["data"], t["name"])
            for t in examples.inputs
        ]
    if package.format == TEXT_CPU:
        plan = read_plan((package.root / "model" / "text.json").read_bytes())
        for bucket in plan.buckets:
            # Some rows: kernels for one row and for several are not the same. Few: a slow engine warms up for seconds, too.
            rows = max(1, min(WARM_ROWS, plan.batch_tokens // bucket))
            ids, lengths = [plan.pad_id] * (rows * bucket), [bucket] * rows
            requests[f"bucket-{bucket}"] = [
                _Tensor("IDS", "INT32", (len(ids),), ids, f"IDS.{bucket}"),
                _Tensor("LENGTHS", "INT32", (rows,), lengths, f"LENGTHS.{bucket}"),
            ]
    return requests


def raw_bytes(datatype: str, data: Any) -> bytes:
    """A tensor's binary form (Open Inference Protocol): little-endian numbers, or texts each behind its uint32 length."""
    if datatype == "BYTES":
        encoded = [item if isinstance(item, bytes) else str(item).encode() for item in data]
        return b"".join(struct.pack("<I", len(item)) + item for item in encoded)
    import numpy as np

    array = np.asarray(data, dtype=DATATYPES[datatype])
    return bytes(array.astype(array.dtype.newbyteorder("<")).tobytes())
