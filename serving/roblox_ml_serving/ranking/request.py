"""What a client sent to a ranking endpoint: Open Inference Protocol v2, REST (JSON, binary tensors) and gRPC.

Whatever arrives, the outcome is a RankingRequest or a BadRequest whose sentence says what is wrong and what to send.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from struct import Struct
from typing import Any, NamedTuple, NoReturn

import numpy as np
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2 as v2

from .spec import MAX_CANDIDATES, RankingSpec
from .wire import Key

__all__ = ["BadRequest", "RankingRequest", "from_grpc", "from_rest"]

_OUTPUTS = ("ITEMS", "SCORES")
_SIZE = Struct("<I")
_MAX_KEY = 1024
_MAX_CONTEXT = 65_536
_EXAMPLE = (
    '{"inputs": [{"name": "USER", "datatype": "BYTES", "shape": [1], "data": ["u1"]}, '
    '{"name": "CANDIDATES", "datatype": "INT64", "shape": [2], "data": [11, 12]}]}'
)


class BadRequest(ValueError):
    """The client's mistake, in a sentence for the client."""


class RankingRequest(NamedTuple):
    """`candidates` are different from each other, in the order they came in; `user` empty: nobody in particular."""

    id: str
    user: bytes
    candidates: tuple[Key, ...]
    context: Mapping[str, Any]
    outputs: tuple[str, ...]  # those wanted, in the order wanted
    binary: frozenset[str]  # of these, the ones to answer as binary tensors (REST; gRPC always does)


class _Tensor(NamedTuple):
    """As it came: `values` or `raw`."""

    name: str
    datatype: str
    shape: list[int]
    values: Sequence[Any] | None
    raw: bytes | None


def from_rest(body: bytes, json_length: int | None, spec: RankingSpec) -> RankingRequest:
    """Read a REST body. `json_length` is the Inference-Header-Content-Length, None without one."""
    if json_length is not None and not 0 < json_length <= len(body):
        _bad(f"Inference-Header-Content-Length is {json_length}: it must lie in 1..{len(body)}, the size of this body")
    head, tail = (body, b"") if json_length is None else (body[:json_length], body[json_length:])
    try:
        tree = json.loads(head)
    except (ValueError, RecursionError) as error:
        _bad(f"the body is not JSON ({str(error)[:80]}); send {_EXAMPLE}")
    if not isinstance(tree, dict) or not isinstance(tree.get("inputs"), list):
        _bad(f"the body must be an object with inputs: {_EXAMPLE}")
    tensors, at = [], 0
    for entry in tree["inputs"]:
        tensor, at = _rest_tensor(entry, tail, at)
        tensors.append(tensor)
    if at != len(tail):
        _bad(f"{len(tail) - at} bytes follow the inputs' binary data: give each its binary_data_size")
    wanted, binary = _wanted(tree)
    identity = tree.get("id", "")
    if not isinstance(identity, str):
        _bad("id must be a string")
    return _request(identity, tensors, wanted, binary, spec)


def from_grpc(message: bytes, spec: RankingSpec) -> RankingRequest:
    """Read a ModelInferRequest."""
    try:
        request = v2.ModelInferRequest.FromString(message)
    except DecodeError:
        _bad("the message is no inference.ModelInferRequest: send one that a protobuf library serialised")
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        _bad(f"raw_input_contents has {len(raw)} entries for {len(request.inputs)} inputs: send one for each, in order")
    tensors = []
    for place, tensor in enumerate(request.inputs):
        field = "int64_contents" if tensor.datatype == "INT64" else "bytes_contents"
        values = None if raw else list(getattr(tensor.contents, field))
        shape = list(tensor.shape)
        tensors.append(_Tensor(tensor.name, tensor.datatype, shape, values, raw[place] if raw else None))
    wanted = [output.name for output in request.outputs]
    return _request(request.id, tensors, wanted, frozenset(_OUTPUTS), spec)


def _request(
    identity: str, tensors: Sequence[_Tensor], wanted: Sequence[Any], binary: Iterable[str], spec: RankingSpec
) -> RankingRequest:
    types = {"USER": "BYTES", "CANDIDATES": spec.candidates, "CONTEXT": "BYTES"}
    found: dict[str, list[Any]] = {}
    for tensor in tensors:
        if tensor.name not in types:
            _bad(f"there is no input {_shown(tensor.name)}: a ranking takes USER, CANDIDATES and, if it likes, CONTEXT")
        if tensor.name in found:
            _bad(f"input {tensor.name} is there twice")
        found[tensor.name] = _values(tensor, types[tensor.name])
    if missing := [name for name in ("USER", "CANDIDATES") if name not in found]:
        _bad(f"{' and '.join(missing)} missing: {_EXAMPLE}")
    if len(found["USER"]) != 1:
        _bad(f"USER holds {len(found['USER'])} ids: a request ranks for one, shape [1]")
    if len(found["CANDIDATES"]) > MAX_CANDIDATES:
        _bad(f"CANDIDATES holds {len(found['CANDIDATES'])} ids, more than {MAX_CANDIDATES}: retrieve fewer first")
    unknown = [name for name in wanted if name not in _OUTPUTS]
    if unknown:
        _bad(f"there is no output {_shown(unknown[0])}: a ranking answers ITEMS and SCORES")
    outputs = tuple(dict.fromkeys(wanted)) or _OUTPUTS
    candidates = tuple(dict.fromkeys(found["CANDIDATES"]))
    return RankingRequest(
        identity, found["USER"][0], candidates, _context(found.get("CONTEXT")), outputs, frozenset(binary)
    )


def _context(values: Sequence[bytes] | None) -> Mapping[str, Any]:
    if not values:
        return {}
    if len(values) > 1 or len(values[0]) > _MAX_CONTEXT:
        _bad(f"CONTEXT must be one JSON object of at most {_MAX_CONTEXT} bytes")
    if not values[0]:
        return {}
    try:
        tree = json.loads(values[0])
    except (ValueError, RecursionError):
        tree = None
    if not isinstance(tree, dict):
        _bad('CONTEXT is no JSON object; send {"hour": 17}')
    return tree


def _rest_tensor(entry: Any, tail: bytes, at: int) -> tuple[_Tensor, int]:
    if not isinstance(entry, dict):
        _bad(f"every entry of inputs must be an object: {_EXAMPLE}")
    name, datatype = entry.get("name"), entry.get("datatype")
    shape = entry.get("shape")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        _bad(f"shape of input {_shown(name)} is {_shown(shape)}: it must be [number of values]")
    parameters = entry.get("parameters") or {}
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if size is not None:
        if "data" in entry:
            _bad(f"input {_shown(name)} has both data and binary_data_size: send its values once")
        if type(size) is not int or not 0 <= size <= len(tail) - at:
            _bad(f"binary_data_size of input {_shown(name)} is {_shown(size)}, but {len(tail) - at} bytes are left")
        return _Tensor(str(name), str(datatype), shape, None, tail[at : at + size]), at + size
    data = entry.get("data")
    if not isinstance(data, list):
        _bad(f"input {_shown(name)} has neither a list in data nor parameters.binary_data_size: {_EXAMPLE}")
    return _Tensor(str(name), str(datatype), shape, data, None), at


def _values(tensor: _Tensor, datatype: str) -> list[Any]:
    """Texts as UTF-8, or integers."""
    if tensor.datatype != datatype:
        _bad(f"datatype of input {tensor.name} is {_shown(tensor.datatype)}: this model takes {datatype}")
    if len(tensor.shape) != 1:
        _bad(f"shape of input {tensor.name} is {tensor.shape}: it must have one dimension")
    count = tensor.shape[0]
    if count > 10 * MAX_CANDIDATES:
        _bad(f"input {tensor.name} holds {count} values: retrieve fewer first")
    if tensor.raw is not None:
        values = _raw_integers(tensor.raw) if datatype == "INT64" else _raw_texts(tensor.name, tensor.raw, count)
    elif datatype == "INT64":
        values = list(tensor.values or ())
        if not all(type(value) is int and -(2**63) <= value < 2**63 for value in values):
            _bad(f"input {tensor.name} holds what is no 64-bit integer")
    else:
        values = [_text(tensor.name, value) for value in tensor.values or ()]
    if len(values) != count:
        _bad(f"input {tensor.name} holds {len(values)} values, its shape says {count}: make shape [{len(values)}]")
    if (
        datatype == "BYTES"
        and tensor.name != "CONTEXT"
        and any(len(value) > _MAX_KEY for value in values if isinstance(value, bytes))
    ):
        _bad(f"input {tensor.name} holds an id of more than {_MAX_KEY} bytes")
    return values


def _text(name: str, value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        _bad(f"input {name} holds {_shown(value)}: every value must be a JSON string")
    try:
        return value.encode()
    except UnicodeEncodeError:  # replaced, it would be another one's id, and the answer would not name it
        _bad(f"input {name} holds half a surrogate pair, {_shown(value)}: that is no text")


def _raw_integers(raw: bytes) -> list[int]:
    if len(raw) % 8:
        _bad(f"{len(raw)} bytes are no 64-bit integers")
    listed: list[int] = np.frombuffer(raw, "<i8").tolist()
    return listed


def _raw_texts(name: str, raw: bytes, count: int) -> list[bytes]:
    """Each behind its length in four bytes, little-endian."""
    found: list[bytes] = []
    at = 0
    while at < len(raw) and len(found) < count:
        start = at + _SIZE.size
        at = start + _SIZE.unpack_from(raw, at)[0] if start <= len(raw) else len(raw) + 1
        if at > len(raw):
            _bad(f"the binary data of input {name} ends inside value {len(found)}: each follows its length, 4 bytes")
        found.append(raw[start:at])
    if at < len(raw):
        _bad(f"{len(raw) - at} bytes follow the {count} values of input {name}")
    return found


def _wanted(tree: Mapping[str, Any]) -> tuple[list[Any], set[str]]:
    """Names of the outputs asked for, and those to be binary."""
    outputs = tree.get("outputs") or []
    if not isinstance(outputs, list) or not all(isinstance(entry, dict) for entry in outputs):
        _bad('outputs must be a list like [{"name": "ITEMS"}]; leave it out for all')
    parameters = tree.get("parameters") or {}
    if not outputs and isinstance(parameters, dict) and parameters.get("binary_data_output") is True:
        return [], set(_OUTPUTS)
    binary = set()
    for entry in outputs:
        parameters = entry.get("parameters") or {}
        if isinstance(parameters, dict) and parameters.get("binary_data") is True:
            binary.add(str(entry.get("name")))
    return [entry.get("name") for entry in outputs], binary


def _shown(value: object) -> str:
    return repr(value)[:60].encode("utf-8", "replace").decode()


def _bad(sentence: str) -> NoReturn:
    raise BadRequest(sentence)
