"""The output tensors of a v2 answer as numpy arrays: REST with JSON, REST with binary tensors, gRPC.

Tolerant where the text endpoint's request reader is strict: these answers come from model servers, and an answer that cannot be
read is a finding about the shadow, not a client's mistake.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError
from roblox_ml_core.package.signature import DATATYPES
from tritonclient.grpc import service_pb2 as v2

__all__ = ["Tensor", "Unreadable", "read_answer"]

_LENGTH = struct.Struct("<I")
#: Where protobuf keeps the values of a datatype when they are not raw bytes.
_CONTENTS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip


class Unreadable(ValueError):
    """The bytes are no v2 answer; the message says why."""


class Tensor(NamedTuple):
    """One output. BYTES are an object array of `bytes`."""

    datatype: str
    array: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape)


def read_answer(protocol: str, body: bytes, json_length: int | None = None) -> dict[str, Tensor]:
    """The answer's tensors by name. `json_length` is a REST answer's Inference-Header-Content-Length.

    Raises:
        Unreadable: it is no answer.
    """
    try:
        return _from_grpc(body) if protocol == "grpc" else _from_rest(body, json_length)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError, struct.error) as error:
        if isinstance(error, Unreadable):
            raise
        raise Unreadable(f"no v2 answer: {type(error).__name__}: {str(error)[:200]}") from error


def _from_rest(body: bytes, json_length: int | None) -> dict[str, Tensor]:
    position = len(body) if json_length is None else json_length
    if not 0 < position <= len(body):
        raise Unreadable(f"its JSON is said to have {position} of {len(body)} bytes")
    tree = json.loads(body[:position])
    if not isinstance(tree, Mapping) or "outputs" not in tree:
        said = tree.get("error") if isinstance(tree, Mapping) else None
        raise Unreadable(str(said)[:200] if said else "it has no outputs")
    found: dict[str, Tensor] = {}
    for entry in tree["outputs"]:
        datatype, shape = _described(entry["name"], entry["datatype"], entry["shape"])
        size = (entry.get("parameters") or {}).get("binary_data_size")
        if size is None:
            array = _from_list(entry["data"], datatype, shape)
        else:
            end = position + int(size)
            if not position <= end <= len(body):
                raise Unreadable(f"output {entry['name']!r} ends behind the body")
            array, position = _from_raw(body[position:end], datatype, shape), end
        found[str(entry["name"])] = Tensor(datatype, array)
    return found


def _from_grpc(message: bytes) -> dict[str, Tensor]:
    try:
        answer = v2.ModelInferResponse.FromString(message)
    except DecodeError as error:
        raise Unreadable(f"no ModelInferResponse: {error}") from error
    raw = answer.raw_output_contents
    if raw and len(raw) != len(answer.outputs):
        raise Unreadable(f"{len(raw)} raw contents for {len(answer.outputs)} outputs")
    found: dict[str, Tensor] = {}
    for number, output in enumerate(answer.outputs):
        datatype, shape = _described(output.name, output.datatype, list(output.shape))
        if raw:
            array = _from_raw(raw[number], datatype, shape)
        else:
            array = _from_list(list(getattr(output.contents, _CONTENTS[datatype])), datatype, shape)
        found[output.name] = Tensor(datatype, array)
    return found


def _described(name: object, datatype: str, shape: Sequence[int]) -> tuple[str, tuple[int, ...]]:
    if datatype not in DATATYPES:
        raise Unreadable(f"output {name!r} has datatype {datatype!r}, which is not compared")
    sizes = tuple(int(size) for size in shape)
    if any(size < 0 for size in sizes):
        raise Unreadable(f"output {name!r} has shape {list(sizes)}")
    return datatype, sizes


def _from_list(data: Any, datatype: str, shape: tuple[int, ...]) -> Any:
    flat = list(data)
    while any(isinstance(value, list) for value in flat):
        flat = [inner for value in flat for inner in (value if isinstance(value, list) else (value,))]
    if datatype == "BYTES":
        return _texts(
            [value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass") for value in flat],
            shape,
        )
    if datatype.startswith("FP"):  # JSON has no NaN: some servers write null
        flat = [float("nan") if value is None else float(value) for value in flat]
    return np.asarray(flat, dtype=DATATYPES[datatype]).reshape(shape)


def _from_raw(raw: bytes, datatype: str, shape: tuple[int, ...]) -> Any:
    if datatype != "BYTES":
        return np.frombuffer(raw, dtype=np.dtype(DATATYPES[datatype]).newbyteorder("<")).reshape(shape)
    found, position = [], 0
    while position < len(raw):
        (length,) = _LENGTH.unpack_from(raw, position)
        position += 4 + length
        if position > len(raw):
            raise Unreadable("a text ends behind its tensor")
        found.append(raw[position - length : position])
    return _texts(found, shape)


def _texts(found: list[bytes], shape: tuple[int, ...]) -> Any:
    array: Any = np.empty(len(found), dtype=object)
    array[:] = found
    return array.reshape(shape)
