"""What a client sent to a text endpoint: Open Inference Protocol v2, REST (JSON, binary tensors) and gRPC, to texts.

Whatever arrives, the outcome is a TextRequest or a BadRequest whose sentence says what is wrong and what to send. Where
Triton would take the same request, so does this: an endpoint's clients must not notice who reads their bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from struct import Struct
from typing import Any, NamedTuple, NoReturn

from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2 as v2

__all__ = ["INPUT", "MAX_TEXTS", "OUTPUTS", "BadRequest", "TextRequest", "from_grpc", "from_rest"]

INPUT = "TEXT"
#: What a text model answers, by task, in the order of its signature.
OUTPUTS: Mapping[str, tuple[str, ...]] = {"sequence": ("label", "scores"), "token": ("entities",)}
#: A body may hold millions of empty texts; this many rows are work for minutes already.
MAX_TEXTS = 100_000

_SIZE = Struct("<I")
_EXAMPLE = f'{{"inputs": [{{"name": "{INPUT}", "datatype": "BYTES", "shape": [2], "data": ["a text", "another"]}}]}}'


class BadRequest(ValueError):
    """The client's mistake, in a sentence for the client."""


class TextRequest(NamedTuple):
    id: str
    texts: tuple[bytes, ...]
    outputs: tuple[str, ...]  # those wanted, in the order wanted
    binary: frozenset[str]  # of these, the ones to answer as binary tensors (REST; gRPC always does)


def from_rest(body: bytes, json_length: int | None = None, outputs: Sequence[str] = OUTPUTS["sequence"]) -> TextRequest:
    """Read a REST body. `json_length` is the Inference-Header-Content-Length, None without one; `outputs` are the model's."""
    if json_length is None:
        head, tail = body, b""
    elif not 0 < json_length <= len(body):
        _bad(f"Inference-Header-Content-Length is {json_length}: it must lie in 1..{len(body)}, the size of this body")
    else:
        head, tail = body[:json_length], body[json_length:]
    tree = _object(_parse(head), "the request")
    identity = tree.get("id", "")
    if not isinstance(identity, str):
        _bad("id must be a string")
    all_binary = _flag(_parameters(tree, "the request"), "binary_data_output", "parameters", False)
    texts = _rest_texts(_only_input(tree.get("inputs"), "inputs"), tail)
    wanted = tree.get("outputs", [])
    if not isinstance(wanted, list):
        _bad('outputs must be a list like [{"name": "' + outputs[0] + '"}]; leave it out for all')
    names: list[str] = []
    binary: set[str] = set()
    for entry in wanted:
        name = _known(_object(entry, "every entry of outputs").get("name"), outputs)
        parameters = _parameters(entry, f"output {name!r}")
        _unsupported(parameters, f"output {name!r}")
        names.append(name)
        if _flag(parameters, "binary_data", f"output {name!r}", False):
            binary.add(name)
    if not names and all_binary:  # as in Triton: an output that is named says so itself
        binary.update(outputs)
    return TextRequest(_encodable(identity), texts, tuple(dict.fromkeys(names)) or tuple(outputs), frozenset(binary))


def from_grpc(message: bytes, outputs: Sequence[str] = OUTPUTS["sequence"]) -> TextRequest:
    """Read a ModelInferRequest. `outputs` are the model's."""
    try:
        request = v2.ModelInferRequest.FromString(message)
    except DecodeError:
        _bad("the message is no inference.ModelInferRequest: send one that a protobuf library serialised")
    names = [tensor.name for tensor in request.inputs]
    _check_names(names, "inputs")
    tensor = request.inputs[0]
    count = _count(tensor.datatype, list(tensor.shape))
    _unsupported(tensor.parameters, f"input {INPUT!r}")
    raw = request.raw_input_contents
    if len(raw) > 1:
        _bad(f"raw_input_contents has {len(raw)} entries for one input: send one, in the order of inputs")
    if raw:
        if tensor.HasField("contents"):
            _bad(f"input {INPUT!r} has both contents and raw_input_contents: send one of them")
        texts = _from_raw(raw[0], count, "raw_input_contents")
    else:
        for field, _ in tensor.contents.ListFields():
            if field.name != "bytes_contents":
                _bad(f"input {INPUT!r} has {field.name}: texts go into bytes_contents, in UTF-8")
        texts = tuple(tensor.contents.bytes_contents)
        _same_count(len(texts), count)
    wanted = [_known(entry.name, outputs) for entry in request.outputs]
    for entry in request.outputs:
        _unsupported(entry.parameters, f"output {entry.name!r}")
    return TextRequest(request.id, texts, tuple(dict.fromkeys(wanted)) or tuple(outputs), frozenset(outputs))


def _parse(head: bytes) -> object:
    try:
        # Bytes that are no UTF-8 inside a text are that text's matter, as in a binary tensor.
        return json.loads(head.decode("utf-8", "replace"), object_pairs_hook=_pairs)
    except BadRequest:
        raise
    except RecursionError:
        _bad("the JSON is nested too deeply; texts go into a flat list: " + _EXAMPLE)
    except ValueError as error:
        if not head.strip():
            _bad("the body is empty; send " + _EXAMPLE)
        _bad(
            f"the body is not JSON ({error}); send {_EXAMPLE}, and Inference-Header-Content-Length if binary data follows it"
        )


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) != len(pairs):
        # Readers differ in which of two equal names they take.
        twice = sorted({name for name, _ in pairs if sum(other == name for other, _ in pairs) > 1})
        _bad(f"a JSON object has {_quoted(twice)} twice: give each name once")
    return tree


def _only_input(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, list):
        _bad(f"{where} must be a list of one tensor: {_EXAMPLE}")
    tensors = [_object(entry, f"every entry of {where}") for entry in value]
    _check_names([tensor.get("name") for tensor in tensors], where)
    return tensors[0]


def _check_names(names: Sequence[object], where: str) -> None:
    if not names:
        _bad(f"{where} names no tensor: the model takes {INPUT!r}: {_EXAMPLE}")
    unknown = [name for name in names if name != INPUT]
    if unknown:
        _bad(f"{where} names {_quoted(unknown)}: the model takes {INPUT!r} alone")
    if len(names) > 1:
        _bad(f"{where} names {INPUT!r} {len(names)} times: put all texts into one tensor of shape [number of texts]")


def _rest_texts(tensor: Mapping[str, Any], tail: bytes) -> tuple[bytes, ...]:
    count = _count(tensor.get("datatype"), tensor.get("shape"))
    parameters = _parameters(tensor, f"input {INPUT!r}")
    _unsupported(parameters, f"input {INPUT!r}")
    size = parameters.get("binary_data_size")
    if size is None:
        if tail:
            _bad(
                f"{len(tail)} bytes follow the JSON, but input {INPUT!r} has no binary_data_size: "
                "give it, or send the texts in data"
            )
        if "data" not in tensor:
            _bad(f"input {INPUT!r} has neither data nor parameters.binary_data_size: {_EXAMPLE}")
        return _json_texts(tensor["data"], count)
    if "data" in tensor:
        _bad(f"input {INPUT!r} has both data and binary_data_size: send the texts once")
    if isinstance(size, bool) or not isinstance(size, int) or size != len(tail):
        _bad(
            f"binary_data_size of input {INPUT!r} is {size!r}, but {len(tail)} bytes follow the JSON: give both sizes as they are "
            "(binary data needs Inference-Header-Content-Length)"
        )
    return _from_raw(tail, count, "the binary data")


def _json_texts(data: object, count: int) -> tuple[bytes, ...]:
    if not isinstance(data, list):
        _bad(f"data of input {INPUT!r} must be a list of strings")
    values: list[Any] = data
    while any(isinstance(value, list) for value in values):  # nested lists are flattened, as everywhere in v2
        values = [inner for value in values for inner in (value if isinstance(value, list) else (value,))]
    _same_count(len(values), count)
    for value in values:
        if not isinstance(value, str):
            _bad(f"data of input {INPUT!r} holds {_shown(value)}: every text must be a JSON string")
    return tuple(_encodable(value).encode() for value in values)


def _from_raw(raw: bytes, count: int, where: str) -> tuple[bytes, ...]:
    """Texts, each behind its length in four bytes, little-endian."""
    texts: list[bytes] = []
    position, end = 0, len(raw)
    while position < end and len(texts) < count:
        start = position + 4
        if start > end:
            _bad(
                f"{where} ends inside the length of text {len(texts)}: each text follows its length, 4 bytes little-endian"
            )
        position = start + _SIZE.unpack_from(raw, position)[0]
        if position > end:
            _bad(f"{where} says text {len(texts)} has {position - start} bytes, but {end - start} are left")
        texts.append(raw[start:position])
    if position < end:
        _bad(f"{where} has {end - position} bytes behind the {count} texts of its shape: make shape [number of texts]")
    _same_count(len(texts), count)
    return tuple(texts)


def _count(datatype: object, shape: object) -> int:
    if datatype != "BYTES":
        _bad(f"datatype of input {INPUT!r} is {_shown(datatype)}: it must be BYTES")
    if not isinstance(shape, list) or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in shape):
        _bad(f"shape of input {INPUT!r} is {_shown(shape)}: it must be [number of texts]")
    if len(shape) != 1:
        _bad(f"shape of input {INPUT!r} is {_shown(shape)}: it must have one dimension, [number of texts]")
    if shape[0] > MAX_TEXTS:
        _bad(f"{shape[0]} texts are more than one request may hold ({MAX_TEXTS}): send several requests")
    return int(shape[0])


def _same_count(found: int, said: int) -> None:
    if found != said:
        _bad(f"input {INPUT!r} holds {found} texts, its shape says {said}: make shape [{found}]")


def _known(name: object, outputs: Sequence[str]) -> str:
    if name not in outputs:
        _bad(f"the model has no output {_shown(name)}: it answers {_quoted(outputs)}")
    return str(name)


def _unsupported(parameters: Iterable[str], where: str) -> None:
    for name in parameters:
        if name.startswith("shared_memory"):
            _bad(f"{where} asks for shared memory, which this address does not offer: send and receive the data itself")
        if name == "classification":
            _bad(f"{where} asks for classification: read the outputs label and scores, which say the same")


def _parameters(tree: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    value = tree.get("parameters")
    return {} if value is None else _object(value, f"parameters of {where}")


def _flag(parameters: Mapping[str, Any], name: str, where: str, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        _bad(f"{name} of {where} is {_shown(value)}: it must be true or false")
    return value


def _object(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        _bad(f"{where} must be a JSON object: {_EXAMPLE}")
    return value


def _encodable(text: str) -> str:
    """JSON can hold half a surrogate pair, UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _shown(value: object) -> str:
    text = _encodable(repr(value))
    return text if len(text) <= 60 else text[:57] + "..."


def _quoted(names: Iterable[object]) -> str:
    shown = [_shown(name) for name in names]
    return ", ".join(shown[:5]) + (f" and {len(shown) - 5} more" if len(shown) > 5 else "")


def _bad(sentence: str) -> NoReturn:
    raise BadRequest(sentence)
