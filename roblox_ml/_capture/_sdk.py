"""The SDK itself as a deterministic zip: it travels to steps by digest, so an image needs nothing but Python."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from roblox_ml._capture._bundle import bundle_of
from roblox_ml._capture._types import Bundle

_PACKAGE = Path(__file__).resolve().parents[1]
_LEFT_OUT = frozenset({"__pycache__", "cli"})


def sdk_zip() -> Bundle:
    """The `roblox_ml` package but for its command line; built once a process unless a file changes."""
    return _build(tuple(_stats()))


def _stats() -> list[tuple[str, int, int]]:
    found: list[tuple[str, int, int]] = []
    stack = [str(_PACKAGE)]
    while stack:
        with os.scandir(stack.pop()) as entries:
            for entry in entries:
                if entry.is_dir():
                    if entry.name not in _LEFT_OUT and not entry.name.startswith("."):
                        stack.append(entry.path)
                elif entry.name.endswith(".py") or entry.name == "py.typed":
                    stat = entry.stat()
                    found.append((entry.path, stat.st_mtime_ns, stat.st_size))
    return sorted(found)


@lru_cache(maxsize=2)
def _build(stats: tuple[tuple[str, int, int], ...]) -> Bundle:
    root = _PACKAGE.parent
    return bundle_of({Path(path).relative_to(root).as_posix(): Path(path).read_bytes() for path, _, _ in stats})
