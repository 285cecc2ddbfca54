"""Python values to Open Inference Protocol tensors and back, the same for REST and gRPC.

Tensors travel as raw little-endian bytes both ways: exact for every float (NaN too, which JSON has not), and one code for
both protocols. The datatypes are the model's, asked from the endpoint, so that `[1, 2]` is what the model takes. Standard
library only; numpy and pandas are used where the caller brings them.
"""

from __future__ import annotations

import array
import html
import json
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

from .errors import RmlSdkError

__all__ = [
    "InputError",
    "Prediction",
    "Tensor",
    "encode",
    "from_grpc",
    "from_rest",
    "parameters_of",
    "to_grpc",
    "to_rest",
]

_CODES = {
    "BOOL": "B", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q", "INT8": "b", "INT16": "h", "INT32": "i",
    "INT64": "q", "FP32": "f", "FP64": "d",
}  # fmt: skip
_FLOATS = ("FP16", "FP32", "FP64")


class InputError(RmlSdkError):
    """The values do not fit the endpoint's inputs."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named array as it travels: `raw` is little-endian, row-major; BYTES elements carry a 4-byte length each."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    raw: bytes

    def values(self) -> list[Any]:
        """Nested lists of Python values (BYTES as str where it is UTF-8)."""
        return _nest(_unpack(self), self.shape)


class Prediction(Sequence[dict[str, Any]]):
    """The answer: one dict per row; `labels` and `scores` of classifiers; `outputs` by name; who answered.

    `scores` are in the order of the model's labels, one list per row. `arms` are the experiments' arms that the unit is in, `fallback`
    says that the champion answered because a challenger did not. `parameters` are what the answer says of itself.
    """

    def __init__(
        self,
        tensors: Sequence[Tensor],
        *,
        version: int | None,
        inference_id: str | None,
        arms: dict[str, str] | None = None,
        fallback: bool = False,
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        self.parameters = dict(parameters or {})
        self.arms = arms or {}
        self.fallback = fallback
        self.outputs: dict[str, list[Any]] = {tensor.name: tensor.values() for tensor in tensors}
        self.version = version
        self.inference_id = inference_id

    @property
    def labels(self) -> list[str]:
        """The predicted label per row."""
        labels: list[str] = self._output("label")
        return labels

    @property
    def scores(self) -> list[list[float]]:
        """The score of every label, per row."""
        scores: list[list[float]] = self._output("scores")
        return scores

    def __len__(self) -> int:
        return min((len(values) for values in self.outputs.values()), default=0)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(index, slice):
            return [self[n] for n in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        return {name: values[index] for name, values in self.outputs.items()}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[n] for n in range(len(self)))

    def __repr__(self) -> str:
        return repr(list(self))

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(name)}</th>" for name in self.outputs)
        rows = "".join(
            "<tr>" + "".join(f"<td>{html.escape(_short(value))}</td>" for value in row.values()) + "</tr>"
            for row in self[:50]
        )
        more = f"<p>and {len(self) - 50} more rows</p>" if len(self) > 50 else ""
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{more}<p>version {self.version}</p>"

    def _output(self, name: str) -> Any:
        if name not in self.outputs:
            raise AttributeError(f"this model has no output {name!r}; it has {', '.join(self.outputs) or 'none'}")
        return self.outputs[name]


def encode(inputs: Any, wanted: Sequence[Mapping[str, Any]]) -> list[Tensor]:
    """Tensors for the model's inputs (`wanted`: name, datatype, shape, as its metadata says).

    Takes a list (or array) for a model with one input, a mapping of input name to list or array, or a pandas DataFrame
    whose columns are the inputs or, for a model with one two-dimensional input, its features.

    Raises:
        InputError: names, shapes or values do not fit; the message says what the model takes.
    """
    given = _by_name(inputs, wanted)
    known = {str(entry["name"]): entry for entry in wanted}
    missing = sorted(set(known) - set(given))
    unknown = sorted(set(given) - set(known))
    if missing or unknown:
        problems = [f"missing {name!r}" for name in missing] + [f"unknown {name!r}" for name in unknown]
        raise InputError(
            f"the inputs do not fit the model: {', '.join(problems)}", why=_takes(wanted), fix=_example(wanted)
        )
    return [_tensor(name, given[name], known[name], wanted) for name in known]


def to_rest(tensors: Sequence[Tensor]) -> tuple[bytes, int]:
    """(body, length of its JSON part) of a v2 request with binary tensors."""
    described = [
        {
            "name": one.name,
            "datatype": one.datatype,
            "shape": list(one.shape),
            "parameters": {"binary_data_size": len(one.raw)},
        }
        for one in tensors
    ]
    head = json.dumps({"inputs": described, "parameters": {"binary_data_output": True}}, separators=(",", ":")).encode()
    return head + b"".join(one.raw for one in tensors), len(head)


def from_rest(body: bytes, head_length: int | None) -> list[Tensor]:
    """The output tensors of a v2 answer, binary or JSON."""
    end = len(body) if head_length is None else head_length
    position = end
    tensors = []
    for entry in json.loads(body[:end]).get("outputs", []):
        shape = tuple(int(size) for size in entry["shape"])
        size = entry.get("parameters", {}).get("binary_data_size")
        if size is None:
            raw = _pack(list(_flat(entry["data"])), entry["datatype"])
        else:
            raw, position = body[position : position + size], position + size
        tensors.append(Tensor(entry["name"], entry["datatype"], shape, raw))
    return tensors


def parameters_of(body: bytes, head_length: int | None) -> dict[str, Any]:
    """The parameters of a v2 answer as a whole."""
    found = json.loads(body[:head_length]).get("parameters")
    return found if isinstance(found, dict) else {}


def to_grpc(v2: Any, tensors: Sequence[Tensor]) -> Any:
    """A `ModelInferRequest` of the generated module `v2`, without a model's name."""
    described = [
        v2.ModelInferRequest.InferInputTensor(name=one.name, datatype=one.datatype, shape=one.shape) for one in tensors
    ]
    return v2.ModelInferRequest(inputs=described, raw_input_contents=[one.raw for one in tensors])


def from_grpc(response: Any) -> list[Tensor]:
    """The output tensors of a `ModelInferResponse` whose contents are raw, as Triton's and the door's are."""
    pairs = zip(response.outputs, response.raw_output_contents, strict=True)
    return [Tensor(output.name, output.datatype, tuple(output.shape), raw) for output, raw in pairs]


def said_by(response: Any) -> dict[str, Any]:
    """The parameters of a `ModelInferResponse`."""
    return {key: getattr(one, one.WhichOneof("parameter_choice")) for key, one in response.parameters.items()}


def _by_name(inputs: Any, wanted: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    one = str(wanted[0]["name"]) if len(wanted) == 1 else None
    columns = getattr(inputs, "columns", None)
    if columns is not None:  # a DataFrame
        names = [str(column) for column in columns]
        if one is not None and one not in names:
            return {one: inputs.to_numpy()}
        return {name: inputs[column] for name, column in zip(names, columns, strict=True)}
    if isinstance(inputs, Mapping):
        return {str(name): value for name, value in inputs.items()}
    if isinstance(inputs, str):
        raise InputError("a single text was given", why="a prediction takes a batch", fix=f"predict([{inputs[:40]!r}])")
    if one is None:
        raise InputError(f"the model has {len(wanted)} inputs", why=_takes(wanted), fix=_example(wanted))
    return {one: inputs}


def _tensor(name: str, value: Any, entry: Mapping[str, Any], wanted: Sequence[Mapping[str, Any]]) -> Tensor:
    datatype = str(entry["datatype"])
    value = value.to_numpy() if hasattr(value, "to_numpy") else value
    listed = value if _is_numeric_array(value) else (value.tolist() if hasattr(value, "tolist") else value)
    if isinstance(listed, str | bytes) or not (_is_numeric_array(listed) or isinstance(listed, Sequence)):
        raise InputError(
            f"input {name!r} is a {type(value).__name__}, not a list or array", why=_takes(wanted), fix=_example(wanted)
        )
    try:
        if _is_numeric_array(listed):
            shape, raw = tuple(listed.shape), listed.astype(_dtype(datatype), casting="same_kind").tobytes()
        else:
            shape, raw = _shape(listed), _pack(list(_flat(listed)), datatype)
    except (TypeError, ValueError, OverflowError, struct.error) as error:
        raise InputError(
            f"input {name!r} cannot become {datatype}: {error}", why=_takes(wanted), fix=_example(wanted)
        ) from None
    expected = tuple(int(size) for size in entry["shape"])
    if len(shape) != len(expected) or any(want not in (-1, have) for have, want in zip(shape, expected, strict=True)):
        raise InputError(
            f"input {name!r} has shape {list(shape)}, the model takes {list(expected)}", why="-1 is any size; the first is the batch",
            fix=_example(wanted),
        )  # fmt: skip
    return Tensor(name, datatype, shape, raw)


def _is_numeric_array(value: Any) -> bool:
    """Whether it is a numpy array of numbers, told without importing numpy."""
    return getattr(getattr(value, "dtype", None), "kind", "") in ("f", "i", "u", "b") and hasattr(value, "astype")


def _dtype(datatype: str) -> str:
    if datatype == "FP16":
        return "<f2"
    code = _code(datatype)
    if datatype == "BOOL":
        return "?"
    kind = "f" if datatype in _FLOATS else ("u" if code.isupper() else "i")
    return f"<{kind}{array.array(code).itemsize}"


def _shape(value: Any) -> tuple[int, ...]:
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        return ()
    inner = {_shape(item) for item in value}
    if len(inner) > 1:
        raise ValueError("its rows have different lengths")
    return (len(value), *(inner.pop() if inner else ()))


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        yield value
    else:
        for item in value:
            yield from _flat(item)


def _pack(values: list[Any], datatype: str) -> bytes:
    if datatype == "BYTES":
        encoded = [_text(value) for value in values]
        return b"".join(struct.pack("<I", len(text)) + text for text in encoded)
    if any(isinstance(value, str | bytes) for value in values):
        raise TypeError("it holds text")
    if datatype == "FP16":
        return struct.pack(f"<{len(values)}e", *values)
    packed = array.array(_code(datatype), [bool(value) for value in values] if datatype == "BOOL" else values)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def _text(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    raise TypeError(f"{value!r} is not text")


def _unpack(tensor: Tensor) -> list[Any]:
    raw, datatype = tensor.raw, tensor.datatype
    if datatype == "BYTES":
        values, position = [], 0
        while position < len(raw):
            (length,) = struct.unpack_from("<I", raw, position)
            item = raw[position + 4 : position + 4 + length]
            position += 4 + length
            try:
                values.append(item.decode())
            except UnicodeDecodeError:
                values.append(item)  # type: ignore[arg-type]
        return values
    if datatype == "FP16":
        return list(struct.unpack(f"<{len(raw) // 2}e", raw))
    unpacked = array.array(_code(datatype))
    unpacked.frombytes(raw)
    if sys.byteorder == "big":
        unpacked.byteswap()
    return [bool(value) for value in unpacked] if datatype == "BOOL" else unpacked.tolist()


def _code(datatype: str) -> str:
    if datatype not in _CODES:
        raise TypeError(f"datatype {datatype} is not supported here; use a v2 client")
    return _CODES[datatype]


def _nest(flat: list[Any], shape: Sequence[int]) -> list[Any]:
    for size in reversed(shape[1:]):
        flat = [flat[start : start + size] for start in range(0, len(flat), size)] if size else []
    return flat


def _takes(wanted: Sequence[Mapping[str, Any]]) -> str:
    return "the model takes " + ", ".join(f"{one['name']} {one['datatype']} {list(one['shape'])}" for one in wanted)


def _example(wanted: Sequence[Mapping[str, Any]]) -> str:
    def sample(entry: Mapping[str, Any]) -> Any:
        value: Any = "text" if entry["datatype"] == "BYTES" else (0.5 if entry["datatype"] in _FLOATS else 1)
        for size in reversed(entry["shape"]):
            value = [value] * (1 if int(size) < 0 else min(int(size), 3))
        return value

    if len(wanted) == 1:
        return f"predict({sample(wanted[0])!r})"
    return "predict({" + ", ".join(f"{one['name']!r}: {sample(one)!r}" for one in wanted) + "})"


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return "[" + ", ".join(_short(item) for item in value[:12]) + ("…]" if len(value) > 12 else "]")
    return str(value)
