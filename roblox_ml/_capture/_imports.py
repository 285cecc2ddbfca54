"""Every import a piece of source makes, lazy ones in functions included. Pure."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class ImportRef:
    """One imported module, and the names taken from it (each may be a submodule). `optional`: under `except ImportError`."""

    module: str
    names: tuple[str, ...] = ()
    optional: bool = False
    line: int = 0

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]


@lru_cache(maxsize=1024)
def imports_of_text(text: str, package: str) -> tuple[ImportRef, ...]:
    """The imports of a whole file; none when it is not valid Python."""
    try:
        return tuple(imports_of(ast.parse(text).body, package))
    except (SyntaxError, ValueError):
        return ()


def imports_of(body: Iterable[ast.AST], package: str = "", *, optional: bool = False) -> Iterator[ImportRef]:
    """Imports below `body`, but for blocks that only type checkers read. `package` resolves relative imports."""
    for node in body:
        if isinstance(node, ast.Import):
            for item in node.names:
                yield ImportRef(item.name, (), optional, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            module = absolute(node.module or "", node.level, package)
            if module and module != "__future__":
                yield ImportRef(module, tuple(item.name for item in node.names), optional, node.lineno)
        elif isinstance(node, ast.If) and _type_checking(node.test):
            yield from imports_of(node.orelse, package, optional=optional)
        elif isinstance(node, ast.Try):
            guarded = optional or any(_catches_import(handler) for handler in node.handlers)
            yield from imports_of(node.body, package, optional=guarded)
            rest: list[ast.AST] = [*node.orelse, *node.finalbody]
            yield from imports_of([*node.handlers], package, optional=guarded)
            yield from imports_of(rest, package, optional=optional)
        elif isinstance(node, ast.Call):
            yield from _dynamic(node, optional)
            yield from imports_of(ast.iter_child_nodes(node), package, optional=optional)
        else:
            yield from imports_of(ast.iter_child_nodes(node), package, optional=optional)


def absolute(module: str, level: int, package: str) -> str:
    """The absolute name of a (relative) import made inside `package`."""
    if not level:
        return module
    parts = package.split(".") if package else []
    base = parts[: len(parts) - level + 1]
    return ".".join([*base, *([module] if module else [])])


def _dynamic(node: ast.Call, optional: bool) -> Iterator[ImportRef]:
    """`importlib.import_module("x")` and `__import__("x")` with a literal name."""
    callee = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if callee in ("import_module", "__import__") and node.args:
        first = node.args[0]
        if isinstance(first, ast.Constant) and isinstance(first.value, str) and first.value.strip("."):
            yield ImportRef(first.value.lstrip("."), (), optional, node.lineno)


def _type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def _catches_import(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    names = {getattr(kind, "id", getattr(kind, "attr", "")) for kind in kinds}
    return bool(names & {"ImportError", "ModuleNotFoundError", "Exception"})


_FROM = re.compile(rb"from\s*(\.[.\s]*[\w.]*)\s*\bimport\b")


def absolute_imports(text: str, tree: ast.Module, package: str) -> tuple[str, ast.Module]:
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
