"""Statements apart: one name of a star import, what is left of one that ended with an exception, a main guard, one run again."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

from roblox_ml._capture import _binding as _b
from roblox_ml._capture._marks import marks
from roblox_ml._capture._scopes import immediate_nodes
from roblox_ml._capture._statements import Alias, Statement, node_holds_statements

_IMMUTABLE = (
    ast.Constant,
    ast.Tuple,
    ast.UnaryOp,
    ast.BinOp,
    ast.JoinedStr,
    ast.Name,
    ast.Compare,
    ast.BoolOp,
    ast.Load,
)


@lru_cache(maxsize=4096)
def starred(statement: Statement, name: str) -> Statement:
    """The import of one name that `from module import *` made."""
    assert statement.alias is not None
    module = statement.alias.module
    node = ast.copy_location(ast.ImportFrom(module=module, names=[ast.alias(name)], level=0), statement.node)
    binds = frozenset({name})
    alias = Alias(module, name, name, False)
    return Statement(node, ast.unparse(node), statement.lines, "from", binds=binds, certain=binds, alias=alias)


@lru_cache(maxsize=1024)
def interrupted(statement: Statement) -> Statement | None:
    """What is left of a statement that ended with an exception: it may have changed something, and bound nothing for certain.

    A simple statement binds as its last act, so it bound nothing; None when it can have left no trace at all.
    """
    node = statement.node
    whole = node_holds_statements(node)
    binds = statement.binds if whole else frozenset()
    mutates, touched = statement.mutates, statement.marks
    if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign | ast.Delete):  # storing is the last act, too
        inner = list(immediate_nodes(node.value)) if not isinstance(node, ast.Delete) and node.value is not None else []
        mutates, touched = frozenset(_b.mutated(inner)), marks(inner)
    if not (whole or mutates or touched or statement.calls or statement.registers or statement.methods_called):
        return None
    return replace(
        statement,
        kind="interrupted",
        binds=binds,
        certain=frozenset(),
        mutates=mutates,
        marks=touched,
        fragile=dict(statement.fragile) if whole else {},
        alias=None,
        aliases=frozenset(),
        augments=frozenset(),
        bare=None,
        summary=None,
    )


def mentions(statement: Statement) -> frozenset[str]:
    source = statement.bare or statement
    return source.now | source.later | source.maybe | source.soft | source.binds


def star_names(statement: Statement, mentioned: frozenset[str]) -> Iterator[Statement]:
    """One import for each name that the notebook mentions and the star brought; the star itself when its module is not loaded."""
    alias = statement.alias
    module = sys.modules.get(alias.module) if alias is not None else None
    if module is None:
        yield statement
        return
    public = getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]
    for name in sorted(mentioned.intersection(public)):
        yield starred(statement, name)


def is_main_guard(node: ast.stmt) -> bool:
    """`if __name__ == "__main__":`"""
    return (
        isinstance(node, ast.If)
        and isinstance(node.test, ast.Compare)
        and isinstance(node.test.left, ast.Name)
        and node.test.left.id == "__name__"
    )


def rebinds_alike(statement: Statement) -> bool:
    """Whether binding again cannot be told from not binding again, identity included."""
    if statement.kind in ("import", "from"):
        return True
    if statement.kind == "functiondef":  # a class run again is another class: its instances and subclasses know
        return not statement.registers and not statement.calls
    if isinstance(statement.node, ast.Assign | ast.AnnAssign) and statement.node.value is not None:
        kinds = [type(node) for node in ast.walk(statement.node.value)]
        plain = all(issubclass(kind, (*_IMMUTABLE, ast.operator, ast.unaryop)) for kind in kinds)
        return plain and not (ast.BinOp in kinds and ast.Name in kinds)
    return False
