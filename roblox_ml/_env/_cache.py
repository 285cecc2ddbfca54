"""Small JSON and text files under `$RML_HOME/locks`, written whole or not at all; a damaged one is as good as none."""

from __future__ import annotations

import json
import os
from pathlib import Path

from .._store import home

__all__ = ["folder", "read_json", "read_text", "write_json", "write_text"]


def folder(name: str = "") -> Path:
    """`$RML_HOME/locks` or a folder in it."""
    return home() / "locks" / name


def read_text(path: Path) -> str | None:
    """The file's text, or None."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def read_json(path: Path) -> object | None:
    """The file's JSON, or None."""
    text = read_text(path)
    try:
        return None if text is None else json.loads(text)
    except ValueError:
        return None


def write_text(path: Path, text: str) -> None:
    """Write by rename, so that a reader never sees half a file. A home that cannot be written to costs time only."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    """`write_text` of canonical JSON."""
    write_text(path, json.dumps(value, sort_keys=True, separators=(",", ":")))
