"""Run the harmless part of a slice on its own, to compare what it makes with what the kernel holds.

Only data takes part: builtin, of `collections`, arrays made of constants. Nothing of the user's runs, no attribute with an
underscore, and of imported modules only the constructors below. So a change that some function made behind the source's back
shows, whatever name it was made under.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import CodeType, SimpleNamespace
from typing import Any

from roblox_ml._capture._binding import MUTATING_METHODS
from roblox_ml._capture._live import Verdict, equal, is_data, is_plain
from roblox_ml._capture._standins import STAND_INS, stand_in
from roblox_ml._capture._statements import Alias, Statement
from roblox_ml._capture._tables import PURE_METHODS

_CALLS = frozenset(
    {
        "set",
        "frozenset",
        "list",
        "dict",
        "tuple",
        "len",
        "sorted",
        "int",
        "float",
        "str",
        "bool",
        "range",
        "enumerate",
        "zip",
    }
    | {"min", "max", "sum", "abs", "round", "any", "all", "reversed", "divmod", "chr", "ord"}
)
_NODES = (
    ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Expr, ast.Delete, ast.For, ast.If, ast.Pass,
    ast.Constant, ast.List, ast.Tuple, ast.Dict, ast.Set, ast.Name, ast.Attribute, ast.Subscript, ast.Slice, ast.Call,
    ast.keyword, ast.UnaryOp, ast.BinOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.JoinedStr, ast.FormattedValue, ast.Starred,
    ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.comprehension, ast.NamedExpr,
    ast.expr_context, ast.unaryop, ast.operator, ast.boolop, ast.cmpop,
)  # fmt: skip
_COSTLY = (ast.Pow, ast.LShift)
_CONSTRUCTORS: Mapping[str, frozenset[str]] = {
    "collections": frozenset({"Counter", "OrderedDict", "defaultdict", "deque"}),
    "types": frozenset({"SimpleNamespace"}),
    "copy": frozenset({"copy", "deepcopy"}),
    "json": frozenset({"loads", "dumps"}),
    "math": frozenset({"sqrt", "floor", "ceil", "pi", "e", "inf", "nan", "log", "exp"}),
    "numpy": frozenset(
        {"arange", "array", "asarray", "eye", "full", "linspace", "logspace", "ones", "zeros"}
        | {"bool_", "float32", "float64", "inf", "int32", "int64", "nan", "pi", "uint8"}
    ),
}
"""Of these modules, these names: they make data that code can change in place."""


def verify_literal(statements: Iterable[Statement], name: str, value: object) -> Verdict:
    """Whether literal assignments and literal changes of `name` alone make `value`."""
    if not is_plain(value):
        return "unknown"
    scope, _ = rebuild((statement, statement.mutates | {name}) for statement in statements)
    if name not in scope:
        return "unknown"
    same = _same(scope[name], value)
    return "unknown" if same is None else "same" if same else "different"


def rebuild(statements: Iterable[tuple[Statement, Iterable[str]]]) -> tuple[dict[str, Any], set[str]]:
    """Run what is harmless of `statements`, each with the names whose objects it changes.

    Returns the resulting values, and the names that something else had a hand in (their values cannot be told).
    """
    scope: dict[str, Any] = {}
    unknown: set[str] = set()
    makers: set[str] = set()
    classes: set[str] = set()
    for statement, changes in statements:
        maker = _maker(statement.alias)
        makers -= statement.binds
        classes -= statement.binds
        bag = stand_in(statement.node, scope) if statement.kind == "classdef" else None
        if bag is not None:
            kept = {
                name for name in statement.now & scope.keys() if not isinstance(scope[name], int | float | str | bytes)
            }
            unknown = (unknown | kept) - statement.binds  # the class may keep, and later change, what it read
            for name in kept:
                del scope[name]
            scope.update(dict.fromkeys(statement.binds, bag))
            classes |= statement.binds
            continue
        if statement.alias is not None and maker is not None:
            makers.add(statement.alias.bound)
            scope[statement.alias.bound] = maker
            continue
        changed = frozenset(changes) - statement.binds
        reads = (statement.now | statement.maybe | changed) - _CALLS - makers
        names = statement.binds | changed
        known = all(name in scope or name in statement.binds for name in reads) and not reads & unknown
        if known and _harmless(statement.node, frozenset(makers | classes)) and _run(statement.text, scope):
            unknown -= statement.binds
            continue
        # It may keep, and later change, whatever it read.
        unknown |= names | (reads & scope.keys())
        for name in unknown & scope.keys():
            del scope[name]
    return {name: value for name, value in scope.items() if name not in makers}, unknown


def _maker(alias: Alias | None) -> Any:
    """What an import brings that may be called here: a constructor, or a module reduced to its constructors."""
    if alias is None or alias.module not in _CONSTRUCTORS:
        return None
    module, names = sys.modules.get(alias.module), _CONSTRUCTORS[alias.module]
    if module is None:
        return None
    if alias.name is None:
        return SimpleNamespace(**{name: getattr(module, name) for name in names if hasattr(module, name)})
    return getattr(module, alias.name, None) if alias.name in names else None


def _run(text: str, scope: dict[str, Any]) -> bool:
    try:
        exec(_compiled(text), scope)  # noqa: S102 - harmless by construction
    except Exception:  # whatever it is: no comparison can be made
        return False
    scope.pop("__builtins__", None)
    return True


@lru_cache(maxsize=1024)
def _compiled(text: str) -> CodeType:
    return compile(text, "<rebuild>", "exec", dont_inherit=True)


@lru_cache(maxsize=8192)
def _harmless(node: ast.stmt, makers: frozenset[str]) -> bool:
    for inner in ast.walk(node):
        if not isinstance(inner, _NODES) or isinstance(inner, _COSTLY):
            return False
        if isinstance(inner, ast.Attribute) and inner.attr.startswith("_"):
            return False
        if isinstance(inner, ast.Call) and not _known_call(inner.func, makers):
            return False
        if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store) and inner.id in _CALLS:
            return False
    return True


def _known_call(func: ast.expr, makers: frozenset[str]) -> bool:
    if isinstance(func, ast.Name):
        return func.id in _CALLS or func.id in makers
    if not isinstance(func, ast.Attribute):
        return False
    of_module = isinstance(func.value, ast.Name) and func.value.id in makers
    return of_module or func.attr in PURE_METHODS or func.attr in MUTATING_METHODS


def differences(scope: Mapping[str, Any], namespace: Mapping[str, Any]) -> list[str]:
    """Names whose rebuilt value is not the live one."""
    shared = sorted(
        name for name in scope if name in namespace and (is_data(namespace[name]) or isinstance(scope[name], STAND_INS))
    )
    return [name for name in shared if _same(scope[name], namespace[name]) is False]


def _same(left: object, right: object) -> bool | None:
    try:
        return equal(left, right)
    except (RecursionError, TypeError, ValueError):  # a list that contains itself, an element without equality
        return None
