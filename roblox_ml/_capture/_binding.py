"""What running one statement does to names: which it binds, surely or perhaps, and whose objects it changes. Pure."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator

from roblox_ml._capture._scopes import FunctionNode, annotations_of, immediate_nodes, root_name

MUTATING_METHODS = frozenset(
    {"add", "append", "appendleft", "clear", "difference_update", "discard", "extend", "extendleft", "insert"}
    | {"intersection_update", "move_to_end", "pop", "popitem", "popleft", "remove", "reverse", "rotate", "setdefault"}
    | {"sort", "subtract", "symmetric_difference_update", "update", "__setitem__", "__delitem__", "__setattr__"}
)
"""Methods that change the object they are called on (list, dict, set, deque, Counter, OrderedDict and their likes)."""

SETTERS = frozenset({"setLevel", "register", "addFilter", "removeFilter"})
"""Methods that change a logger, an abstract class or a generic function."""

MUTATING_FUNCTIONS = frozenset(
    {"shuffle", "heapify", "heappush", "heappop", "heapreplace", "insort", "setattr", "delattr"}
)
"""Functions, by their last name, that change their first argument."""


def bound(node: ast.stmt, nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Names `node` binds in its cell: never those of comprehensions, class bodies or functions."""
    if isinstance(node, ast.AnnAssign) and node.value is None:
        return
    hidden: set[int] = set()
    for outer in nodes:
        if isinstance(outer, ast.ClassDef):
            hidden |= {id(n) for statement in outer.body for n in immediate_nodes(statement)}
        elif isinstance(outer, ast.comprehension):
            hidden |= {id(n) for n in ast.walk(outer.target)}
    for inner in nodes:
        if id(inner) in hidden:
            continue
        if isinstance(inner, ast.Name) and not isinstance(inner.ctx, ast.Load):
            yield inner.id
        elif isinstance(inner, (*FunctionNode, ast.ClassDef)):
            yield inner.name
        elif isinstance(inner, ast.alias):
            yield inner.asname or inner.name.partition(".")[0]
        elif (isinstance(inner, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and inner.name) or isinstance(
            inner, ast.NamedExpr
        ):
            yield inner.name if not isinstance(inner, ast.NamedExpr) else inner.target.id  # type: ignore[misc]
        elif isinstance(inner, ast.MatchMapping) and inner.rest:
            yield inner.rest


def certain(node: ast.stmt) -> set[str]:
    """Names bound whichever way `node` runs; a loop may run no round, a branch may not be taken."""
    if isinstance(node, ast.If):
        return _certain_all(node.body) & _certain_all(node.orelse)
    if isinstance(node, ast.Try):
        paths = [_certain_all([*node.body, *node.orelse])]
        paths += [_certain_all(handler.body) for handler in node.handlers if not _leaves(handler.body)]
        return set.intersection(*paths) | _certain_all(node.finalbody)
    if isinstance(node, ast.For | ast.AsyncFor | ast.While | ast.Match):
        return set()
    if isinstance(node, ast.With | ast.AsyncWith):
        return _certain_all(node.body) | {
            n.id
            for item in node.items
            if item.optional_vars
            for n in ast.walk(item.optional_vars)
            if isinstance(n, ast.Name)
        }
    return set(bound(node, list(immediate_nodes(node))))


def _certain_all(body: Iterable[ast.stmt]) -> set[str]:
    return set().union(*(certain(statement) for statement in body))


def _leaves(body: list[ast.stmt]) -> bool:
    return bool(body) and isinstance(body[-1], ast.Raise)


def annotation_names(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Names in annotations, quoted ones included: wanted if they can be had, never a reason to refuse."""
    for node in nodes:
        found: list[ast.expr] = []
        if isinstance(node, FunctionNode):
            found = annotations_of(node)
        elif isinstance(node, ast.AnnAssign):
            found = [node.annotation]
        for annotation in found:
            for inner in ast.walk(annotation):
                if isinstance(inner, ast.Name):
                    yield inner.id
                elif isinstance(inner, ast.Constant) and isinstance(inner.value, str) and len(inner.value) < 1000:
                    yield from re.findall(r"(?<![\w.])[A-Za-z_]\w*", inner.value)


def stored(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Root names of item and attribute assignments and deletions."""
    for node in nodes:
        if isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
            root = root_name(node)
            if root is not None:
                yield root


def mutated(nodes: list[ast.AST]) -> Iterator[str]:
    """Root names of objects changed in place: item and attribute assignment, `del`, and known mutating calls."""
    yield from stored(nodes)
    for node in nodes:
        root: str | None = None
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if (name in MUTATING_METHODS or name in SETTERS) and isinstance(node.func, ast.Attribute):
                root = receiver_root(node.func.value)
            elif name in MUTATING_FUNCTIONS and node.args:
                root = root_name(node.args[0])
        if root is not None:
            yield root


def receiver_root(node: ast.AST) -> str | None:
    """Root of `table.setdefault("k", []).append`: calls in the chain are looked through."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else None


def called(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Names that are called, decorate, or are handed to a call, which may call them."""
    for node in nodes:
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                yield node.func.id
            elif (root := receiver_root(node.func)) is not None and isinstance(node.func, ast.Attribute):
                yield root  # `Table().put(x)` makes a Table
            for argument in arguments(node):
                if isinstance(argument, ast.Name):
                    yield argument.id
        elif isinstance(node, (*FunctionNode, ast.ClassDef)):
            for decorator in node.decorator_list:
                if (name := root_name(callee(decorator))) is not None:
                    yield name


def arguments(node: ast.Call) -> Iterator[ast.expr]:
    """A call's arguments, however they are given."""
    for argument in [*node.args, *(keyword.value for keyword in node.keywords)]:
        yield argument.value if isinstance(argument, ast.Starred) else argument


def methods_called(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, str]]:
    """(name, method): methods that are called on a name's object or a part of it; the name is "" for other receivers."""
    for node in nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield root_name(node.func.value) or "", node.func.attr


def passed(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, int | str, str]]:
    """(function, position or keyword, name): whose objects are handed to which parameter of a function called by name."""
    for node in nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            for position, argument in enumerate(node.args):
                for name in held(argument):
                    yield node.func.id, position, name
            for keyword in node.keywords:
                for name in held(keyword.value):
                    yield node.func.id, keyword.arg or "**", name


def registering(node: ast.stmt) -> Iterator[str]:
    """Objects whose method decorates (`@convert.register`) or whose class is extended: both may change them."""
    if isinstance(node, (*FunctionNode, ast.ClassDef)):
        for decorator in node.decorator_list:
            target = callee(decorator)
            if isinstance(target, ast.Attribute) and (root := root_name(target)):
                yield root


def fragile(nodes: Iterable[ast.AST]) -> dict[str, str]:
    found: dict[str, str] = {}
    for node in nodes:
        targets: list[tuple[ast.AST | None, str]] = []
        if isinstance(node, ast.For | ast.AsyncFor):
            targets = [(node.target, "for")]
        elif isinstance(node, ast.With | ast.AsyncWith):
            targets = [(item.optional_vars, "with") for item in node.items]
        elif isinstance(node, ast.ExceptHandler) and node.name:
            found[node.name] = "except"
        for target, construct in targets:
            if target is not None:
                found |= {
                    n.id: construct
                    for n in ast.walk(target)
                    if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
                }
    return found


def callee(decorator: ast.expr) -> ast.expr:
    return decorator.func if isinstance(decorator, ast.Call) else decorator


_SCALAR_CALLS = frozenset(
    {"abs", "bool", "bytes", "chr", "complex", "float", "format", "hash", "hex", "int", "isinstance", "len", "ord"}
    | {"repr", "round", "str", "type"}
)


def aliases(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, str]]:
    """(bound, read) pairs where the bound name may hold the read name's object, or a part of it, afterwards."""
    for node in nodes:
        if isinstance(node, (*FunctionNode, ast.ClassDef)):  # default values, class attributes, what a decorator keeps
            yield from ((node.name, name) for name in _kept(node) if name != node.name)
            continue
        targets: list[ast.expr] = []
        value: ast.expr | None = None
        if isinstance(node, ast.Assign):
            targets, value = node.targets, node.value
        elif isinstance(node, ast.AnnAssign | ast.AugAssign | ast.NamedExpr):
            targets, value = [node.target], node.value
        elif isinstance(node, ast.For):
            targets, value = [node.target], node.iter
        elif isinstance(node, ast.withitem) and node.optional_vars is not None:
            targets, value = [node.optional_vars], node.context_expr
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):  # table.append(row)
            targets, value = [node.func], node
        read = set(held(value)) if value is not None else set()
        if not read and len(targets) < 2:
            continue
        names = {inner.id for target in targets for inner in ast.walk(target) if isinstance(inner, ast.Name)}
        if len(targets) > 1:  # `a = b = []`
            yield from ((one, other) for one in names for other in names if one != other)
        rebinds = not isinstance(node, ast.Call | ast.AugAssign)  # `a = [a]`: the old object lives on in the new one
        yield from ((bound_name, name) for bound_name in names for name in read if rebinds or name != bound_name)


def through_aliases(changed: set[str], pairs: Iterable[tuple[str, str]]) -> set[str]:
    """`changed`, and what its names may stand for inside the same statement (`for row in table: row.append(0)`)."""
    pairs = list(pairs)
    result = set(changed)
    while extra := {read for bound_name, read in pairs if bound_name in result} - result:
        result |= extra
    return result


def augmented(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Names changed by `+=` and its like: for a list, that changes the object itself."""
    for node in nodes:
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


def _kept(node: ast.stmt) -> set[str]:
    hidden = {
        id(n)
        for f in immediate_nodes(node)
        if isinstance(f, FunctionNode)
        for a in annotations_of(f)
        for n in ast.walk(a)
    }
    return {
        n.id
        for n in immediate_nodes(node)
        if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load) and id(n) not in hidden
    }


def held(node: ast.expr) -> Iterator[str]:
    """Names whose objects may live on inside the value of `node`."""
    if isinstance(node, ast.Name):
        yield node.id
    elif not _is_scalar(node):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                yield from held(child)
            elif isinstance(child, ast.keyword):
                yield from held(child.value)
            elif isinstance(child, ast.comprehension):
                yield from held(child.iter)


def _is_scalar(node: ast.expr) -> bool:
    """Whether the value can share no object with what it was computed from."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in _SCALAR_CALLS
    return isinstance(node, ast.Constant | ast.JoinedStr | ast.Compare | ast.Lambda)
