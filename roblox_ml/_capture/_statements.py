"""Top-level statements of a cell or file, with what each binds, reads and changes. Pure, and cached by text.

An import of several names becomes several statements, one per name: a step is then shipped with the names it uses,
and adding an unused name to an import line changes no digest.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

from roblox_ml._capture._scopes import (
    FunctionNode,
    annotations_of,
    dotted_name,
    immediate_nodes,
    later_nodes,
    reads_of,
    root_name,
)

MUTATING_METHODS = frozenset(
    "add append appendleft clear difference_update discard extend extendleft insert intersection_update move_to_end pop "
    "popitem popleft remove reverse rotate setdefault sort subtract symmetric_difference_update update "
    "__setitem__ __delitem__ __setattr__".split()
)
"""Methods that change the object they are called on (list, dict, set, deque, Counter, OrderedDict and their likes)."""

MUTATING_FUNCTIONS = frozenset(
    {"shuffle", "heapify", "heappush", "heappop", "heapreplace", "insort", "setattr", "delattr"}
)
"""Functions, by their last name, that change their first argument."""


@dataclass(frozen=True, slots=True)
class Alias:
    """One name of an import: `import module as bound` (name None) or `from module import name as bound`."""

    module: str
    name: str | None
    bound: str
    as_written: bool  # True for `import a.b.c`, which binds `a`

    @property
    def target(self) -> str:
        """Dotted path of what the bound name stands for."""
        if self.name is not None:
            return f"{self.module}.{self.name}"
        return self.bound if self.as_written else self.module


@dataclass(frozen=True, slots=True, eq=False)
class Statement:
    """One top-level statement. Names are global names of its cell.

    `now` is read when it runs, `later` when a function it defines is called, `soft` only by annotations nobody may ever
    evaluate. `stores` are the roots of item and attribute assignments, `mutates` adds the known mutating calls. `fragile` maps names bound by a loop, `with` or `except` to the construct. `bare` is the same function without
    the decorators that look like ``@….step(…)``, whose roots are `step_roots`.
    """

    node: ast.stmt
    text: str
    lines: tuple[int, ...]
    kind: str
    binds: frozenset[str] = frozenset()
    certain: frozenset[str] = frozenset()
    now: frozenset[str] = frozenset()
    later: frozenset[str] = frozenset()
    soft: frozenset[str] = frozenset()
    assigned_later: frozenset[str] = frozenset()
    mutates: frozenset[str] = frozenset()
    stores: frozenset[str] = frozenset()
    mutates_later: frozenset[str] = frozenset()
    calls: frozenset[str] = frozenset()
    registers: frozenset[str] = frozenset()
    attributes: frozenset[tuple[str, str]] = frozenset()
    fragile: Mapping[str, str] = field(default_factory=dict)
    alias: Alias | None = None
    bare: Statement | None = None
    step_roots: tuple[tuple[str, ...], ...] = ()
    awaits: bool = False


@lru_cache(maxsize=4096)
def parse(text: str, package: str = "") -> tuple[Statement, ...]:
    """The statements of `text`, or none if it is not valid Python (such a cell never ran).

    `package` turns relative imports into absolute ones, line by line, because a slice is shipped as a top-level module.
    """
    try:
        tree = ast.parse(text)
        if package:
            text, tree = _absolute_imports(text, tree, package)
        return tuple(_statements(text, tree))
    except (SyntaxError, ValueError, RecursionError):
        return ()


def future_features(text: str) -> frozenset[str]:
    """The `from __future__` features a cell or file switches on."""
    return frozenset(s.alias.name for s in parse(text) if s.kind == "future" and s.alias and s.alias.name)


def _statements(text: str, tree: ast.Module) -> Iterator[Statement]:
    raw = text.encode().splitlines(keepends=True)
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from _imports(node)
            continue
        piece, lines = _cut(raw, node, _first_line(node))
        statement = _analyse(node, piece, lines)
        if isinstance(node, FunctionNode):
            yield _with_bare(statement, raw, node)
        else:
            yield statement


def _first_line(node: ast.stmt) -> tuple[int, int]:
    decorators = getattr(node, "decorator_list", [])
    if decorators:  # the position of a decorator's expression is just behind its "@"
        return decorators[0].lineno, node.col_offset
    return node.lineno, node.col_offset


def _cut(raw: list[bytes], node: ast.AST, start: tuple[int, int]) -> tuple[str, tuple[int, ...]]:
    """The source of `node` from `start` to its end, and the line number of each of its lines."""
    first, last = start[0], node.end_lineno  # type: ignore[attr-defined]
    chosen = raw[first - 1 : last]
    chosen[-1] = chosen[-1][: node.end_col_offset]  # type: ignore[attr-defined]
    chosen[0] = chosen[0][start[1] :]
    return b"".join(chosen).decode().replace("\r\n", "\n"), tuple(range(first, last + 1))


def _with_bare(statement: Statement, raw: list[bytes], node: ast.FunctionDef | ast.AsyncFunctionDef) -> Statement:
    """Attach the variant of a function without its step decorators."""
    candidates = [d for d in node.decorator_list if _looks_like_step(d)]
    if not candidates:
        return statement
    pieces: list[str] = []
    lines: list[int] = []
    kept = [d for d in node.decorator_list if d not in candidates]
    for decorator in kept:
        text, numbers = _cut(raw, decorator, (decorator.lineno, decorator.col_offset))
        pieces.append("@" + text)
        lines.extend(numbers)
    body, numbers = _cut(raw, node, (node.lineno, node.col_offset))
    clone = ast.parse("\n".join([*pieces, body])).body[0]
    origin = (*lines, *numbers)
    for inner in ast.walk(clone):  # positions count in the cell, as everywhere
        if hasattr(inner, "lineno"):
            inner.lineno, inner.end_lineno = origin[inner.lineno - 1], origin[inner.end_lineno - 1]
    bare = _analyse(clone, "\n".join([*pieces, body]), origin)
    roots = tuple(name for d in candidates if (name := dotted_name(_callee(d))) is not None)
    return replace(statement, bare=bare, step_roots=roots)


def _callee(decorator: ast.expr) -> ast.expr:
    return decorator.func if isinstance(decorator, ast.Call) else decorator


def _looks_like_step(decorator: ast.expr) -> bool:
    name = dotted_name(_callee(decorator))
    return name is not None and name[-1] == "step"


def _imports(node: ast.Import | ast.ImportFrom) -> Iterator[Statement]:
    module = ("." * node.level + (node.module or "")) if isinstance(node, ast.ImportFrom) else None
    for item in node.names:
        single = ast.copy_location(_single(node, item), node)
        text = ast.unparse(single)
        if module is None:
            alias = Alias(item.name, None, item.asname or item.name.partition(".")[0], item.asname is None)
            kind = "import"
        elif item.name == "*":
            alias, kind = Alias(module, "*", "*", False), "star"
        else:
            alias = Alias(module, item.name, item.asname or item.name, False)
            kind = "future" if module == "__future__" else "from"
        binds = frozenset() if kind in ("star", "future") else frozenset({alias.bound})
        yield Statement(single, text, (node.lineno,), kind, binds=binds, certain=binds, alias=alias)


def _single(node: ast.Import | ast.ImportFrom, item: ast.alias) -> ast.stmt:
    if isinstance(node, ast.Import):
        return ast.Import(names=[item])
    return ast.ImportFrom(module=node.module, names=[item], level=node.level)


def _analyse(node: ast.stmt, text: str, lines: tuple[int, ...]) -> Statement:
    reads = reads_of(text, node)
    nodes = list(immediate_nodes(node))
    binds = frozenset(_bound(node, nodes))
    if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
        reads.now.add(node.target.id)
    soft = frozenset(_annotation_names(nodes))
    inner = list(later_nodes(node))
    return Statement(
        node,
        text,
        lines,
        kind=type(node).__name__.lower(),
        binds=binds,
        certain=frozenset(_certain(node)) & binds,
        now=frozenset(reads.now),
        later=frozenset(reads.later),
        soft=soft - reads.now,
        assigned_later=frozenset(reads.assigned_later),
        mutates=frozenset(_mutated(nodes)),
        stores=frozenset(_stored(nodes)),
        mutates_later=frozenset(_mutated(inner)) & (reads.later | reads.assigned_later),
        calls=frozenset(_called(nodes)),
        registers=frozenset(_registering(node)),
        attributes=frozenset(_attributes([*nodes, *inner])),
        fragile=_fragile(nodes),
        awaits=any(isinstance(n, ast.Await | ast.AsyncFor | ast.AsyncWith) for n in nodes),
    )


def _bound(node: ast.stmt, nodes: Iterable[ast.AST]) -> Iterator[str]:
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


def _certain(node: ast.stmt) -> set[str]:
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
    return set(_bound(node, list(immediate_nodes(node))))


def _certain_all(body: Iterable[ast.stmt]) -> set[str]:
    return set().union(*(_certain(statement) for statement in body))


def _leaves(body: list[ast.stmt]) -> bool:
    return bool(body) and isinstance(body[-1], ast.Raise)


def _annotation_names(nodes: Iterable[ast.AST]) -> Iterator[str]:
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


def hard_names(statement: Statement) -> frozenset[str]:
    """What a statement reads at once when annotations are not evaluated (`from __future__ import annotations`)."""
    skipped: set[int] = set()
    names: set[str] = set()
    nodes = list(immediate_nodes(statement.node))
    for node in nodes:
        if isinstance(node, FunctionNode):
            skipped |= {id(inner) for annotation in annotations_of(node) for inner in ast.walk(annotation)}
        elif isinstance(node, ast.AnnAssign):
            skipped |= {id(inner) for inner in ast.walk(node.annotation)}
    names = {n.id for n in nodes if isinstance(n, ast.Name) and id(n) not in skipped}
    return statement.now & names


def _stored(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Root names of item and attribute assignments and deletions."""
    for node in nodes:
        if isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
            root = root_name(node)
            if root is not None:
                yield root


def _mutated(nodes: list[ast.AST]) -> Iterator[str]:
    """Root names of objects changed in place: item and attribute assignment, `del`, and known mutating calls."""
    yield from _stored(nodes)
    for node in nodes:
        root: str | None = None
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in MUTATING_METHODS and isinstance(node.func, ast.Attribute):
                root = _receiver(node.func.value)
            elif name in MUTATING_FUNCTIONS and node.args:
                root = root_name(node.args[0])
        if root is not None:
            yield root


def _receiver(node: ast.AST) -> str | None:
    """Root of `table.setdefault("k", []).append`: calls in the chain are looked through."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else None


def _called(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id
        elif isinstance(node, (*FunctionNode, ast.ClassDef)):
            for decorator in node.decorator_list:
                if isinstance(decorator, ast.Name):
                    yield decorator.id


def _registering(node: ast.stmt) -> Iterator[str]:
    """Objects whose method decorates (`@convert.register`) or whose class is extended: both may change them."""
    if isinstance(node, (*FunctionNode, ast.ClassDef)):
        for decorator in node.decorator_list:
            callee = _callee(decorator)
            if isinstance(callee, ast.Attribute) and (root := root_name(callee)):
                yield root


def _attributes(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, str]]:
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield node.value.id, node.attr


def _fragile(nodes: Iterable[ast.AST]) -> dict[str, str]:
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


_FROM = re.compile(rb"from\s*(\.[.\s]*[\w.]*)\s*\bimport\b")


def _absolute_imports(text: str, tree: ast.Module, package: str) -> tuple[str, ast.Module]:
    """Rewrite `from .x import y` to `from package.x import y`; line numbers stay."""
    raw = text.encode().splitlines(keepends=True)
    found = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level]
    for node in sorted(found, key=lambda n: (n.lineno, n.col_offset), reverse=True):
        base = package.split(".")
        base = base[: len(base) - node.level + 1]
        target = ".".join([*base, *([node.module] if node.module else [])])
        line = raw[node.lineno - 1]
        head, tail = line[: node.col_offset], line[node.col_offset :]
        raw[node.lineno - 1] = head + _FROM.sub(f"from {target} import".encode(), tail, count=1)
    rewritten = b"".join(raw).decode()
    return rewritten, ast.parse(rewritten)
