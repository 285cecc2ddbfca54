"""Which state outside its own names a piece of code may touch: settings, module attributes, random numbers. Pure syntax.

A mark is a way of touching and a dotted path as written; imports are resolved later, where the code stands. Functions have marks too: a
call of them touches what they touch.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from roblox_ml._capture._binding import MUTATING_METHODS, SETTERS
from roblox_ml._capture._scopes import dotted_name


@dataclass(frozen=True, slots=True)
class Mark:
    """`call`: a function is called; `store`: an attribute or item of the path is set, or its object changed in place.

    `absolute` paths start at a module (a function's own import, a magic); the others at a name of the notebook.
    """

    how: Literal["call", "store"]
    path: tuple[str, ...]
    absolute: bool = False


CALLED = "()"
"""Part of a path where something was called: `decimal.getcontext().prec` is `decimal.getcontext.().prec`."""


def path_of(node: ast.AST) -> tuple[str, ...] | None:
    """Like `dotted_name`, through items and calls: `decimal.getcontext().prec`, `plt.rcParams["x"]`."""
    parts: list[str] = []
    while True:
        if isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        elif isinstance(node, ast.Subscript):
            node = node.value
        elif isinstance(node, ast.Call):
            parts.append(CALLED)
            node = node.func
        else:
            break
    return (node.id, *reversed(parts)) if isinstance(node, ast.Name) else None


def marks(nodes: Iterable[ast.AST]) -> frozenset[Mark]:
    """Everything the nodes touch or may touch."""
    nodes = list(nodes)
    own = _imports(nodes)
    found: set[Mark] = set()
    for how, path in _raw(nodes):
        target = own.get(path[0])
        found.add(Mark(how, (*target.split("."), *path[1:]), True) if target else Mark(how, path))
    return frozenset(found)


def _raw(nodes: Iterable[ast.AST]) -> Iterator[tuple[Literal["call", "store"], tuple[str, ...]]]:
    for node in nodes:
        if isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
            if path := path_of(node):
                yield "store", path
        elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            yield "store", (node.target.id,)
        elif isinstance(node, ast.Call):
            yield from _call(node)


def _call(node: ast.Call) -> Iterator[tuple[Literal["call", "store"], tuple[str, ...]]]:
    name = dotted_name(node.func)
    if name is not None:
        yield "call", name
    if name in (("setattr",), ("delattr",)) and node.args and (root := path_of(node.args[0])):
        yield "store", (*root, *_literal(node.args[1:2]))
    if (
        isinstance(node.func, ast.Attribute)
        and node.func.attr in MUTATING_METHODS | SETTERS
        and (path := path_of(node.func.value))
    ):
        yield "store", path


def _literal(arguments: list[ast.expr]) -> Iterator[str]:
    for node in arguments:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _imports(nodes: Iterable[ast.AST]) -> dict[str, str]:
    found: dict[str, str] = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            for item in node.names:
                found[item.asname or item.name.partition(".")[0]] = (
                    item.name if item.asname else item.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for item in node.names:
                found[item.asname or item.name] = f"{node.module}.{item.name}"
    return found


@dataclass(frozen=True, slots=True)
class Touch:
    """State outside the notebook's names that a statement changes: a setting, a draw of random numbers, a module's attribute."""

    path: str
    kind: Literal["set", "draw", "store"]
    through: str = ""  # the function of the notebook in which it happens
    call: str = ""  # the function of a local module that does it

    @property
    def group(self) -> str:
        """What belongs together: the generator a seed and its draws share, else the path itself."""
        return generator_of(self.path) or self.path

    @property
    def top(self) -> str:
        return self.path.partition(".")[0]


GENERATORS = ("numpy.random", "random")
_NO_DRAW = frozenset(
    {
        "Random",
        "SystemRandom",
        "Generator",
        "RandomState",
        "default_rng",
        "getstate",
        "get_state",
        "SeedSequence",
        "PCG64",
    }
)


@lru_cache(maxsize=4096)
def generator_of(path: str) -> str | None:
    """`random` or `numpy.random` for a function that seeds or draws from the generator all code shares."""
    for generator in GENERATORS:
        if (
            path.startswith(generator + ".")
            and "." not in (last := path[len(generator) + 1 :])
            and last not in _NO_DRAW
        ):
            return generator
    return None
