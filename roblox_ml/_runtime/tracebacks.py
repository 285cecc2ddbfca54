"""A step's traceback in the user's own lines: our frames dropped, shipped lines named by the cell they came from.

An error that the SDK raises on purpose explains itself, so none of the SDK's frames stand before it; one that it did not
foresee keeps those outside this package, or nobody could find it.

Line numbers of the shipped module mean nothing to somebody who wrote cells. Who starts the step may say in `RML_LINES`
(a JSON file: `{file in the bundle: {line: "cell 3, line 2"}}`) where each line came from; the map is no part of the
bundle, because cell numbers change without the code changing. Without it, the shipped file and line are shown.
"""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import RmlSdkError

__all__ = ["line_map", "render"]

_OURS = str(Path(__file__).resolve().parent) + os.sep
_SDK = str(Path(__file__).resolve().parent.parent) + os.sep
_IMPORTLIB = ("<frozen importlib", "<frozen runpy")


def line_map() -> Mapping[str, Mapping[str, str]]:
    """The map of this step; empty when there is none."""
    path = os.environ.get("RML_LINES")
    if not path:
        return {}
    try:
        loaded: Mapping[str, Mapping[str, str]] = json.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return loaded


def render(error: BaseException, folder: Path | None) -> str:
    """The traceback as text, causes included. `folder` is the unpacked bundle."""
    summary = traceback.TracebackException.from_exception(error)
    lines = line_map()
    pending: list[traceback.TracebackException | None] = [summary]
    seen: set[int] = set()
    while pending:
        part = pending.pop()
        if part is None or id(part) in seen:
            continue
        seen.add(id(part))
        _rewrite(part, folder, lines, hidden=_SDK if issubclass(part.exc_type or Exception, RmlSdkError) else _OURS)
        pending += [part.__cause__, part.__context__, *(part.exceptions or [])]
    return "".join(summary.format(chain=True)).rstrip("\n")


def _rewrite(
    part: traceback.TracebackException, folder: Path | None, lines: Mapping[str, Mapping[str, str]], hidden: str
) -> None:
    kept = []
    for frame in part.stack:
        if frame.filename.startswith((hidden, *_IMPORTLIB)):
            continue
        place = _place(frame, folder, lines)
        if place is None:
            kept.append(frame)
        else:
            # The carets are counted in the line as written, which only this attribute still has.
            written = getattr(frame, "_original_line", None)
            columns: dict[str, Any] = {
                "end_lineno": frame.end_lineno,
                "colno": frame.colno,
                "end_colno": frame.end_colno,
            }
            moved = traceback.FrameSummary(
                *_file_and_line(place, frame.lineno),
                frame.name,
                lookup_line=False,
                line=written or frame.line,
                **(columns if written else {}),
            )
            kept.append(moved)
    part.stack = _Stack()
    part.stack.extend(kept)


def _place(frame: traceback.FrameSummary, folder: Path | None, lines: Mapping[str, Mapping[str, str]]) -> str | None:
    """The user's name for a frame of the bundle; None for a frame elsewhere, or one the map does not know."""
    if folder is None:
        return None
    try:
        relative = Path(frame.filename).relative_to(folder).as_posix()
    except ValueError:
        return None
    return lines.get(relative, {}).get(str(frame.lineno)) or relative


def _file_and_line(place: str, lineno: int | None) -> tuple[str, int | None]:
    """`train.py:12` is line 12 of a file; a cell's name already says the line."""
    file, _, line = place.rpartition(":")
    return (file, int(line)) if file and line.isdigit() else (place, lineno)


class _Stack(traceback.StackSummary):
    """Prints a frame of a cell as `cell 3, line 2, in train`: the name already holds the line."""

    def format_frame_summary(self, frame_summary: traceback.FrameSummary) -> str:
        text = super().format_frame_summary(frame_summary)
        if os.path.isabs(frame_summary.filename) or ", line " not in frame_summary.filename:  # noqa: PTH117
            return text
        head = f'  File "{frame_summary.filename}", line {frame_summary.lineno}, in '
        return text.replace(head, f"  {frame_summary.filename}, in ", 1)
