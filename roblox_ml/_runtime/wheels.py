"""Wheels that no index has: kept in the store under their digest, named by the lock, installed from a folder.

What was installed from a file, a URL or a repository on the user's machine can be had nowhere else; its wheel travels like
the code does. It is installed by path, so no index is ever asked for its name (somebody else may own that name there).
Standard library only: this runs in a step.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .environments import ParsedLock

__all__ = ["INSTALLERS_OWN", "content_of", "is_installed", "with_local_wheels"]

# What an installer adds or rewrites: no part of what a wheel brings.
INSTALLERS_OWN = ("INSTALLER", "REQUESTED", "RECORD", "direct_url.json", "uv_cache.json", "uv_build.json", "RECORD.jws")


def content_of(record: str) -> str:
    """The digest of what a RECORD file lists, in the wheel and after installation alike."""
    rows = []
    for row in csv.reader(record.splitlines()):
        if len(row) < 2 or not row[1] or row[0].startswith(("..", "/")) or row[0].endswith(".pyc"):
            continue
        folder, _, name = row[0].rpartition("/")
        if not (folder.endswith(".dist-info") and name in INSTALLERS_OWN):
            rows.append(f"{row[0]},{row[1]}")
    return hashlib.sha256("\n".join(sorted(rows)).encode()).hexdigest()


def is_installed(name: str, content: str, sites: Iterable[str]) -> bool:
    """Whether the distribution that would be imported was installed from a wheel with this content."""
    from .environments import normal

    for site in sites:
        for info in sorted(Path(site).glob("*.dist-info")):
            if normal(info.name.partition("-")[0]) == name:
                try:
                    return content_of((info / "RECORD").read_text("utf-8")) == content
                except OSError:
                    return False
    return False


def with_local_wheels(lock_text: str, lock: ParsedLock, folder: Path) -> Path:
    """Fetch the lock's wheels and write requirements that name them by path; the file to install from."""
    from .bundles import fetch
    from .environments import normal

    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for line in lock_text.splitlines():
        match = re.match(r"([A-Za-z0-9][A-Za-z0-9._-]*)==", line)
        wheel = lock.wheels.get(normal(match[1])) if match else None
        if match and wheel:
            path = folder / wheel[0]
            path.write_bytes(fetch(wheel[1]))
            line = f"{match[1]} @ {path.resolve().as_uri()} \\"
        lines.append(line)
    target = folder / "requirements.txt"
    target.write_text("\n".join(lines) + "\n")
    return target
