"""Run the harmless part of a slice on its own, to compare what it makes with what the kernel holds.

Only builtin data and harmless builtins take part: nothing of the user's, no import and no attribute with an underscore. So a
change that some function made behind the source's back shows, whatever name it was made under.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import CodeType
from typing import Any

from roblox_ml._capture._live import Verdict, equal, is_plain
from roblox_ml._capture._statements import Statement

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
    for statement, changes in statements:
        changed = frozenset(changes) - statement.binds
        reads = (statement.now | statement.maybe | changed) - _CALLS
        names = statement.binds | changed
        known = all(name in scope or name in statement.binds for name in reads) and not reads & unknown
        if known and _harmless(statement.node) and _run(statement.text, scope):
            unknown -= statement.binds
            continue
        # It may keep, and later change, whatever it read.
        unknown |= names | (reads & scope.keys())
        for name in unknown & scope.keys():
            del scope[name]
    return scope, unknown


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
def _harmless(node: ast.stmt) -> bool:
    for inner in ast.walk(node):
        if not isinstance(inner, _NODES) or isinstance(inner, _COSTLY):
            return False
        if isinstance(inner, ast.Attribute) and inner.attr.startswith("_"):
            return False
        if isinstance(inner, ast.Call):
            if isinstance(inner.func, ast.Name):
                if inner.func.id not in _CALLS:
                    return False
            elif not isinstance(inner.func, ast.Attribute):
                return False
        if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store) and inner.id in _CALLS:
            return False
    return True


def differences(scope: Mapping[str, Any], namespace: Mapping[str, Any]) -> list[str]:
    """Names whose rebuilt value is not the live one."""
    shared = sorted(name for name in scope if name in namespace and is_plain(namespace[name]))
    return [name for name in shared if _same(scope[name], namespace[name]) is False]


def _same(left: object, right: object) -> bool | None:
    try:
        return equal(left, right)
    except (RecursionError, TypeError, ValueError):  # a list that contains itself, an element without equality
        return None
