"""Blob store: bytes named by their sha256, written once, verified on every read.

Bundles, locks, datasets and packages all live here, so that one store (a folder, or the control plane's HTTP view of
it) is everything a step needs. Standard library only: this file travels to steps. The layout is
`<store>/sha256/<first two hex>/<digest>`; `RML_STORE` says where (`file://…`, a plain folder, or `http(s)://…`).
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

__all__ = ["BlobCorrupt", "BlobMissing", "Store", "StoreError", "digest_of", "digest_of_file", "home", "open_store"]

_CHUNK = 1 << 20
_DIGEST = re.compile(r"[0-9a-f]{64}")
_HTTP_SECONDS = 60.0


class StoreError(OSError):
    """A blob could not be read or written; the message says which and why."""


class BlobMissing(StoreError):
    """The store has no blob of this digest."""


class BlobCorrupt(StoreError):
    """The bytes found do not have the digest that names them."""


def home() -> Path:
    """`RML_HOME`: where this machine keeps its state (default `~/.roblox_ml`)."""
    return Path(os.environ.get("RML_HOME") or Path.home() / ".roblox_ml")


def digest_of(data: bytes) -> str:
    """Lowercase sha256 hex of bytes."""
    return hashlib.sha256(data).hexdigest()


def digest_of_file(path: Path) -> str:
    """Lowercase sha256 hex of a file, read in chunks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def open_store(url: str | None = None) -> Store:
    """The store at `url`, or at `RML_STORE`, or `$RML_HOME/store`."""
    return Store(url or os.environ.get("RML_STORE") or (home() / "store").absolute().as_uri())


@dataclass(frozen=True, slots=True)
class Store:
    """One blob store. `url` is `file://…`, a folder's path, or `http(s)://…`."""

    url: str

    @property
    def folder(self) -> Path | None:
        """The local folder behind this store; None when it is reached over HTTP."""
        parts = urllib.parse.urlsplit(self.url)
        if parts.scheme in ("http", "https"):
            return None
        if parts.scheme == "file":
            return Path(urllib.request.url2pathname(parts.path))
        return Path(self.url)

    def path_of(self, digest: str) -> Path:
        """Where a local store keeps this blob (whether or not it is there). Only for stores on disk."""
        folder = self.folder
        if folder is None:
            raise StoreError(f"{self.url} is reached over HTTP: its blobs have no path; use get() or copy_to()")
        return folder / "sha256" / _checked(digest)[:2] / digest

    def has(self, digest: str) -> bool:
        """Whether the blob exists (not whether its bytes are intact: `verify` does that)."""
        if self.folder is not None:
            return self.path_of(digest).is_file()
        try:
            with _http(self._blob_url(digest), method="HEAD"):
                return True
        except BlobMissing:
            return False

    def get(self, digest: str) -> bytes:
        """The blob's bytes, verified."""
        with self._open(digest) as stream:
            data = stream.read()
        if digest_of(data) != digest:
            raise BlobCorrupt(self._corrupt(digest))
        return data

    def copy_to(self, digest: str, target: Path, *, link: bool = False) -> None:
        """Write the verified blob to `target` (atomically). `link`: share the store's bytes if the disk allows."""
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary(target)
        try:
            if not (link and self.folder is not None and _hard_link(self.path_of(digest), temporary)):
                with self._open(digest) as source, temporary.open("wb") as sink:
                    shutil.copyfileobj(source, sink, _CHUNK)
            if digest_of_file(temporary) != digest:
                raise BlobCorrupt(self._corrupt(digest))
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    def verify(self, digest: str) -> bool:
        """Whether the blob exists and its bytes have this digest."""
        hasher = hashlib.sha256()
        try:
            with self._open(digest) as stream:
                while chunk := stream.read(_CHUNK):
                    hasher.update(chunk)
        except BlobMissing:
            return False
        return hasher.hexdigest() == digest

    def put(self, data: bytes) -> str:
        """Store bytes; return their digest. Storing the same bytes again costs one look."""
        digest = digest_of(data)
        if self.folder is None:
            if not self.has(digest):
                with _http(self._blob_url(digest), method="PUT", data=data):
                    pass
            return digest
        target = self.path_of(digest)
        # The size tells a blob cut short by a full disk from a whole one, without reading it.
        if _holds(target, len(data)):
            return digest
        temporary = _temporary(target)
        try:
            temporary.write_bytes(data)
            temporary.chmod(0o444)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        return digest

    def put_file(self, path: Path) -> str:
        """Store a file's bytes; return their digest. Hashed while copied: a change meanwhile does no harm."""
        folder = self.folder
        if folder is None:
            return self.put(path.read_bytes())
        # A file already stored is only read, not copied.
        digest = digest_of_file(path)
        if _holds(self.path_of(digest), path.stat().st_size):
            return digest
        temporary = _temporary(folder / "sha256" / "incoming")
        hasher = hashlib.sha256()
        try:
            with path.open("rb") as source, temporary.open("wb") as sink:
                while chunk := source.read(_CHUNK):
                    hasher.update(chunk)
                    sink.write(chunk)
            digest = hasher.hexdigest()
            target = self.path_of(digest)
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary.chmod(0o444)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        return digest

    def delete(self, digest: str) -> int:
        """Remove a blob from a local store; the bytes freed (0 when it was not there)."""
        path = self.path_of(digest)
        try:
            size = path.stat().st_size
            path.unlink()
        except FileNotFoundError:
            return 0
        return size

    def digests(self) -> Iterator[tuple[str, int]]:
        """Every blob of a local store with its size, in order."""
        folder = self.folder
        if folder is None:
            raise StoreError(f"{self.url} is reached over HTTP and cannot be listed")
        for path in sorted((folder / "sha256").glob("??/*")):
            if _DIGEST.fullmatch(path.name):
                yield path.name, path.stat().st_size

    def _blob_url(self, digest: str) -> str:
        return f"{self.url.rstrip('/')}/sha256/{_checked(digest)[:2]}/{digest}"

    def _open(self, digest: str) -> BinaryIO:
        if self.folder is None:
            return _http(self._blob_url(digest))
        try:
            return self.path_of(digest).open("rb")
        except FileNotFoundError:
            hint = "upload it again, or set RML_STORE to the store that has it"
            raise BlobMissing(f"the store {self.url} has no blob {digest}: {hint}") from None

    def _corrupt(self, digest: str) -> str:
        return f"blob {digest} in {self.url} is damaged (other sha256): delete that file and store it again"


def _checked(digest: str) -> str:
    # The digest becomes a path: nothing but hex may pass.
    if not _DIGEST.fullmatch(digest):
        raise StoreError(f"{digest!r} is no digest: 64 lowercase hex digits are expected")
    return digest


def _holds(blob: Path, size: int) -> bool:
    """Whether the blob is there already; its time stamp says then that it was wanted again (the collector spares it)."""
    try:
        if blob.stat().st_size != size:
            return False
        os.utime(blob)
    except FileNotFoundError:
        return False
    except PermissionError:
        pass  # a shared, read-only store
    return True


def _temporary(target: Path) -> Path:
    """A fresh file beside `target`, so that the final rename stays on one disk. The dot keeps it out of listings."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".incoming-", dir=target.parent)
    os.close(handle)
    return Path(name)


def _hard_link(source: Path, target: Path) -> bool:
    """Replace `target` by a hard link to `source`; False when the disk cannot, or the source is missing."""
    try:
        target.unlink()
        os.link(source, target)
    except OSError:
        return False
    return True


def _http(url: str, *, method: str = "GET", data: bytes | None = None) -> BinaryIO:
    request = urllib.request.Request(url, data=data, method=method)  # noqa: S310 - the scheme was checked by the caller
    token = _token()
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        answer: BinaryIO = urllib.request.urlopen(request, timeout=_HTTP_SECONDS)  # noqa: S310
    except urllib.error.HTTPError as error:
        if error.code == 404:
            raise BlobMissing(f"the store has no blob at {url}") from None
        hint = " (set RML_TOKEN)" if error.code in (401, 403) else ""
        raise StoreError(f"{method} {url}: HTTP {error.code} {error.reason}{hint}") from None
    except OSError as error:
        raise StoreError(f"{method} {url}: {error}. Is the store running, and RML_STORE right?") from None
    return answer


def _token() -> str | None:
    if os.environ.get("RML_TOKEN"):
        return os.environ["RML_TOKEN"]
    try:
        return (home() / "token").read_text().strip() or None
    except OSError:
        return None
