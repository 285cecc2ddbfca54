"""Where in the user's code something happened: 'train.py:12' or 'cell 3, line 2', and the line with a caret.

A site is taken for every call while a pipeline is traced, so taking one only remembers the code object and the
instruction; text is made when a finding needs it.
"""

from __future__ import annotations

import linecache
import os
import re
import sys
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import CodeType, FrameType, FunctionType, TracebackType
from typing import Any

__all__ = ["Site", "cell_number", "here", "of_function", "users_frames"]

_PACKAGE = str(Path(__file__).resolve().parent.parent)
_COMMANDS = str(Path(_PACKAGE) / "cli") + os.sep
COMMAND_LINE = "the command line"
_IPYTHON_FILE = re.compile(r"^<ipython-input-(\d+)-")


@dataclass(frozen=True, slots=True)
class Site:
    """A place in the user's code. `token` is a word on that line to put the caret under."""

    filename: str
    line: int
    code: CodeType | None = None
    instruction: int = -1
    token: str = ""

    def __str__(self) -> str:
        cell = cell_number(self.filename)
        if cell is not None:
            return f"cell {cell}, line {self.line}"
        if self.filename == COMMAND_LINE:
            return self.filename
        return f"{_shown(self.filename)}:{self.line}"

    def source(self) -> str | None:
        """The line of code with carets under the place, or None when the source is gone."""
        line, start, end = self.line, -1, -1
        if self.code is not None and self.instruction >= 0:
            position = next(islice(self.code.co_positions(), self.instruction // 2, None), None)
            if position is not None and None not in position:
                first, last, start_byte, end_byte = position
                assert first is not None and last is not None and start_byte is not None and end_byte is not None
                text = linecache.getline(self.filename, first)
                line = first
                start = len(text.encode()[:start_byte].decode(errors="ignore"))
                end = len(text.encode()[:end_byte].decode(errors="ignore")) if last == first else len(text.rstrip())
        text = linecache.getline(self.filename, line).rstrip("\n")
        if not text.strip():
            return None
        if self.token and start < 0:
            found = re.search(rf"\b{re.escape(self.token)}\b", text)
            if found:
                start, end = found.span()
        if start < 0:
            return text.strip()
        indent = len(text) - len(text.lstrip())
        return f"{text[indent:]}\n{' ' * (start - indent)}{'^' * max(1, end - start)}"

    def at(self, token: str) -> Site:
        """The same place, the caret under `token`."""
        return Site(self.filename, self.line, None, -1, token)


def here() -> Site:
    """The innermost frame that is not ours: where the user called us."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        if frame.f_code.co_filename.startswith(_COMMANDS):
            return Site(COMMAND_LINE, 0)
        frame = frame.f_back
    if frame is None:
        return Site("<unknown>", 0)
    return Site(frame.f_code.co_filename, frame.f_lineno, frame.f_code, frame.f_lasti)


def users_frames(traceback: TracebackType | None) -> list[tuple[Site, str, str]]:
    """The frames from the cell to where our code begins: place, function, line."""
    found = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if code.co_filename.startswith(_PACKAGE):
            break
        if f"{os.sep}IPython{os.sep}" not in code.co_filename:
            line = linecache.getline(code.co_filename, traceback.tb_lineno).strip()
            name = "the cell" if code.co_name == "<module>" else code.co_name
            found.append((Site(code.co_filename, traceback.tb_lineno), name, line))
        traceback = traceback.tb_next
    return found


def of_function(function: Any, parameter: str = "") -> Site:
    """The `def` line of a function, or the line that declares one of its parameters."""
    if not isinstance(function, FunctionType):
        return Site("<unknown>", 0)
    code = function.__code__
    line = code.co_firstlineno
    defined = False
    # co_firstlineno is the first decorator's line; walk to the `def`, then to the parameter (signatures span lines).
    for number in range(line, line + 60):
        text = linecache.getline(code.co_filename, number)
        if not text:
            break
        if not defined and re.match(r"\s*(async\s+)?def\s", text):
            defined, line = True, number
            if not parameter:
                break
        if defined and re.search(rf"\b{re.escape(parameter)}\b\s*[:=,)]", text.split("def ", 1)[-1]):
            line = number
            break
        if defined and text.rstrip().endswith(":"):
            break
    return Site(code.co_filename, line, token=parameter or function.__name__)


def cell_number(filename: str) -> int | None:
    """The notebook cell (execution count) a code object's file name stands for, None for an ordinary file."""
    match = _IPYTHON_FILE.match(filename)
    if match:
        return int(match.group(1))
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None:
        return None
    # IPython's compiler keeps: made-up file name of a cell → execution count.
    names: dict[str, int] = getattr(shell.compile, "_filename_map", {})
    return names.get(filename)


def _shown(filename: str) -> str:
    try:
        return str(Path(filename).resolve().relative_to(Path.cwd()))
    except (OSError, ValueError):
        return filename
