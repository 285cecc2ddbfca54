"""What calling a function or class of the notebook does to state that outlives the call. Pure, one definition at a time.

A decorator's inner function runs when the decorated one is called, not when it decorates; so changes are kept by depth: 1 is the
function's own body, 2 a function inside it, and so on.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from roblox_ml._capture import _binding as _b
from roblox_ml._capture._marks import Mark, marks
from roblox_ml._capture._scopes import FunctionNode, immediate_nodes, later_nodes

CLOSURE = ""
"""Stands, among changed names, for variables of an enclosing function: state that nobody outside can see."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Of one definition. `deep` maps depths to the names changed there; `params` are those of the function or of `__init__`.

    `changed` are its local roots whose objects change, `passes` hands them on; `methods` are a class's methods, `changing` those
    that change their object. `watches`: making a subclass runs code of this class. `own_state`: a default value is filled by calls.
    """

    deep: Mapping[int, frozenset[str]]
    params: tuple[str, ...]
    changed: frozenset[str]
    passes: frozenset[tuple[str, int | str, str]]
    marks: frozenset[Mark]
    methods_called: frozenset[tuple[str, str]]
    methods: frozenset[str] = frozenset()
    changing: frozenset[str] = frozenset()
    watches: bool = False
    own_state: bool = False


def summarize(node: ast.stmt, inner: list[ast.AST], changed: set[str]) -> Summary:
    """The summary of a statement whose function bodies consist of the nodes `inner` and change the local roots `changed`."""
    deep: dict[int, frozenset[str]] = {}
    params: tuple[str, ...] = ()
    methods: frozenset[str] = frozenset()
    changing: frozenset[str] = frozenset()
    watches = own_state = False
    if isinstance(node, FunctionNode):
        if any(isinstance(part, (*FunctionNode, ast.Lambda)) for part in inner):
            deep = _by_depth(node)
        params = _params(node)
        filled = {name for name, default in _defaults(node) if not isinstance(default, ast.Constant | ast.Name)}
        own_state = bool(filled & changed)
    elif isinstance(node, ast.ClassDef):
        functions = [part for part in node.body if isinstance(part, FunctionNode)]
        methods = frozenset(function.name for function in functions)
        changing = frozenset(function.name for function in functions if _changes_first(function))
        params = next((_params(function)[1:] for function in functions if function.name == "__init__"), ())
        watches = "__init_subclass__" in methods or any(getattr(base, "id", "") == "type" for base in node.bases)
    return Summary(
        deep, params, frozenset(changed), frozenset(_b.passed(inner)), marks(inner), frozenset(_b.methods_called(inner)),
        methods, changing, watches, own_state,
    )  # fmt: skip


def _params(node: ast.FunctionDef | ast.AsyncFunctionDef) -> tuple[str, ...]:
    given = node.args
    return tuple(a.arg for a in [*given.posonlyargs, *given.args, *given.kwonlyargs])


def _defaults(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[tuple[str, ast.expr]]:
    given = node.args
    positional = [*given.posonlyargs, *given.args]
    yield from zip((a.arg for a in positional[len(positional) - len(given.defaults) :]), given.defaults, strict=True)
    yield from ((a.arg, d) for a, d in zip(given.kwonlyargs, given.kw_defaults, strict=True) if d is not None)


def _changes_first(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    inner = list(later_nodes(node))
    first = _params(node)[:1]
    return bool(first) and first[0] in _b.through_aliases(set(_b.mutated(inner)), set(_b.aliases(inner)))


def _by_depth(node: ast.FunctionDef | ast.AsyncFunctionDef) -> dict[int, frozenset[str]]:
    found: dict[int, set[str]] = {}
    _descend(node, 1, set(), found)
    return {depth: frozenset(names) for depth, names in found.items()}


def _descend(
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, depth: int, outer: set[str], found: dict[int, set[str]]
) -> None:
    body: Iterable[ast.AST] = [node.body] if isinstance(node, ast.Lambda) else node.body
    nodes = [inner for part in body for inner in immediate_nodes(part)]
    changed = _b.through_aliases(set(_b.mutated(nodes)), set(_b.aliases(nodes)))
    bound = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    bound |= {n.name for n in nodes if isinstance(n, (*FunctionNode, ast.ClassDef))}
    declared = {name for n in nodes if isinstance(n, ast.Nonlocal) for name in n.names}
    global_names = {name for n in nodes if isinstance(n, ast.Global) for name in n.names}
    given = node.args
    own = {
        a.arg for a in [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg] if a is not None
    }
    own |= bound - declared - global_names
    here = found.setdefault(depth, set())
    here |= (changed - own) | (bound & global_names)
    if declared or (changed - own) & outer:
        here.add(CLOSURE)
    here -= outer - own
    for inner in nodes:
        if isinstance(inner, (*FunctionNode, ast.Lambda)):
            _descend(inner, depth + 1, outer | own, found)
