"""Top-level statements of a cell or file, with what each binds, reads and changes. Pure, and cached by text.

An import of several names becomes several statements, one per name: a step is then shipped with the names it uses,
and adding an unused name to an import line changes no digest.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

from roblox_ml._capture import _binding as _b
from roblox_ml._capture._imports import absolute_imports
from roblox_ml._capture._magics import code_of, magic_of, repeated_code_of
from roblox_ml._capture._marks import Mark, marks
from roblox_ml._capture._scopes import FunctionNode, annotations_of, dotted_name, immediate_nodes, later_nodes, reads_of
from roblox_ml._capture._summary import Summary, summarize


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
    evaluate, `maybe` if the statement has not bound the name itself by then. `stores` are the roots of item and attribute
    assignments, `mutates` adds the known mutating calls; `aliases` are (bound, read) pairs that may share an object.
    `fragile` maps names bound by a loop, `with` or `except` to the construct. `bare` is the same function without the
    decorators that look like ``@….step(…)``, named in `step_roots`. `marks` are what it touches outside its names, `passes` which
    names it hands to which function, `methods_called` the methods by receiver, `summary` what calling its functions does.
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
    maybe: frozenset[str] = frozenset()
    assigned_later: frozenset[str] = frozenset()
    mutates: frozenset[str] = frozenset()
    stores: frozenset[str] = frozenset()
    mutates_later: frozenset[str] = frozenset()
    calls: frozenset[str] = frozenset()
    registers: frozenset[str] = frozenset()
    aliases: frozenset[tuple[str, str]] = frozenset()
    augments: frozenset[str] = frozenset()
    fragile: Mapping[str, str] = field(default_factory=dict)
    alias: Alias | None = None
    bare: Statement | None = None
    step_roots: tuple[tuple[str, ...], ...] = ()
    awaits: bool = False
    marks: frozenset[Mark] = frozenset()
    methods_called: frozenset[tuple[str, str]] = frozenset()
    passes: frozenset[tuple[str, int | str, str]] = frozenset()
    summary: Summary | None = None


@lru_cache(maxsize=4096)
def parse(text: str, package: str = "") -> tuple[Statement, ...]:
    """The statements of `text`, or none if it is not valid Python (such a cell never ran).

    `package` turns relative imports into absolute ones, line by line, because a slice is shipped as a top-level module.
    """
    try:
        tree = ast.parse(text)
        if package:
            text, tree = absolute_imports(text, tree, package)
        return tuple(_statements(text, tree))
    except (SyntaxError, ValueError, RecursionError):
        return ()


def future_features(statements: Iterable[Statement]) -> frozenset[str]:
    """The `from __future__` features a cell or file switches on."""
    return frozenset(s.alias.name for s in statements if s.kind == "future" and s.alias and s.alias.name)


def _statements(text: str, tree: ast.Module) -> Iterator[Statement]:
    raw = text.encode().splitlines(keepends=True)
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from _imports(node)
            continue
        piece, lines = _cut(raw, node, _first_line(node))
        magic = magic_of(node)
        if magic is not None and (plain := code_of(magic)) is not None:
            unwrapped = list(_plain_statements(plain, lines))
            if unwrapped:
                yield from unwrapped
                continue
        if magic is not None and (often := repeated_code_of(magic)) is not None:
            yield _repeated(_analyse(node, piece, lines), often, lines)
            continue
        if isinstance(node, FunctionNode) and any(map(_looks_like_step, node.decorator_list)):
            yield _with_bare(Statement(node, piece, lines, type(node).__name__.lower()), raw, node)
        else:
            yield _analyse(node, piece, lines)


def _plain_statements(code: str, lines: tuple[int, ...]) -> Iterator[Statement]:
    """The statements a line magic runs; every line of theirs is the magic's."""
    try:
        tree = ast.parse(code)
    except SyntaxError:
        return
    for node in tree.body:
        text = ast.unparse(node)
        clone = ast.parse(text).body[0]
        for inner in ast.walk(clone):
            if hasattr(inner, "lineno"):
                inner.lineno = inner.end_lineno = lines[0]  # type: ignore[attr-defined]
        found = _analyse(clone, text, lines[:1] * (text.count("\n") + 1))
        if text.startswith("__import__('os').environ["):
            found = replace(found, marks=frozenset({Mark("store", ("os", "environ"), True)}))
        yield found


def _repeated(statement: Statement, code: str, lines: tuple[int, ...]) -> Statement:
    """A magic that runs `code` many times: what the code changes, the statement changes, and it cannot be repeated."""
    parts = list(_plain_statements(code, lines))
    local = frozenset().union(*(part.binds for part in parts))
    return replace(
        statement,
        mutates=frozenset().union(*(part.mutates | part.augments for part in parts)) - local,
        calls=frozenset().union(*(part.calls for part in parts)),
        marks=frozenset().union(*(part.marks for part in parts)),
        methods_called=frozenset().union(*(part.methods_called for part in parts)),
        passes=frozenset().union(*(part.passes for part in parts)),
    )


def _first_line(node: ast.stmt) -> tuple[int, int]:
    decorators = getattr(node, "decorator_list", [])
    if decorators:  # the position of a decorator's expression is just behind its "@"
        return decorators[0].lineno, node.col_offset
    return node.lineno, node.col_offset


def _cut(raw: list[bytes], node: ast.stmt | ast.expr, start: tuple[int, int]) -> tuple[str, tuple[int, ...]]:
    """The source of `node` from `start` to its end, and the line number of each of its lines."""
    first, last = start[0], node.end_lineno or start[0]
    chosen = raw[first - 1 : last]
    chosen[-1] = chosen[-1][: node.end_col_offset]
    chosen[0] = chosen[0][start[1] :]
    return b"".join(chosen).decode().replace("\r\n", "\n"), tuple(range(first, last + 1))


def _with_bare(statement: Statement, raw: list[bytes], node: ast.FunctionDef | ast.AsyncFunctionDef) -> Statement:
    """Attach the variant of a function without its step decorators; the statement itself is analysed when needed."""
    candidates = [d for d in node.decorator_list if _looks_like_step(d)]
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
        if isinstance(inner, ast.stmt | ast.expr | ast.arg | ast.keyword | ast.ExceptHandler):
            inner.end_lineno = origin[(inner.end_lineno or inner.lineno) - 1]
            inner.lineno = origin[inner.lineno - 1]
    bare = _analyse(clone, "\n".join([*pieces, body]), origin)
    roots = tuple(name for d in candidates if (name := dotted_name(_b.callee(d))) is not None)
    return replace(statement, bare=bare, step_roots=roots)


def _looks_like_step(decorator: ast.expr) -> bool:
    name = dotted_name(_b.callee(decorator))
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


@lru_cache(maxsize=1024)
def with_decorators(statement: Statement) -> Statement:
    """A function whose decorator looked like a step's and was not: analysed as it is written."""
    return _analyse(statement.node, statement.text, statement.lines)


def _analyse(node: ast.stmt, text: str, lines: tuple[int, ...]) -> Statement:
    reads = reads_of(text, node)
    nodes = list(immediate_nodes(node))
    binds = frozenset(_b.bound(node, nodes))
    if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
        reads.now.add(node.target.id)
    if not isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):  # a loop may read what it has just bound
        reads.maybe |= reads.now & binds
        reads.now -= binds
    soft = frozenset(_b.annotation_names(nodes))
    aliases = frozenset(_b.aliases(nodes))
    mutates = (
        _b.through_aliases(set(_b.mutated(nodes)), aliases) if node_holds_statements(node) else set(_b.mutated(nodes))
    )
    inner = list(later_nodes(node))
    changed_later = _b.through_aliases(set(_b.mutated(inner)), set(_b.aliases(inner))) if inner else set()
    reads.later |= {
        n.target.id for n in inner if isinstance(n, ast.AugAssign) and isinstance(n.target, ast.Name)
    } & reads.assigned_later
    return Statement(
        node,
        text,
        lines,
        kind=type(node).__name__.lower(),
        binds=binds,
        certain=frozenset(_b.certain(node)) & binds,
        now=frozenset(reads.now),
        later=frozenset(reads.later),
        soft=soft - reads.now,
        maybe=frozenset(reads.maybe - reads.now),
        assigned_later=frozenset(reads.assigned_later),
        mutates=frozenset(mutates),
        aliases=aliases,
        augments=frozenset(_b.augmented(nodes)),
        stores=frozenset(_b.stored(nodes)),
        mutates_later=frozenset(changed_later) & (reads.later | reads.assigned_later),
        calls=frozenset(_b.called(nodes)),
        registers=frozenset(_b.registering(node)),
        fragile=_b.fragile(nodes),
        awaits=any(isinstance(n, ast.Await | ast.AsyncFor | ast.AsyncWith) for n in nodes),
        marks=marks(nodes),
        methods_called=frozenset(_b.methods_called(nodes)),
        passes=frozenset(_b.passed(nodes)),
        summary=summarize(node, inner, changed_later) if inner else None,
    )


def node_holds_statements(node: ast.stmt) -> bool:
    """`for`, `if`, `with`, `try` and their like."""
    return isinstance(getattr(node, "body", None), list) and not isinstance(node, (*FunctionNode, ast.ClassDef))


@lru_cache(maxsize=4096)
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
