"""Unpack a code bundle once, whatever number of steps start with it at the same time.

A bundle is a zip named by its sha256. It is verified before it is opened, every member's path is checked before
anything is written, and it becomes visible by a rename under a file lock with a marker written last, so that a killed
unpacking never looks like a whole one.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import shutil
import stat
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ..errors import RmlSdkError

if TYPE_CHECKING:
    import zipfile

__all__ = ["MARKER", "BundleRefused", "cache_folder", "fetch", "unpacked"]

MARKER = ".complete"
MANIFEST = "MANIFEST.json"
SCHEMA = 1


class BundleRefused(RmlSdkError):
    """The bytes are not what their digest says, or the archive would write outside its folder."""


def cache_folder() -> Path:
    """`RML_CACHE`, or `$RML_HOME/cache`: unpacked code, shared by all steps of this machine."""
    cache = os.environ.get("RML_CACHE")
    if cache:
        return Path(cache)
    return Path(os.environ.get("RML_HOME") or Path.home() / ".roblox_ml") / "cache"


def unpacked(digest: str, cache: Path | None = None) -> Path:
    """The folder with this bundle's files; fetched, verified and unpacked first if nobody has."""
    parent = (cache or cache_folder()) / "code"
    folder = parent / digest
    if (folder / MARKER).is_file():
        return folder
    parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(parent / f".{digest}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)  # dropped by the kernel if this process dies
        if not (folder / MARKER).is_file():
            _unpack(fetch(digest), folder)
    finally:
        os.close(handle)
    return folder


def fetch(digest: str) -> bytes:
    """A blob of the store, verified."""
    from .._store import open_store  # brings urllib, which most starts of a step do not need

    store = open_store()
    data = store.get(digest)
    if hashlib.sha256(data).hexdigest() != digest:
        raise BundleRefused(
            f"blob {digest} in {store.url} is damaged: its sha256 is another", fix="compile the pipeline again"
        )
    return data


def _unpack(data: bytes, folder: Path) -> None:
    import zipfile

    # What lies here without a marker was left by an unpacking that was killed.
    shutil.rmtree(folder, ignore_errors=True)
    fresh = folder.with_name(f".{folder.name}.{os.urandom(4).hex()}")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            for member in members:
                _check(member)
            if MANIFEST in archive.namelist():
                _check_schema(json.loads(archive.read(MANIFEST)).get("schema"))
            fresh.mkdir(parents=True)
            archive.extractall(fresh)
        (fresh / MARKER).touch()
        fresh.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _check_schema(schema: object) -> None:
    if schema != SCHEMA:
        raise BundleRefused(
            f"the code bundle is of schema {schema}, this SDK reads schema {SCHEMA}",
            fix="compile the pipeline with the version of roblox_ml that runs it",
        )


def _check(member: zipfile.ZipInfo) -> None:
    """Refuse a name that leaves the folder, and a link: it would let a later member write through it."""
    path = PurePosixPath(member.filename)
    outside = path.is_absolute() or ".." in path.parts or "\\" in member.filename or ":" in member.filename
    if outside or stat.S_ISLNK(member.external_attr >> 16):
        raise BundleRefused(
            f"the code bundle holds {member.filename!r}, which would be written outside its folder",
            why="a bundle made by roblox_ml has plain relative paths only",
            fix="compile the pipeline again and find out who made this bundle",
        )
