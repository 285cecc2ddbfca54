"""Text that came from a log, made fit for a message: no control characters, no tricks, no more than fits. Pure.

A log tail may hold anything: colour codes, half a surrogate pair, a megabyte on one line, marks that turn the direction of
what follows. None of it may break a message, change who is addressed by it, or hide what it says.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

__all__ = ["clean", "jsonable", "line", "lines", "tail"]

# CSI and OSC sequences of terminals (ECMA-48), which colour a log and mean nothing elsewhere.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-_])")
# C0 and C1 but tab and newline, halves of surrogate pairs, direction marks, characters without width, non-characters.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\uffff]"
)
_ELLIPSIS = "…"
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")  # what neither UTF-8 nor every database can hold
_DEEPEST = 16


def clean(value: Any, longest: int) -> str:
    """`value` as text of printable characters, tabs and newlines, at most `longest` characters."""
    text = value if isinstance(value, str) else str(value)
    # What lies far beyond the limit need not be looked at.
    text = text[: longest * 4 + 1024].replace("\r\n", "\n")
    # A progress bar redraws its line: what follows the last return is what was on the screen.
    text = "\n".join(part.rstrip("\r").rpartition("\r")[2] for part in text.split("\n"))
    text = _UNSEEN.sub("", _ESCAPES.sub("", text)).strip("\n")
    return text if len(text) <= longest else text[: max(0, longest - 1)] + _ELLIPSIS


def line(value: Any, longest: int) -> str:
    """`clean`, on one line."""
    return " ".join(clean(value, longest).split())


def lines(value: Any) -> list[str]:
    """The lines of a log tail, whether it came as text or as a list."""
    if isinstance(value, str):
        return value.split("\n")
    if isinstance(value, Iterable) and not isinstance(value, bytes | dict):
        return [str(one) for one in value]
    return []


def tail(value: Any, longest: int, widest: int = 300) -> str:
    """The last lines that fit, each cut to `widest`."""
    kept: list[str] = []
    left = longest
    for one in reversed(lines(value)[-200:]):
        text = clean(one, widest).replace("\n", " ")
        if len(text) + 1 > left:
            break
        kept.append(text)
        left -= len(text) + 1
    return "\n".join(reversed(kept)).strip("\n")


def jsonable(value: Any, depth: int = 0) -> Any:
    """`value` as JSON that every database and every reader takes; what is nested too deep becomes its text."""
    if isinstance(value, str):
        return _UNSTORABLE.sub("\ufffd", value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if depth < _DEEPEST:
        if isinstance(value, dict):
            return {jsonable(str(key)): jsonable(one, depth + 1) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [jsonable(one, depth + 1) for one in value]
    return jsonable(str(value)[:1000])
