"""What capture takes and gives: cells in, a slice of source out. Frozen data, no behaviour worth the name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STEP_MODULE = "rml_step"
"""Name of the one module a slice is shipped as; the step's process imports it."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A piece of source that ran as one unit: a notebook cell, or a whole file.

    `text` is plain Python (magics already turned into calls); `shown` is what the user typed, for excerpts; `first`
    is the line of `shown` at which `text` begins (2 for the body of a ``%%time`` cell). `stop` is the line of `text` at which the
    cell ended with the exception `error`; None when it ran to its end, or nobody watched.
    """

    label: str
    text: str
    shown: str = ""
    first: int = 1
    is_file: bool = False
    stop: int | None = None
    error: str = ""

    def reached(self, lines: tuple[int, ...]) -> str | None:
        """How far the statement on `lines` came: "" ran to its end, None never began, else the exception that ended it."""
        if self.stop is None or lines[-1] < self.stop:
            return ""
        return self.error if lines[0] <= self.stop else None

    def where(self, line: int) -> str:
        """`cell 3, line 2` for a cell, `train.py:12` for a file; `line` counts in `text`."""
        shown = line + self.first - 1
        return f"{self.label}:{shown}" if self.is_file else f"{self.label}, line {shown}"

    def shown_line(self, line: int) -> str:
        """The user's text of a line of `text`; falls back to `text` where a magic changed the line count."""
        index = line + self.first - 2
        typed = (self.shown or self.text).splitlines()
        plain = self.text.splitlines()
        if self.shown and len(typed) == len(plain) + self.first - 1 and index < len(typed):
            return typed[index]
        return plain[line - 1] if 0 < line <= len(plain) else ""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a step's code lives: cells in the order they were executed, and the values they left behind.

    `namespace` is None when only text is known (then nothing can be compared with live values). `package` resolves
    relative imports of a file that is a package's module; `module` is that module's dotted name.
    """

    cells: tuple[Cell, ...]
    namespace: Mapping[str, Any] | None = None
    path: Path | None = None
    module: str = "__main__"
    package: str = ""

    @property
    def is_file(self) -> bool:
        return self.path is not None


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a shipped line came from, and why it was needed."""

    where: str
    line: int
    why: str


@dataclass(frozen=True, slots=True)
class Slice:
    """The source one step needs, as files, and nothing else.

    `entry` is "module:function"; `files` maps bundle paths to bytes; `imports` holds the top-level names of everything
    imported that is neither standard library, nor shipped in `files`, nor this SDK; `lines` maps each line number of
    the step module to its origin. `lines` follows cell numbers, so it is no part of any digest.
    """

    entry: str
    files: Mapping[str, bytes]
    imports: frozenset[str]
    local_modules: tuple[str, ...] = ()
    lines: Mapping[int, Origin] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A deterministic zip: its sha256, its bytes, and the manifest inside it."""

    digest: str
    data: bytes
    manifest: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class GitState:
    """What git says about a folder; every field is empty outside a repository or without git.

    `patch` is the uncommitted change to tracked files, or None when it is over 1 MiB; `untracked` lists paths only.
    """

    commit: str | None = None
    branch: str | None = None
    remote: str | None = None
    dirty: bool = False
    patch: str | None = ""
    untracked: tuple[str, ...] = ()
