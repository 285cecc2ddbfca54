"""Whether calling a function or class of the notebook can hand out anything that lasts.

`x = lagged(series); x.append(1)` changes what `lagged` returned. That matters only if `lagged` returned something it keeps: a global
list, a default value, an attribute. A function that reads nothing but functions, modules and immutable values keeps nothing, and
what is done to its results cannot be felt by a later call. Decided by the live objects; in doubt the answer is that it can.
"""

from __future__ import annotations

import ast
import builtins
import dis
import re
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

_IMMUTABLE = (
    BuiltinFunctionType,
    int,
    float,
    complex,
    str,
    bytes,
    bool,
    type(None),
    range,
    slice,
    re.Pattern,
    type(Ellipsis),
    ModuleType,
)
_GENERATED = ("__dataclass_fields__", "__dataclass_params__")


def keeps_nothing(value: object, node: ast.stmt) -> bool:
    """Whether no call of `value`, made by `node`, a `def` or `class` of the notebook, can hand out or keep what outlives it."""
    if isinstance(value, type):
        return isinstance(node, ast.ClassDef) and _as_written(value, node) and _harmless(value, set())
    return isinstance(value, FunctionType) and _harmless(value, set())


def _as_written(kind: type, node: ast.ClassDef) -> bool:
    """Whether the class has the attributes of its body, with their values, and no others: nothing was set on it since."""
    methods = {part.name for part in node.body if isinstance(part, ast.FunctionDef)}
    values: dict[str, ast.expr | None] = {}
    for part in node.body:
        if isinstance(part, ast.Assign):
            values |= {target.id: part.value for target in part.targets if isinstance(target, ast.Name)}
        elif isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
            values[part.target.id] = part.value
        elif not isinstance(part, ast.FunctionDef | ast.Pass | ast.Expr):
            return False
    for name, live in vars(kind).items():
        if name.startswith("__") and name not in methods:
            if isinstance(live, FunctionType) and not _generated(live):
                return False  # put there by somebody's statement
            continue
        if name in methods:
            function = getattr(live, "fget", None) or getattr(live, "__func__", None) or live
            if not isinstance(function, FunctionType) or function.__code__.co_qualname != f"{node.name}.{name}":
                return False
        elif name in values:
            try:
                written = ast.literal_eval(values[name] or ast.Constant(None))
            except (ValueError, TypeError):
                return False
            if type(written) is not type(live) or written != live:
                return False
        elif name != "_abc_impl":
            return False
    return True


def _harmless(value: Any, seen: set[int]) -> bool:
    if id(value) in seen or isinstance(value, _IMMUTABLE):
        return True
    seen.add(id(value))
    if isinstance(value, tuple | frozenset):
        return all(_harmless(item, seen) for item in value)
    if isinstance(value, FunctionType):
        return _function(value, seen)
    if isinstance(value, type):
        return _class(value, seen)
    # A step is its function; calling it here is calling that.
    inner = getattr(value, "function", None) if getattr(type(value), "__rml_step__", False) else None
    return isinstance(inner, FunctionType) and _harmless(inner, seen)


def _function(function: FunctionType, seen: set[int]) -> bool:
    if function.__module__ != "__main__":
        return True  # an imported function's state is its module's, which has a rule of its own
    if any(name != "__wrapped__" for name in vars(function)) or _assigns_outside(function.__code__):
        return False
    held: list[Any] = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    try:
        held += [cell.cell_contents for cell in function.__closure__ or ()]
    except ValueError:  # a cell that is not filled yet
        return False
    for name in _names(function.__code__):
        if name in function.__globals__:
            held.append(function.__globals__[name])
        elif name == "globals" and hasattr(builtins, name):
            return False
    return all(_harmless(item, seen) for item in held)


def _names(code: CodeType) -> set[str]:
    """Global names (and, harmlessly, attributes) that a function and the functions in it mention."""
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= _names(constant)
    return found


def _generated(function: FunctionType) -> bool:
    """Whether the standard library wrote it: what `@dataclass` adds keeps nothing that a caller gets."""
    return function.__code__.co_filename.endswith(("<string>", "dataclasses.py", "functools.py", "reprlib.py"))


def _assigns_outside(code: CodeType) -> bool:
    """Whether it binds a global or a variable of an enclosing function anew: a counter needs no mutable object."""
    stores = ("STORE_GLOBAL", "DELETE_GLOBAL", "STORE_DEREF", "DELETE_DEREF")
    for instruction in dis.get_instructions(code):
        if instruction.opname in stores and (
            instruction.opname.endswith("GLOBAL") or instruction.argval in code.co_freevars
        ):
            return True
    return any(_assigns_outside(inner) for inner in code.co_consts if isinstance(inner, CodeType))


def _class(kind: type, seen: set[int]) -> bool:
    if kind.__module__ != "__main__":
        return True
    if type(kind) is not type and type(kind).__module__ == "__main__":
        return False  # a metaclass of the notebook may keep what it likes
    for name, value in vars(kind).items():
        if name in _GENERATED or (name.startswith("__") and not isinstance(value, FunctionType)):
            continue
        if name.startswith("__") and isinstance(value, FunctionType) and _generated(value):
            continue
        parts = [value]
        if isinstance(value, property):
            parts = [part for part in (value.fget, value.fset, value.fdel) if part is not None]
        elif isinstance(value, classmethod | staticmethod):
            parts = [value.__func__]
        elif type(value).__module__ in ("_abc", "types"):
            continue
        if name == "_abc_impl":
            continue
        if not all(_harmless(part, seen) for part in parts):
            return False
    return all(_harmless(base, seen) for base in kind.__bases__)
