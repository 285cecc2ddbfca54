"""One way to name bytes: lower-case sha256 hex, of a byte string, a file, a tree of files or canonical JSON."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any, TypedDict

from .errors import Invalid

__all__ = [
    "FileEntry",
    "canonical_json",
    "check_digest",
    "is_digest",
    "sha256_bytes",
    "sha256_file",
    "sha256_json",
    "tree",
]

_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_CHUNK = 1 << 20


class FileEntry(TypedDict):
    """One file of a tree or manifest."""

    sha256: str
    size: int


def is_digest(text: object) -> bool:
    """Whether `text` is a lower-case sha256 in hex."""
    return isinstance(text, str) and _DIGEST.match(text) is not None


def check_digest(text: str) -> str:
    """`text` itself when it is a digest, else `Invalid`: digests become paths, so nothing else may pass."""
    if not is_digest(text):
        raise Invalid(f"{text[:80]!r} is not a digest", hint="a digest is 64 lower-case hex digits (sha256)")
    return text


def sha256_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Digest of a file's bytes, read in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def canonical_json(value: Any) -> bytes:
    """The one byte string for a JSON value: sorted keys, no spaces, UTF-8; NaN and infinity are refused."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def sha256_json(value: Any) -> str:
    """Digest of a value's canonical JSON."""
    return sha256_bytes(canonical_json(value))


def tree(root: Path) -> dict[str, FileEntry]:
    """Every regular file below `root` by POSIX path, sorted. A symbolic link is refused: what it shows could change."""
    files: dict[str, FileEntry] = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            raise Invalid(f"{name} in {root} is a symbolic link", hint="copy the file itself into the directory")
        if path.is_file():
            files[name] = {"sha256": sha256_file(path), "size": path.stat().st_size}
    return files
