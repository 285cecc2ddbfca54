"""How a step's code differs between two runs: the bundles from the store, file by file, as a unified diff."""

from __future__ import annotations

import difflib
import io
import zipfile

from .._store import open_store
from .facts import Facts

__all__ = ["source_diff"]

_NONE = ("", "none")
_LONGEST = 2000


def source_diff(step: str, before: Facts, after: Facts) -> str:
    """The diff of one step's code and lock; empty when both ran the same."""
    old, new = before.steps.get(step), after.steps.get(step)
    parts = []
    if old is None or new is None:
        which = before.label if old is None else after.label
        return f"{which} has no step {step!r}\n"
    if old.code != new.code:
        parts += _files(_bundle(old.code), _bundle(new.code), before.label, after.label)
    if old.lock != new.lock:
        parts += _lines("lock", _text(old.lock), _text(new.lock), before.label, after.label)
    text = parts[:_LONGEST]
    more = [f"… {len(parts) - _LONGEST} more lines\n"] if len(parts) > _LONGEST else []
    return "".join([*text, *more])


def _files(old: dict[str, str], new: dict[str, str], before: str, after: str) -> list[str]:
    found: list[str] = []
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            found += _lines(name, old.get(name, ""), new.get(name, ""), before, after)
    return found


def _lines(name: str, old: str, new: str, before: str, after: str) -> list[str]:
    pairs = difflib.unified_diff(
        old.splitlines(keepends=True), new.splitlines(keepends=True), f"{name} ({before})", f"{name} ({after})"
    )
    return [line if line.endswith("\n") else line + "\n" for line in pairs]


def _bundle(digest: str) -> dict[str, str]:
    """The text files of a code bundle; what is no text is named by its size."""
    if digest in _NONE:
        return {}
    found = {}
    with zipfile.ZipFile(io.BytesIO(open_store().get(digest))) as archive:
        for info in archive.infolist():
            if info.filename == "MANIFEST.json":
                continue  # says by digest what the files say in full
            data = archive.read(info)
            try:
                found[info.filename] = data.decode()
            except UnicodeDecodeError:
                found[info.filename] = f"({len(data)} bytes, no text)\n"
    return found


def _text(digest: str) -> str:
    return "" if digest in _NONE else open_store().get(digest).decode("utf-8", "replace")
