"""Parameters between JSON and Python, by the function's annotations.

JSON through protobuf has a single number type, a double: an int arrives as `3` in one place and as `3.0` in another.
So the annotation decides, and where it says nothing about items (`list`, `dict`), integral numbers are ints: the rule
that makes the local executor, `kfp.local` and a cluster hand the same values to the same step.
"""

from __future__ import annotations

import collections.abc
import json
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["from_json", "hints_of", "integral", "is_list", "is_optional", "to_json"]

# As `to_json` writes what JSON has no number for.
_NOT_FINITE = ("nan", "inf", "-inf")
_LISTS = (list, tuple, collections.abc.Sequence)


def hints_of(function: Callable[..., Any]) -> Mapping[str, Any]:
    """The annotations with strings resolved; those that cannot be are left out."""
    try:
        return typing.get_type_hints(function)
    except Exception:  # a name only imported for type checking, say: the values then pass as they are
        return {k: v for k, v in getattr(function, "__annotations__", {}).items() if not isinstance(v, str)}


def is_optional(hint: Any) -> bool:
    """Whether None is a value of this type."""
    return hint is None or (_is_union(hint) and type(None) in typing.get_args(hint))


def is_list(hint: Any) -> bool:
    """Whether the type is a list (or an optional one)."""
    hint = _required(hint)
    return hint in _LISTS or typing.get_origin(hint) in _LISTS


def from_json(value: Any, hint: Any) -> Any:
    """A JSON value as the annotated type; a value that does not fit is passed as it is (compiling has checked)."""
    hint = _required(hint)
    if value is None or hint is str:
        return value if value is None or isinstance(value, str) else json.dumps(value)
    if hint is bool and isinstance(value, int | float):
        return bool(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is float and value in _NOT_FINITE:
        return float(value)
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and (is_list(hint) or _is_dict(hint)):
        value = json.loads(value)
    arguments = typing.get_args(hint)
    if isinstance(value, list):
        item = arguments[0] if arguments and is_list(hint) else None
        return [integral(v) if item in (None, Any) else from_json(v, item) for v in value]
    if isinstance(value, dict):
        item = arguments[1] if len(arguments) == 2 and _is_dict(hint) else None
        return {k: integral(v) if item in (None, Any) else from_json(v, item) for k, v in value.items()}
    return value


def integral(value: Any) -> Any:
    """The value with every whole number in it as an int."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [integral(v) for v in value]
    if isinstance(value, dict):
        return {k: integral(v) for k, v in value.items()}
    return value


def to_json(value: Any, where: str) -> Any:
    """A returned value as plain JSON: NumPy scalars and arrays unwrapped, tuples as lists; else TypeError names it."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        # JSON has no NaN and protobuf refuses it; the text keeps the information.
        return float(value) if math.isfinite(value) else repr(float(value))
    if isinstance(value, Mapping):
        return {_key(k, where): to_json(v, f"{where}[{k!r}]") for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        ordered = sorted(value, key=repr) if isinstance(value, set | frozenset) else value
        return [to_json(v, f"{where}[{i}]") for i, v in enumerate(ordered)]
    for method in ("item", "tolist", "isoformat"):
        convert = getattr(value, method, None)
        if callable(convert):
            try:
                return to_json(convert(), where)
            except (TypeError, ValueError):
                continue
    raise TypeError(
        f"{where} is a {type(value).__module__}.{type(value).__qualname__}, which is not a JSON value. "
        "Return numbers, text, lists and dicts; put anything else into files of an rml.Dataset or rml.Model"
    )


def _key(key: Any, where: str) -> str:
    if isinstance(key, str):
        return key
    # Never turned into text here: whoever reads `value[1]` behind this step would find "1", and {1: …, "1": …} would lose one.
    raise TypeError(
        f"{where} has the key {key!r} ({type(key).__qualname__}); the keys of a JSON object are text. "
        "Make them text ({str(key): value for key, value in d.items()}), or return a list of pairs"
    )


def _required(hint: Any) -> Any:
    """`T | None` → `T`; `Annotated[T, …]` → `T`."""
    if typing.get_origin(hint) is typing.Annotated:
        return _required(typing.get_args(hint)[0])
    if _is_union(hint):
        rest = [a for a in typing.get_args(hint) if a is not type(None)]
        return _required(rest[0]) if len(rest) == 1 else None
    return hint


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _is_dict(hint: Any) -> bool:
    return hint is dict or typing.get_origin(hint) in (dict, collections.abc.Mapping)
