"""Packages of the operating system that a step declares: looked for when it starts, named when they are missing.

A wheel may load `libgomp.so.1` and fail deep inside an import; the declaration turns that into one sentence at the start.
Nothing is installed here: the image belongs to whoever runs the platform. Standard library only.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from ..errors import EnvironmentError_

__all__ = ["check", "missing"]

_DPKG = Path("/var/lib/dpkg")
_LDCONFIG = ("/sbin/ldconfig", "/usr/sbin/ldconfig")
_SECONDS = 30.0


def missing(names: Iterable[str]) -> list[str]:
    """Those of the names that this machine lacks: Debian packages (`libgomp1`) or shared libraries (`libgomp.so.1`)."""
    wanted = list(dict.fromkeys(names))
    have = _debian() if wanted else frozenset[str]()
    libraries = _libraries() if any(name not in have for name in wanted) else frozenset[str]()
    return [name for name in wanted if name not in have and not _has_library(name, libraries)]


def check(names: Iterable[str]) -> None:
    """Raise with every missing package and what to put into the image."""
    gone = missing(names)
    if gone:
        packages = [name for name in gone if ".so" not in name]
        install = f"apt-get install --no-install-recommends {' '.join(packages or gone)}"
        raise EnvironmentError_(
            f"this machine lacks the system package{'s' if len(gone) > 1 else ''} {', '.join(gone)}",
            where="system_packages= of the step",
            why="the step declares it; pip cannot install it, and without it an import would fail deep inside",
            fix=f"use an image that has it: RUN {install}, then RML_STEP_IMAGE or @rml.step(image=…); on this machine: {install}",
        )


def _debian() -> frozenset[str]:
    """Installed Debian packages: the status file, or the folder that distroless images have in its place."""
    texts = []
    for file in [_DPKG / "status", *sorted((_DPKG / "status.d").glob("*"))]:
        try:
            texts.append(file.read_text("utf-8", "replace"))
        except OSError:
            continue
    found: set[str] = set()
    for paragraph in "\n\n".join(texts).split("\n\n"):
        name = re.search(r"^Package: (\S+)$", paragraph, re.MULTILINE)
        status = re.search(r"^Status: (.+)$", paragraph, re.MULTILINE)
        if name and (status is None or status[1].endswith(" installed")):
            found.add(name[1])
    return frozenset(found)


def _libraries() -> frozenset[str]:
    """Names of the shared libraries that the loader knows."""
    tool = shutil.which("ldconfig") or next((path for path in _LDCONFIG if os.access(path, os.X_OK)), None)
    if tool is None:
        return frozenset()
    try:
        done = subprocess.run([tool, "-p"], capture_output=True, text=True, check=False, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return frozenset()
    return frozenset(line.split()[0] for line in done.stdout.splitlines() if "=>" in line)


def _has_library(name: str, libraries: frozenset[str]) -> bool:
    """`libgomp.so.1` as it stands; `libgomp1`, the name Debian gives its package, as `libgomp.so.1`."""
    if name in libraries:
        return True
    match = re.fullmatch(r"(lib.+?)-?(\d+(?:\.\d+)*)(?:t64)?", name)
    return bool(match) and f"{match[1]}.so.{match[2]}" in libraries  # type: ignore[index]
