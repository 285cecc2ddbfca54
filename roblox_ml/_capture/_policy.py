"""Which statements may be repeated in a step: constant expressions of carried names, and little else.

The rule is about source, not about values: a step rebuilds its globals by running these statements again, so each must be
cheap and give the same result in any process. Functions return the first offence, or None. Pure.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from roblox_ml._capture._binding import MUTATING_METHODS, SETTERS, receiver_root
from roblox_ml._capture._marks import generator_of
from roblox_ml._capture._scopes import FunctionNode, dotted_name
from roblox_ml._capture._tables import (
    EFFECTS,
    IMPURE_LAST,
    ONE_SHOT,
    PURE_BUILTINS,
    PURE_FUNCTIONS,
    PURE_METHODS,
    PURE_PREFIXES,
    RECORD_BASES,
    RECORD_DECORATORS,
    RECORD_FACTORIES,
    SETTING_WORDS,
)

LITERAL_LIMIT = 64 * 1024
"""Longest source of one carried assignment, in bytes."""

COUNT_LIMIT = 100_000
"""Most elements a carried container may have."""

CHANGING_MODULES = ("heapq.", "bisect.insort")
"""Their functions change the container they are given, the same way everywhere."""

_CONTAINERS = (ast.List, ast.Dict, ast.Set, ast.Tuple)
_SIMPLE = (ast.Attribute, ast.Subscript, ast.Slice, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp,
           ast.JoinedStr, ast.FormattedValue, ast.Starred, ast.NamedExpr)  # fmt: skip
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp)


@dataclass(frozen=True, slots=True)
class Offence:
    """Why a statement cannot be repeated: a finding's code, the node, and the words for it."""

    code: str
    node: ast.AST
    what: str = ""


@dataclass(frozen=True, slots=True)
class Names:
    """How names resolve where a statement ran: to a dotted import, or to the statement of the source that bound them."""

    resolve: Callable[[tuple[str, ...]], str | None]
    bound_by: Callable[[str], ast.stmt | None]
    seeded: frozenset[str] = frozenset()

    def class_of(self, name: str) -> ast.ClassDef | None:
        node = self.bound_by(name)
        return node if isinstance(node, ast.ClassDef) else None

    def is_record(self, name: str) -> bool:
        """Whether `name` is a class whose instances only hold their arguments, written out or made by a factory."""
        node = self.bound_by(name)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            factory = dotted_name(node.value.func)
            return factory is not None and self.resolve(factory) in RECORD_FACTORIES
        return _is_record(node if isinstance(node, ast.ClassDef) else None, self)


def statement_offence(node: ast.stmt, names: Names, *, text: str = "") -> Offence | None:
    """The first reason why `node` cannot run in a step, None when it can."""
    if isinstance(node, ast.Import | ast.ImportFrom | ast.Pass | ast.Raise | ast.ClassDef | ast.Assert | ast.Global):
        return None
    if isinstance(node, FunctionNode):
        defaults = [*node.args.defaults, *(default for default in node.args.kw_defaults if default is not None)]
        return _first(*(expression_offence(default, names) for default in defaults))
    if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
        if len(text) > LITERAL_LIMIT:
            return Offence("huge-literal", node, f"{len(text) // 1024} KiB of source")
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return _first(
            *(expression_offence(t, names) for t in targets), expression_offence(node.value, names, outer=True)
        )
    if isinstance(node, ast.Delete):
        return _first(*(expression_offence(target, names) for target in node.targets))
    if isinstance(node, ast.Expr):
        return _call_statement(node.value, names)
    if isinstance(node, ast.If):
        return _first(expression_offence(node.test, names), body_offence([*node.body, *node.orelse], names))
    if isinstance(node, ast.Try):
        handlers = [statement for handler in node.handlers for statement in handler.body]
        return body_offence([*node.body, *handlers, *node.orelse, *node.finalbody], names)
    if isinstance(node, ast.For):
        return _first(expression_offence(node.iter, names), body_offence([*node.body, *node.orelse], names))
    if isinstance(node, ast.With):
        for item in node.items:
            callee = item.context_expr.func if isinstance(item.context_expr, ast.Call) else item.context_expr
            path = names.resolve(name) if (name := dotted_name(callee)) else None
            if path not in ("contextlib.suppress", "contextlib.nullcontext"):
                return Offence("computed-value", item.context_expr, "a `with` block over a live context")
        return body_offence(node.body, names)
    return Offence("computed-value", node, f"a `{type(node).__name__.lower()}` statement")


def body_offence(body: Iterable[ast.stmt], names: Names) -> Offence | None:
    return _first(*(statement_offence(statement, names) for statement in body))


def _first(*found: Offence | None) -> Offence | None:
    return next((offence for offence in found if offence is not None), None)


def _call_statement(node: ast.expr, names: Names) -> Offence | None:
    """A bare expression: a literal, a known effect, or a mutating call with carried arguments."""
    if not isinstance(node, ast.Call):
        return expression_offence(node, names)
    name = dotted_name(node.func)
    path = names.resolve(name) if name else None
    arguments = _first(*(expression_offence(argument, names) for argument in _arguments(node)))
    setting = path is not None and path.rpartition(".")[2].startswith(SETTING_WORDS)
    if setting or path in EFFECTS or (name == ("print",) and path is None):
        return arguments
    changing = isinstance(node.func, ast.Attribute) and node.func.attr in MUTATING_METHODS | SETTERS
    # A method of a name's object, or of something in a module: `CONF.update(…)`, `module.TABLE.append(…)`.
    if changing and (path is None or "." in path.rpartition(".")[0]):
        return _first(arguments, expression_offence(node.func.value, names, receiver=True))  # type: ignore[attr-defined]
    if (path is not None and path.startswith(CHANGING_MODULES)) or name in (("setattr",), ("delattr",)):
        return arguments
    return expression_offence(node, names) or None


def expression_offence(
    node: ast.expr | None, names: Names, *, outer: bool = False, receiver: bool = False
) -> Offence | None:
    """The first part of `node` that is not a constant expression. `outer`: it becomes a name's value as it is."""
    if node is None or isinstance(node, ast.Constant | ast.Name):
        return None
    if outer and _in_order_of_a_set(node, names):
        return Offence("unordered-value", node, f"`{_short(node)}`")
    if isinstance(node, ast.Lambda):
        return _first(*(expression_offence(default, names) for default in node.args.defaults))
    if isinstance(node, _CONTAINERS):
        return _container_offence(node, names)
    if isinstance(node, ast.Await | ast.Yield | ast.YieldFrom):
        return Offence("top-level-await", node, "`await` outside a function")
    if isinstance(node, ast.GeneratorExp):
        if outer:
            return Offence("one-shot-value", node, "a generator")
        return _comprehension_offence(node, [node.elt], names)
    if isinstance(node, _COMPREHENSIONS):
        parts = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        return _comprehension_offence(node, parts, names)
    if isinstance(node, ast.Call):
        return _call_offence(node, names, outer=outer, receiver=receiver)
    if isinstance(node, _SIMPLE):
        children = (child for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr))
        return _first(*(expression_offence(child, names, receiver=receiver) for child in children))
    return Offence("computed-value", node, "an expression capture does not know")


def _container_offence(node: ast.List | ast.Dict | ast.Set | ast.Tuple, names: Names) -> Offence | None:
    items = node.values if isinstance(node, ast.Dict) else node.elts
    keys = [key for key in node.keys if key is not None] if isinstance(node, ast.Dict) else []
    for item in items:
        if isinstance(item, ast.Lambda):
            return Offence("lambda-in-container", item, "a lambda inside a container")
    return _first(*(expression_offence(child, names) for child in [*keys, *items]))


def _comprehension_offence(node: ast.expr, parts: list[ast.expr], names: Names) -> Offence | None:
    generators: list[ast.comprehension] = node.generators  # type: ignore[attr-defined]
    for generator in generators:
        if (count := _range_length(generator.iter)) is not None and count > COUNT_LIMIT:
            return Offence("huge-value", node, f"{count:,} elements")
        if generator.is_async:
            return Offence("top-level-await", node, "`async for` outside a function")
    if any(isinstance(part, ast.Lambda) for part in parts):
        return Offence("lambda-in-container", node, "lambdas inside a container")
    conditions = [condition for generator in generators for condition in generator.ifs]
    every = [*(generator.iter for generator in generators), *parts, *conditions]
    return _first(*(expression_offence(part, names) for part in every))


def _range_length(node: ast.expr) -> int | None:
    """Length of `range(…)` over integer literals."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range" and not node.keywords:
        try:
            values = [ast.literal_eval(argument) for argument in node.args]
            return len(range(*values))
        except (ValueError, TypeError, OverflowError):
            return None
    return None


def _in_order_of_a_set(node: ast.expr, names: Names) -> bool:
    """Whether `node` puts a set's elements into a row: `list(set(words))`, `{w: i for i, w in enumerate({"a", "b"})}`."""
    if isinstance(node, ast.ListComp | ast.DictComp):
        source = node.generators[0].iter
    elif isinstance(node, ast.Call) and dotted_name(node.func) in (("list",), ("tuple",)) and len(node.args) == 1:
        source = node.args[0]
    else:
        return False
    if isinstance(source, ast.Call) and dotted_name(source.func) == ("enumerate",) and source.args:
        source = source.args[0]
    return _is_set(source, names)


def _is_set(node: ast.expr, names: Names, depth: int = 0) -> bool:
    if isinstance(node, ast.Name) and depth < 10:
        bound = names.bound_by(node.id)
        return isinstance(bound, ast.Assign) and _is_set(bound.value, names, depth + 1)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr | ast.BitAnd | ast.Sub | ast.BitXor):
        return _is_set(node.left, names, depth + 1)
    if isinstance(node, ast.Call) and dotted_name(node.func) in (("set",), ("frozenset",)) and node.args:
        return not _only_numbers(node.args[0])
    return isinstance(node, ast.SetComp) or (isinstance(node, ast.Set) and not _only_numbers(node))


def _only_numbers(node: ast.expr) -> bool:
    """Numbers hash to themselves, so a set of them has one order everywhere."""
    if _range_length(node) is not None:
        return True
    items = node.elts if isinstance(node, ast.Set | ast.List | ast.Tuple) else []
    return bool(items) and all(isinstance(e, ast.Constant) and isinstance(e.value, int | float) for e in items)


def _arguments(node: ast.Call) -> list[ast.expr]:
    return [*node.args, *(keyword.value for keyword in node.keywords)]


def _call_offence(node: ast.Call, names: Names, *, outer: bool, receiver: bool) -> Offence | None:
    words = f"the call `{_short(node)}`"
    name = dotted_name(node.func)
    if receiver_root(node.func) == "get_ipython":
        return Offence("magic", node, "a magic or shell command")
    if name is not None:
        path = names.resolve(name)
        builtin = name[0] if len(name) == 1 and path is None and names.class_of(name[0]) is None else None
        if (path or builtin) in ONE_SHOT:
            if outer:
                return Offence("one-shot-value", node, f"`{_short(node)}`, an iterator")
            return _first(*(expression_offence(argument, names) for argument in _arguments(node)))
        if name == ("__import__",) and len(node.args) == 1 and isinstance(node.args[0], ast.Constant):
            return None
        if path is not None and generator_of(path) in names.seeded:  # after a seed, a draw is as good as a literal
            return _first(*(expression_offence(argument, names) for argument in _arguments(node)))
        if path is not None and not _pure_path(path):
            return Offence("computed-value", node, words)
        if path is None and len(name) == 1:
            known = builtin in PURE_BUILTINS or names.is_record(name[0])
            if not known:
                return Offence("computed-value", node, words)
            if builtin in ("list", "set", "tuple", "dict", "sorted") and node.args:
                count = _range_length(node.args[0])
                if count is not None and count > COUNT_LIMIT:
                    return Offence("huge-value", node, f"{count:,} elements")
        if path is None and len(name) > 1 and not _known_method(node.func, receiver=receiver):
            return Offence("computed-value", node, words)
    elif isinstance(node.func, ast.Attribute):
        if not _known_method(node.func, receiver=receiver):
            return Offence("computed-value", node, words)
        inner = expression_offence(node.func.value, names, receiver=receiver)
        if inner is not None:
            return inner
    elif isinstance(node.func, ast.Call):  # functools.lru_cache(maxsize=3)(function)
        inner = expression_offence(node.func, names)
        if inner is not None:
            return inner
    else:
        return Offence("computed-value", node, words)
    return _first(*(expression_offence(argument, names) for argument in _arguments(node)))


def _known_method(func: ast.expr, *, receiver: bool) -> bool:
    if not isinstance(func, ast.Attribute):
        return False
    return func.attr in PURE_METHODS or (receiver and func.attr in MUTATING_METHODS)


def _pure_path(path: str) -> bool:
    if path in PURE_FUNCTIONS:
        return True
    return path.startswith(PURE_PREFIXES) and path.rpartition(".")[2] not in IMPURE_LAST


def _is_record(node: ast.ClassDef | None, names: Names) -> bool:
    """Whether instances only hold their arguments: a dataclass, NamedTuple, Enum … without code of its own on creation."""
    if node is None:
        return False
    if any(isinstance(s, FunctionNode) and s.name in ("__init__", "__new__", "__post_init__") for s in node.body):
        return False
    bases = [names.resolve(name) for base in node.bases if (name := dotted_name(base))]
    decorators = [d.func if isinstance(d, ast.Call) else d for d in node.decorator_list]
    marks = [names.resolve(name) for decorator in decorators if (name := dotted_name(decorator))]
    return any(base in RECORD_BASES for base in bases) or any(mark in RECORD_DECORATORS for mark in marks)


def _short(node: ast.AST) -> str:
    text = ast.unparse(node)
    return text if len(text) <= 60 else text[:57] + "..."
