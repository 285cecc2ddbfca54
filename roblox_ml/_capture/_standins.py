"""Stand-ins for classes and records of the notebook, so that their values can be compared without running the user's code.

A class becomes a bag of the literals written into it, an instance a bag of its arguments. Attributes can be read and set on them, like
the statements of the slice do; what such a bag does not know it refuses to answer, and then nothing is compared.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any

from roblox_ml._capture._scopes import FunctionNode, dotted_name, immediate_nodes

_FACTORIES: Mapping[str, type] = {"list": list, "dict": dict, "set": set}
_RECORDS = frozenset({"dataclass", "define", "frozen", "s"})
_FIELD_OPTIONS = frozenset(
    {"default", "default_factory", "factory", "repr", "compare", "hash", "metadata", "description", "title"}
)
_OWN_CREATION = frozenset(
    {"__init__", "__new__", "__post_init__", "model_post_init", "__setattr__", "__getattr__", "__getattribute__"}
)


class Unknown:
    """A value nobody can tell; equal to anything."""


class _Bag:
    """Attributes and nothing else: what a real object would answer by methods of its own, a bag refuses to answer."""

    def _silent(self, *_: object) -> Any:
        raise TypeError("a stand-in has no behaviour")

    __eq__ = __bool__ = __str__ = __repr__ = __format__ = __lt__ = __hash__ = _silent


class Instance(_Bag):
    """An instance of a record, as attributes."""

    def __init__(self, kind: str, values: dict[str, Any]) -> None:
        self.__dict__.update(values)
        self.__dict__["__kind__"] = kind


class ClassStandIn(_Bag):
    """A class, as the literals of its body; calling it makes an `Instance` when it is a record."""

    def __init__(self, node: ast.ClassDef, scope: Mapping[str, Any]) -> None:
        self.__dict__["__kind__"] = node.name
        self.__dict__["__fields__"] = {}
        self.__dict__["__record__"] = _is_record(node)
        # A name the body mentions again, it may go on with: `names = []`, then a loop that fills it.
        counted = [n.id for part in node.body for n in immediate_nodes(part) if isinstance(n, ast.Name)]
        for part in node.body:
            if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
                self.__fields__[part.target.id] = part.value
            target = (
                part.targets[0]
                if isinstance(part, ast.Assign) and len(part.targets) == 1
                else getattr(part, "target", None)
            )
            value = getattr(part, "value", None)
            if isinstance(target, ast.Name) and value is not None and counted.count(target.id) == 1:
                known, made = _literal(value)
                if known:
                    self.__dict__[target.id] = made

    def __call__(self, *args: Any, **kwargs: Any) -> Instance:
        if not self.__dict__["__record__"] or len(args) > len(self.__fields__):
            raise TypeError("nothing is known of how this class makes instances")
        given = dict(zip(self.__fields__, args, strict=False)) | kwargs
        values = {name: given[name] if name in given else _default(node) for name, node in self.__fields__.items()}
        return Instance(self.__dict__["__kind__"], values)

    __fields__: dict[str, ast.expr | None]


def stand_in(node: ast.stmt, scope: Mapping[str, Any]) -> ClassStandIn | None:
    """The stand-in of a class whose attributes are what its body says; None when something else may have a hand in them."""
    if not isinstance(node, ast.ClassDef) or node.keywords:
        return None
    if any(dotted_name(base) is None for base in node.bases) or any(
        isinstance(scope.get(b.id), ClassStandIn) for b in node.bases if isinstance(b, ast.Name)
    ):
        return None  # a stand-in knows nothing of inheritance
    if any(isinstance(part, FunctionNode) and part.name in ("__init_subclass__", "__set_name__") for part in node.body):
        return None
    names = {name[-1] for d in node.decorator_list if (name := dotted_name(d.func if isinstance(d, ast.Call) else d))}
    if len(names) != len(node.decorator_list) or not names <= _RECORDS:
        return None
    bases = {name[-1] for base in node.bases if (name := dotted_name(base))}
    if bases - {"object", "BaseModel"}:
        return None  # enums, named tuples and foreign bases make something else of a class body
    return ClassStandIn(node, scope)


def _is_record(node: ast.ClassDef) -> bool:
    """Whether instances hold their arguments as they are given: no code on creation, no fields of a special kind."""
    for part in node.body:
        if isinstance(part, FunctionNode) and (
            part.name in _OWN_CREATION or "validator" in _words(part.decorator_list)
        ):
            return False
        if isinstance(part, ast.Assign) and any(
            getattr(target, "id", "") in ("model_config", "Config") for target in part.targets
        ):
            return False
        if isinstance(part, ast.AnnAssign):
            special = ("ClassVar", "InitVar", "KW_ONLY")
            if any(word in ast.unparse(part.annotation) for word in special) or getattr(
                part.target, "id", "_"
            ).startswith("_"):
                return False
            if isinstance(part.value, ast.Call) and any(k.arg not in _FIELD_OPTIONS for k in part.value.keywords):
                return False
    base = {name[-1] for b in node.bases if (name := dotted_name(b))}
    return bool(node.decorator_list) or "BaseModel" in base


def _words(nodes: list[ast.expr]) -> str:
    return " ".join(ast.unparse(node) for node in nodes)


def _literal(node: ast.expr) -> tuple[bool, Any]:
    try:
        return True, ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False, None


def _default(node: ast.expr | None) -> Any:
    """A field's default value: a literal, `field(default_factory=list)`, or unknown."""
    if node is None:
        return Unknown()
    known, made = _literal(node)
    if known:
        return made
    if isinstance(node, ast.Call):
        for keyword in node.keywords:
            if keyword.arg in ("default_factory", "factory") and isinstance(keyword.value, ast.Name):
                factory = _FACTORIES.get(keyword.value.id)
                if factory is not None:
                    return factory()
            if keyword.arg == "default":
                known, made = _literal(keyword.value)
                return made if known else Unknown()
    return Unknown()


STAND_INS = (Unknown, Instance, ClassStandIn)


def same_shape(left: Any, right: Any, equal: Callable[[Any, Any], bool]) -> bool:
    """Whether `right`, of the kernel, is what the stand-in `left` stands for; `equal` compares what they hold."""
    if isinstance(left, Unknown):
        return True
    if isinstance(left, Instance):
        if type(right).__name__ != left.__dict__["__kind__"]:
            return False
        coerces = any(base.__name__ == "BaseModel" for base in type(right).__mro__)  # pydantic may make 1.0 of 1
        for name, value in vars(left).items():
            if name == "__kind__":
                continue
            live = getattr(right, name, Unknown)
            if live is Unknown or not (
                equal(value, live) or (coerces and type(value) is not type(live) and _loosely(value, live))
            ):
                return False
        return True
    if type(right) is not type and not any(b.__name__ == "BaseModel" for b in getattr(right, "__mro__", ())):
        return True  # no plain class: another may rightly have made something else of it
    held = vars(right)
    named = ((name, value) for name, value in vars(left).items() if not name.startswith("__"))
    return all(equal(value, held[name]) for name, value in named if _is_value(held.get(name, Unknown)))


def _is_value(live: Any) -> bool:
    """Whether an attribute of a live class is a value, not a descriptor that a record decorator put there."""
    return live is not Unknown and not isinstance(live, FunctionType | property) and not hasattr(type(live), "__get__")


def _loosely(value: Any, live: Any) -> bool:
    if isinstance(value, int | float | str) and isinstance(live, int | float | str):
        return str(value) == str(live) or value == live
    return True
