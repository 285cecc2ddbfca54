"""Who an experiment is for: conditions over a request's context. Total: no context can make a condition fail.

`{"country": {"in": ["DE", "FR"]}, "age": {"gte": 13}}` holds when every condition of every attribute does. An attribute that is
missing, or of another type than the condition's value, fulfils nothing but `{"exists": false}` when it is missing.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["OPERATORS", "Condition", "holds", "read_targeting"]

#: (attribute, operator, value)
Condition = tuple[str, str, Any]

_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "lt": operator.lt,
    "lte": operator.le,
    "gt": operator.gt,
    "gte": operator.ge,
}
OPERATORS = ("eq", "ne", "in", "not_in", *_ORDER, "exists", "prefix")


def read_targeting(document: Any) -> tuple[Condition, ...]:
    """The conditions of a targeting document, by attribute and operator.

    Raises:
        ValueError: says what cannot be understood.
    """
    if not isinstance(document, Mapping):
        raise ValueError(f"targeting is {_shown(document)}, not an object of attribute to conditions")
    found: list[Condition] = []
    for attribute, conditions in sorted(document.items()):
        if not isinstance(conditions, Mapping) or not conditions:
            raise ValueError(f'targeting.{attribute} is {_shown(conditions)}; write {{"in": ["DE", "FR"]}} or the like')
        for name, value in sorted(conditions.items()):
            found.append((str(attribute), name, _checked(f"targeting.{attribute}.{name}", name, value)))
    return tuple(found)


def holds(conditions: tuple[Condition, ...], context: Mapping[str, Any]) -> bool:
    """Whether every condition does."""
    return all(_one(context.get(attribute), name, value) for attribute, name, value in conditions)


def _checked(where: str, name: str, value: Any) -> Any:
    if name not in OPERATORS:
        raise ValueError(f"{where}: there is no such operator; there are {', '.join(OPERATORS)}")
    if name in ("in", "not_in"):
        if not isinstance(value, list | tuple) or not value or not all(_kind(one) for one in value):
            raise ValueError(f"{where} is {_shown(value)}; give a list of texts, numbers or booleans")
        return tuple(value)
    if name == "exists":
        wanted = isinstance(value, bool)
    elif name == "prefix":
        wanted = isinstance(value, str)
    elif name in _ORDER:
        wanted = _kind(value) in ("number", "text")
    else:
        wanted = _kind(value) is not None
    if not wanted:
        raise ValueError(f"{where} is {_shown(value)}, which {name} cannot compare with")
    return value


def _one(given: Any, name: str, value: Any) -> bool:
    if name == "exists":
        return (given is not None) is value
    kind = _kind(given)
    if kind is None:
        return False
    if name in _ORDER:
        return kind == _kind(value) and _ORDER[name](given, value)
    if name == "prefix":
        return kind == "text" and given.startswith(value)
    if name in ("in", "not_in"):
        return any(_same(given, kind, one) for one in value) is (name == "in")
    return kind == _kind(value) and (given == value) is (name == "eq")


def _same(given: Any, kind: str, value: Any) -> bool:
    return kind == _kind(value) and bool(given == value)


def _kind(value: Any) -> str | None:
    """`True` is not the number 1: JSON keeps them apart, Python would not."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else None


def _shown(value: Any) -> str:
    return repr(value)[:80]
