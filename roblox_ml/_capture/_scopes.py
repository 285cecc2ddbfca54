"""Which names a piece of source reads: at once when it runs, or later when a function it defines is called.

`symtable` is the compiler's own scope analysis, so comprehensions, nested functions, class bodies, `global` and `nonlocal`
are right by construction. Only class bodies need help: `b = a` in one reads the global `a` unless the body bound it before.
"""

from __future__ import annotations

import ast
import symtable
from collections.abc import Iterator
from dataclasses import dataclass

_COMPREHENSIONS = frozenset({"listcomp", "setcomp", "dictcomp", "genexpr"})
FunctionNode = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(slots=True)
class Reads:
    """Global names of one statement: read at once, perhaps read at once, read later, assigned later through `global`."""

    now: set[str]
    maybe: set[str]
    later: set[str]
    assigned_later: set[str]


def reads_of(text: str, node: ast.stmt) -> Reads:
    """The global names `text` (one top-level statement, parsed as `node`) reads and, through `global`, assigns."""
    found = Reads(set(), set(), set(), set())
    top = symtable.symtable(text, "<statement>", "exec")
    found.now.update(symbol.get_name() for symbol in top.get_symbols() if symbol.is_referenced())
    for child in top.get_children():
        _descend(child, found, later=False)
    _class_bodies(node, found.maybe)
    return found


def _descend(table: symtable.SymbolTable, found: Reads, *, later: bool) -> None:
    if table.get_type() == "function" and table.get_name() not in _COMPREHENSIONS:
        later = True
    for symbol in table.get_symbols():
        if symbol.is_global():
            if symbol.is_referenced():
                (found.later if later else found.now).add(symbol.get_name())
            if later and symbol.is_assigned():
                found.assigned_later.add(symbol.get_name())
    for child in table.get_children():
        _descend(child, found, later=later)


def _class_bodies(node: ast.stmt, maybe: set[str]) -> None:
    """Add the globals that class bodies read under a name they bind only afterwards (`size = size`)."""
    for inner in immediate_nodes(node):
        if not isinstance(inner, ast.ClassDef):
            continue
        bound: set[str] = set()
        every = {n.id for n in immediate_nodes(inner) if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)}
        for statement in inner.body:
            names = [n for n in immediate_nodes(statement) if isinstance(n, ast.Name)]
            maybe |= ({n.id for n in names if isinstance(n.ctx, ast.Load)} & every) - bound
            bound |= {n.id for n in names if not isinstance(n.ctx, ast.Load)}


def immediate_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes that run when `node` runs: everything but the bodies of functions and lambdas."""
    stack: list[ast.AST] = [node]
    while stack:
        current = stack.pop()
        yield current
        if isinstance(current, FunctionNode):
            arguments = current.args
            stack += current.decorator_list
            stack += arguments.defaults
            stack += [default for default in arguments.kw_defaults if default is not None]
            stack += annotations_of(current)
        elif isinstance(current, ast.Lambda):
            stack += current.args.defaults
            stack += [default for default in current.args.kw_defaults if default is not None]
        else:
            for (
                name
            ) in current._fields:  # ast.iter_child_nodes, without its generators: this is where parsing spends its time
                value = getattr(current, name, None)
                if isinstance(value, ast.AST):
                    stack.append(value)
                elif isinstance(value, list):
                    stack.extend(item for item in value if isinstance(item, ast.AST))


def later_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes inside function and lambda bodies of `node`: what runs when they are called."""
    for inner in immediate_nodes(node):
        if isinstance(inner, FunctionNode):
            for statement in inner.body:
                yield from ast.walk(statement)
        elif isinstance(inner, ast.Lambda):
            yield from ast.walk(inner.body)


def annotations_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.expr]:
    """The annotations of a function's parameters and of its return value."""
    arguments = node.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    found = [argument.annotation for argument in every if argument is not None and argument.annotation is not None]
    return found + ([node.returns] if node.returns is not None else [])


def root_name(node: ast.AST) -> str | None:
    """`a` of `a.b[0].c`; None when the chain does not start at a name."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def dotted_name(node: ast.AST) -> tuple[str, ...] | None:
    """`("np", "random", "seed")` of `np.random.seed`; None for anything but a chain of attributes on a name."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return (node.id, *reversed(parts)) if isinstance(node, ast.Name) else None
