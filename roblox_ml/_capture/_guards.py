"""What no name leads to and yet makes a step differ: the module's own name, the kernel as a module, files beside the notebook, caches.

Each guard looks over the chosen statements once and names the place that would lie.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from roblox_ml._capture import _findings_outside as _findings
from roblox_ml._capture._files import relative_reads
from roblox_ml._capture._index import END, Index, Placed
from roblox_ml._capture._scopes import dotted_name
from roblox_ml._capture._variants import is_main_guard
from roblox_ml.errors import Finding


def guard(index: Index, chosen: Iterable[int], namespace: Mapping[str, Any] | None, step: str) -> list[Finding]:
    """All findings of all guards over the statements at `chosen`."""
    found: list[Finding] = []
    for position in sorted(chosen):
        placed = index.placed[position]
        if placed.statement.alias is None:
            found += _own_module(placed, step)
            if namespace is not None:
                found += _cache(index, placed, position, namespace, step)
        elif placed.statement.alias.target == "__main__":
            found.append(_findings.kernel_module(step, *_at(placed), placed.statement.node))
    if namespace is not None:
        for placed, node, path in relative_reads(index, chosen):
            found.append(_findings.relative_file(path, step, *_at(placed), node))
    return list(dict.fromkeys(found))


def _at(placed: Placed) -> tuple[Any, tuple[int, ...]]:
    return placed.cell, placed.statement.lines


def _own_module(placed: Placed, step: str) -> Iterator[Finding]:
    """`__name__` and `__main__` mean the kernel here and the shipped module there; subclasses are whatever memory holds."""
    for node in _suspects(placed.statement.node):
        if isinstance(node, ast.Name):
            yield _findings.own_name(step, *_at(placed), node)
        elif isinstance(node, ast.Attribute):
            yield _findings.subclasses(step, *_at(placed), node)
        else:
            yield _findings.kernel_module(step, *_at(placed), node)


@lru_cache(maxsize=8192)
def _suspects(statement: ast.stmt) -> tuple[ast.AST, ...]:
    if is_main_guard(statement):
        return ()
    logger_names: set[int] = set()
    found: list[ast.AST] = []
    for node in ast.walk(statement):
        if isinstance(node, ast.Name):
            if node.id == "__name__" and id(node) not in logger_names:
                found.append(node)
        elif isinstance(node, ast.Attribute):
            if node.attr == "__subclasses__":
                found.append(node)
        elif isinstance(node, ast.Call):
            if (name := dotted_name(node.func)) and name[-1] == "getLogger":
                logger_names |= {id(argument) for argument in node.args}
        elif _means_kernel(node):
            found.append(node)
    return tuple(found)


def _means_kernel(node: ast.AST) -> bool:
    if isinstance(node, ast.Import):
        return any(item.name == "__main__" for item in node.names)
    if isinstance(node, ast.ImportFrom):
        return node.module == "__main__"
    return isinstance(node, ast.Constant) and node.value == "__main__"


def _cache(index: Index, placed: Placed, position: int, namespace: Mapping[str, Any], step: str) -> Iterator[Finding]:
    """A warm `lru_cache` answers from before: harmless, unless what its function reads has changed since."""
    if not isinstance(placed.statement.node, ast.FunctionDef) or not placed.statement.node.decorator_list:
        return
    name = placed.statement.node.name
    info = getattr(namespace.get(name), "cache_info", None)
    try:
        warm = callable(info) and info().currsize > 0
    except Exception:  # somebody else's `cache_info`
        return
    if not warm or position not in index.binders(name, END):
        return
    for read in sorted(_read_by(index, name)):
        later = [p for p in [*index.all_binders(read), *index.mutators(read, position, END)] if p > position]
        later += [
            p
            for p, found in index.touches.items()
            if p > position and _of_module(index, read) in {t.top for t in found}
        ]
        if later and read != name:
            changed = index.placed[min(later)]
            where = changed.cell.where(changed.statement.lines[0])
            yield _findings.warm_cache(name, read, where, step, *_at(placed), placed.statement.node)
            return


def _of_module(index: Index, name: str) -> str | None:
    alias = index.alias(name, END)
    return alias.target.partition(".")[0] if alias is not None else None


def _read_by(index: Index, function: str) -> set[str]:
    found: set[str] = set()
    for name in index.calls.reach(function):
        for position in index.all_binders(name):
            found |= index.placed[position].statement.later
    return found
