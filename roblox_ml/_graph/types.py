"""What may flow between steps: parameter types (JSON values) and artifact types (directories by reference).

An annotation becomes one of two small records; everything that asks "does this fit there" asks here, so the rules are
said once: an int fits a float, a Dataset fits an Artifact, a list of unknown items fits any list, nothing else bends.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union

from .._artifacts import Artifact

__all__ = ["ArtifactType", "ParameterType", "Type", "UnsupportedType", "fits", "is_namedtuple", "parse", "to_constant"]

_SCALARS: Mapping[type, str] = {int: "NUMBER_INTEGER", float: "NUMBER_DOUBLE", str: "STRING", bool: "BOOLEAN"}
_PYTHON_NAMES = {**{kfp: py.__name__ for py, kfp in _SCALARS.items()}, "LIST": "list", "STRUCT": "dict"}
# Numbers travel as JSON doubles in KFP's protobuf, which hold integers exactly up to here.
_EXACT_INTEGER = 2**53


@dataclass(frozen=True, slots=True)
class ParameterType:
    """A JSON value. `kfp` is KFP's name; `item` the type of a list's items or a dict's values where it is known."""

    kfp: str
    item: ParameterType | None = None

    def __str__(self) -> str:
        name = _PYTHON_NAMES[self.kfp]
        if self.item is None:
            return name
        return f"dict[str, {self.item}]" if self.kfp == "STRUCT" else f"list[{self.item}]"


@dataclass(frozen=True, slots=True)
class ArtifactType:
    """A directory with metadata, passed by reference. `many` = a list of them (only as an input, to fan in)."""

    kfp: str
    many: bool = False

    def __str__(self) -> str:
        name = "rml." + self.kfp.removeprefix("system.")
        return f"list[{name}]" if self.many else name


Type = ParameterType | ArtifactType


class UnsupportedType(Exception):
    """An annotation that cannot cross between steps. `fix` says what to write instead."""

    def __init__(self, shown: str, fix: str) -> None:
        super().__init__(shown)
        self.shown = shown
        self.fix = fix


def parse(annotation: Any) -> tuple[Type, bool]:
    """(type, may be None) of an annotation; raises UnsupportedType."""
    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if origin in (Union, types.UnionType):
        rest = [a for a in arguments if a is not type(None)]
        if len(rest) == 1 and len(rest) < len(arguments):
            return parse(rest[0])[0], True
        raise UnsupportedType(_shown(annotation), "use one type (or `T | None = None`); a union cannot be checked")
    if origin is typing.Annotated:
        return parse(arguments[0])
    if origin is Literal:
        members = {type(a) for a in arguments}
        if len(members) == 1 and (only := members.pop()) in _SCALARS:
            return ParameterType(_SCALARS[only]), False
        raise UnsupportedType(_shown(annotation), "use literals of one type")
    if isinstance(annotation, type) and issubclass(annotation, Artifact):
        return ArtifactType(annotation.SCHEMA_TITLE), False
    if annotation in _SCALARS:
        return ParameterType(_SCALARS[annotation]), False
    if annotation is list or origin in (list, Sequence):
        return _list(arguments), False
    if annotation is dict or origin in (dict, Mapping):
        return _dict(annotation, arguments), False
    raise UnsupportedType(_shown(annotation), _advice(annotation))


def _list(arguments: tuple[Any, ...]) -> Type:
    if not arguments or arguments[0] is Any:
        return ParameterType("LIST")
    item, optional = parse(arguments[0])
    if isinstance(item, ArtifactType):
        if item.many:
            raise UnsupportedType(f"list[{item}]", "use a list of artifacts, one level deep")
        return ArtifactType(item.kfp, many=True)
    return ParameterType("LIST", None if optional else item)


def _dict(annotation: Any, arguments: tuple[Any, ...]) -> ParameterType:
    if len(arguments) != 2 or arguments[1] is Any:
        return ParameterType("STRUCT")
    if arguments[0] is not str:
        raise UnsupportedType(_shown(annotation), "use dict[str, …]: the keys of a JSON object are strings")
    try:
        value, optional = parse(arguments[1])
    except UnsupportedType:
        return ParameterType("STRUCT")
    if isinstance(value, ArtifactType):
        raise UnsupportedType(_shown(annotation), "pass artifacts one by one, or as list[…] from step.map")
    return ParameterType("STRUCT", None if optional else value)


def fits(given: Type, wanted: Type) -> bool:
    """Whether a value of type `given` may go where `wanted` is expected."""
    if isinstance(given, ArtifactType) and isinstance(wanted, ArtifactType):
        return given.many == wanted.many and wanted.kfp in (given.kfp, Artifact.SCHEMA_TITLE)
    if isinstance(given, ParameterType) and isinstance(wanted, ParameterType):
        if given.kfp != wanted.kfp:
            return given.kfp == "NUMBER_INTEGER" and wanted.kfp == "NUMBER_DOUBLE"
        return given.item is None or wanted.item is None or fits(given.item, wanted.item)
    return False


def to_constant(value: Any, wanted: ParameterType) -> Any:
    """The JSON form of a Python value for a parameter of this type; raises ValueError saying what is wrong."""
    kind = wanted.kfp
    if kind == "BOOLEAN" and isinstance(value, bool):
        return value
    if kind == "STRING" and isinstance(value, str):
        return _string(value)
    if kind == "NUMBER_INTEGER" and isinstance(value, int) and not isinstance(value, bool):
        return _integer(value)
    if kind == "NUMBER_DOUBLE" and isinstance(value, int | float) and not isinstance(value, bool):
        return _finite(float(value))
    if kind == "LIST" and isinstance(value, list | tuple) and not is_namedtuple(type(value)):
        return [_json(v) if wanted.item is None else to_constant(v, wanted.item) for v in value]
    if kind == "STRUCT" and isinstance(value, Mapping):
        return {_key(k): _json(v) if wanted.item is None else to_constant(v, wanted.item) for k, v in value.items()}
    raise ValueError(f"{_brief(value)} is {_a(type(value).__name__)}, not {_a(str(wanted))}")


def _json(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, float):
        return _finite(value)
    if isinstance(value, list | tuple):
        return [_json(v) for v in value]
    if isinstance(value, Mapping):
        return {_key(k): _json(v) for k, v in value.items()}
    raise ValueError(f"{_brief(value)} ({type(value).__name__}) is no JSON value")


def _integer(value: int) -> int:
    if abs(value) > _EXACT_INTEGER:
        raise ValueError(f"{value} is beyond 2**53 and would lose digits: KFP carries numbers as doubles; pass a str")
    return int(value)


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"{value} has no JSON form; use None or a flag")
    return value


def _string(value: str) -> str:
    # KFP's driver and launcher substitute these wherever they stand, also inside a constant.
    if "{{$" in value:
        raise ValueError("the text contains '{{$', which KFP would replace by something else")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("the text contains half a character (a lone surrogate), which no file can hold") from None
    return value


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise ValueError(f"{_brief(key)} is used as a key; the keys of a JSON object are strings")
    return key


def is_namedtuple(kind: Any) -> bool:
    """Whether `kind` is a NamedTuple class."""
    return isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields")


def _shown(annotation: Any) -> str:
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return annotation.__qualname__
    return str(annotation).replace("typing.", "")


def _advice(annotation: Any) -> str:
    module = getattr(annotation, "__module__", "") or ""
    if module.startswith(("pandas", "polars", "pyarrow", "datasets")):
        return "pass it as rml.Dataset: write it with rml.Dataset.from_pandas(frame), read it with data.to_pandas()"
    if module.startswith(("torch", "transformers", "sklearn", "onnx")):
        return "pass it as rml.Model: rml.Model.from_transformers / from_sklearn / from_onnx / from_python"
    if module.startswith(("pathlib", "io")):
        return "pass files as rml.Dataset or rml.Artifact and use their .path"
    if annotation in (tuple, set) or typing.get_origin(annotation) in (tuple, set, frozenset):
        return "use list[…] (several outputs are a NamedTuple)"
    return "use int, float, str, bool, list, dict, or an artifact (rml.Dataset, rml.Model, rml.Metrics, …)"


def _brief(value: Any, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _a(noun: str) -> str:
    return f"an {noun}" if noun[:1] in "aeiou" else f"a {noun}"
