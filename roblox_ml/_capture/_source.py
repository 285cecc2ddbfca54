"""Find the source a function came from: the executed cells of a notebook kernel, or its file.

IPython keeps every executed cell in `In`, magics already rewritten to calls, in the order of execution: exactly what a slice
needs. Cells under a magic that only watches (``%%time``, ``%%capture``) count as the code they hold.
"""

from __future__ import annotations

import ast
import re
import tokenize
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import FunctionType
from typing import Any

from roblox_ml._capture._types import Cell, Source
from roblox_ml._history import Stop, history_of

_TRANSPARENT = frozenset({"time", "capture", "prun", "debug"})
_CELL_MAGIC = re.compile(r"get_ipython\(\)\.run_cell_magic\(")


def source_of(fn: FunctionType) -> Source | None:
    """The source `fn` was defined in, or None when there is none (exec, a bare interpreter, a deleted file)."""
    namespace = fn.__globals__
    filename = fn.__code__.co_filename
    if _from_cell(namespace, filename):
        return Source(kernel_cells(namespace), namespace)
    path = Path(filename)
    if not path.suffix or not path.is_file():
        return None
    return file_source(path, namespace)


def file_source(path: Path, namespace: Mapping[str, Any]) -> Source:
    """A `.py` file as one cell, named relative to the working folder where that is shorter."""
    stat = path.stat()
    text = _read(path, stat.st_mtime_ns, stat.st_size)
    shown = path.resolve()
    label = str(shown.relative_to(Path.cwd())) if shown.is_relative_to(Path.cwd()) else str(shown)
    return Source(
        (Cell(label, text, is_file=True),),
        namespace,
        path=shown,
        module=str(namespace.get("__name__", "__main__")),
        package=str(namespace.get("__package__") or ""),
    )


@lru_cache(maxsize=64)
def _read(path: Path, _stamp: int, _size: int) -> str:
    with tokenize.open(path) as file:
        return file.read()


def cells_source(texts: Sequence[str], namespace: Mapping[str, Any] | None = None) -> Source:
    """An explicit list of executed cells, numbered from 1; `namespace` enables the comparison with live values."""
    return Source(tuple(Cell(f"cell {number}", text) for number, text in enumerate(texts, start=1)), namespace)


def _from_cell(namespace: Mapping[str, Any], filename: str) -> bool:
    if not isinstance(namespace.get("In"), list) or "get_ipython" not in namespace:
        return False
    known = getattr(getattr(_shell(namespace), "compile", None), "_filename_map", {})
    # `%%time` and `%%prun` compile under names of their own: "<timed exec>", "<string>".
    return filename in known or filename.startswith("<") or "ipykernel_" in filename


def _shell(namespace: Mapping[str, Any]) -> Any:
    get = namespace.get("get_ipython")
    return get() if callable(get) else None


def kernel_cells(namespace: Mapping[str, Any]) -> tuple[Cell, ...]:
    """The executed cells of an IPython kernel, with the text as typed for excerpts."""
    executed: Sequence[str] = namespace["In"]
    shell = _shell(namespace)
    typed: Sequence[str] = getattr(getattr(shell, "history_manager", None), "input_hist_raw", None) or executed
    watched = history_of(shell)
    stops = watched.stops if watched is not None else {}
    return tuple(
        _cell(number, text, typed[number] if number < len(typed) else text, stops.get(number))
        for number, text in enumerate(executed)
        if text.strip()
    )


@lru_cache(maxsize=4096)
def _cell(number: int, text: str, typed: str, stop: Stop | None) -> Cell:
    label = f"cell {number}"
    body = _transparent_body(text) if _CELL_MAGIC.match(text) else None
    error = stop.error if stop is not None else ""
    if body is None:  # IPython drops leading blank lines; the user's line numbers count them
        blank = len(typed) - len(typed.lstrip("\n"))
        line = stop.line if stop is not None else None
        return Cell(label, text, typed, first=1 + (blank if text[:1] != "\n" else 0), stop=line, error=error)
    within = (stop.body or 0) if stop is not None else None
    return Cell(label, body, typed, first=2, stop=within, error=error)


def _transparent_body(text: str) -> str | None:
    """The code under a cell magic that only watches it run."""
    try:
        call = ast.parse(text).body[0].value  # type: ignore[attr-defined]
        name, _, body = (ast.literal_eval(argument) for argument in call.args)
    except (SyntaxError, ValueError, IndexError, AttributeError):
        return None
    if name not in _TRANSPARENT:
        return None
    try:
        ast.parse(body)
    except SyntaxError:  # magics inside: leave it to the refusal of the whole cell
        return None
    return str(body)
