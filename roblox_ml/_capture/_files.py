"""Files a slice reads by a relative path. They lie beside the notebook; a step starts in an empty folder of its own.

Only paths that can be told from the source, and only files that are there now: a path that does not exist fails loudly everywhere. A
file that the slice itself writes is its own.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from roblox_ml._capture._index import END, Index, Placed
from roblox_ml._capture._scopes import dotted_name

_READERS = frozenset(
    {
        "open",
        "exists",
        "isfile",
        "isdir",
        "is_file",
        "is_dir",
        "listdir",
        "scandir",
        "iterdir",
        "walk",
        "stat",
        "getsize",
    }
    | {
        "load",
        "loadtxt",
        "genfromtxt",
        "fromfile",
        "imread",
        "from_file",
        "from_pretrained",
        "glob",
        "rglob",
        "copy",
        "copytree",
    }
)
_WRITERS = frozenset(
    {"write_text", "write_bytes", "mkdir", "makedirs", "touch", "savefig", "dump", "to_file", "imsave", "tofile"}
)
_PATHS = frozenset(
    {"Path", "PurePath", "PosixPath", "str", "fspath", "abspath", "realpath", "expanduser", "resolve", "absolute"}
)


def relative_reads(index: Index, chosen: Iterable[int]) -> Iterator[tuple[Placed, ast.AST, str]]:
    """(statement, node, path) for each existing relative path that a chosen statement or a function in it reads."""
    reads: list[tuple[Placed, ast.AST, str]] = []
    written: set[str] = set()
    for position in sorted(chosen):
        placed = index.placed[position]
        if placed.statement.alias is not None:
            continue
        for node in _file_calls(placed.statement.node):
            for path in _paths_of(node, index):
                if _writes(node):
                    written.add(os.path.normpath(path))
                else:
                    reads.append((placed, node, path))
    for placed, call, path in reads:
        plain = os.path.normpath(path)
        if (
            plain not in written
            and not Path(plain).is_absolute()
            and "://" not in path
            and plain not in (".", "..")
            and _exists(plain)
        ):
            yield placed, call, path


@lru_cache(maxsize=8192)
def _file_calls(statement: ast.stmt) -> tuple[ast.Call, ...]:
    return tuple(n for n in ast.walk(statement) if isinstance(n, ast.Call) and (_reads(n) or _writes(n)))


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def _last(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _writes(node: ast.Call) -> bool:
    name = _last(node)
    if name == "open":
        method = isinstance(node.func, ast.Attribute) and dotted_name(node.func) not in (
            ("io", "open"),
            ("codecs", "open"),
        )
        modes = [*node.args[0 if method else 1 :][:1], *(k.value for k in node.keywords if k.arg == "mode")]
        return any(
            isinstance(m, ast.Constant) and isinstance(m.value, str) and set(m.value) & set("wax+") for m in modes
        )
    return name in _WRITERS or name.startswith(("to_", "save"))


def _reads(node: ast.Call) -> bool:
    name = _last(node)
    return name in _READERS or name.startswith(("read_", "load_"))


def _paths_of(node: ast.Call, index: Index) -> Iterator[str]:
    """Paths a call may be given: its first argument, and the object whose method it is."""
    candidates = [
        *node.args[:1],
        *(k.value for k in node.keywords if k.arg in ("path", "file", "filename", "filepath_or_buffer")),
    ]
    if isinstance(node.func, ast.Attribute) and not isinstance(node.func.value, ast.Constant):
        receiver = _path(node.func.value, index, 0)
        if receiver is not None and _is_path(node.func.value, index):
            yield receiver
            return
    for candidate in candidates:
        path = _path(candidate, index, 0)
        if path:
            yield path


def _is_path(node: ast.expr, index: Index) -> bool:
    """Whether an expression makes a `Path`, not a text that happens to have methods."""
    if isinstance(node, ast.Name):
        value = _bound(node.id, index)
        return value is not None and _is_path(value, index)
    if isinstance(node, ast.BinOp):
        return _is_path(node.left, index) or _is_path(node.right, index)
    return isinstance(node, ast.Call) and _last(node) in _PATHS - {"str", "fspath"}


def _bound(name: str, index: Index) -> ast.expr | None:
    positions = index.binders(name, END)
    node = index.placed[positions[-1]].statement.node if len(positions) == 1 else None
    return node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None


def _path(node: ast.expr | None, index: Index, depth: int) -> str | None:
    """The path an expression stands for, as far as literals tell."""
    if node is None or depth > 6:
        return None
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) and len(node.value) < 1000 else None
    if isinstance(node, ast.Name):
        return _path(_bound(node.id, index), index, depth + 1)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div | ast.Add):
        left, right = _path(node.left, index, depth + 1), _path(node.right, index, depth + 1)
        if left is None or right is None:
            return None
        return str(Path(left, right)) if isinstance(node.op, ast.Div) else left + right
    if isinstance(node, ast.Call) and (_last(node) in _PATHS or _last(node) == "join"):
        own = (
            [node.func.value] if isinstance(node.func, ast.Attribute) and _last(node) in ("resolve", "absolute") else []
        )
        parts = [_path(argument, index, depth + 1) for argument in [*own, *node.args]]
        return str(Path(*(part or "" for part in parts))) if parts and None not in parts else None
    return None
