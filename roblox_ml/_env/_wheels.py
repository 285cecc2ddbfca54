"""Hashes of the wheels that lie in pip's find-links folders: uv resolves from such a folder but computes no hash there."""

from __future__ import annotations

import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path

from .._runtime.environments import normal
from .._store import digest_of_file

__all__ = ["hashes_in", "wheels_in"]


def hashes_in(find_links: Iterable[str], name: str, version: str) -> tuple[str, ...]:
    """`sha256:…` of every wheel of this exact version in the local folders among `find_links`."""
    return tuple(sorted({f"sha256:{digest_of_file(wheel)}" for wheel in wheels_in(find_links, name, version)}))


def wheels_in(find_links: Iterable[str], name: str, version: str) -> list[Path]:
    """Every wheel of this exact version in the local folders among `find_links`."""
    folders = _local(find_links)
    return [wheel for folder in folders for wheel in sorted(folder.glob("*.whl")) if _is(wheel, name, version)]


def _local(find_links: Iterable[str]) -> Iterator[Path]:
    for link in find_links:
        parts = urllib.parse.urlsplit(link)
        folder = Path(urllib.request.url2pathname(parts.path)) if parts.scheme == "file" else Path(link)
        if folder.is_dir():
            yield folder


def _is(wheel: Path, name: str, version: str) -> bool:
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename
    from packaging.version import Version

    if normal(wheel.name.partition("-")[0]) != name:
        return False
    try:
        _, found, _, _ = parse_wheel_filename(wheel.name)
    except InvalidWheelFilename:
        return False
    return found == Version(version)
