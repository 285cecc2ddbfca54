"""Blob store: bytes named by their sha256, written once, verified on every read.

Bundles, locks, datasets and packages all live here, so that one store (a folder, or the control plane's HTTP view of
it, or a bucket) is everything a step needs. Standard library only: this file travels to steps. The layout is
`<store>/sha256/<first two hex>/<digest>`; `RML_STORE` says where: a folder or `file://…`, the control plane's
`http(s)://…`, or `s3://bucket/prefix` (keys and endpoint as AWS's tools read them, see `_s3.py`). What is reached over
a network is in `_store_remote.py`, loaded when it is used: its imports are most of the start of a small step.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from ._store_remote import Remote

__all__ = [
    "BlobCorrupt",
    "BlobMissing",
    "Store",
    "StoreError",
    "blob_key",
    "digest_of",
    "digest_of_file",
    "home",
    "open_store",
]

_CHUNK = 1 << 20
_DIGEST = re.compile(r"[0-9a-f]{64}")


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
    """One blob store. `url` is `file://…`, a folder's path, `http(s)://…`, or `s3://bucket/prefix`."""

    url: str

    @property
    def folder(self) -> Path | None:
        """The local folder behind this store; None when it is reached over a network."""
        scheme, colon, rest = self.url.partition("://")
        if colon and scheme in ("http", "https", "s3"):
            return None
        if colon and scheme == "file":
            from urllib.parse import unquote

            return Path(unquote("/" + rest.partition("/")[2]))
        return Path(self.url)

    @property
    def written_directly(self) -> bool:
        """Whether this process may write to where the blobs lie (not so for the control plane's view of a store)."""
        return not self.url.startswith(("http://", "https://"))

    @property
    def _remote(self) -> Remote:
        from ._store_remote import remote

        return remote(self.url)

    def path_of(self, digest: str) -> Path:
        """Where a local store keeps this blob (whether or not it is there). Only for stores on disk."""
        folder = self.folder
        if folder is None:
            raise StoreError(f"{self.url} is no folder: its blobs have no path; use get() or copy_to()")
        return folder / blob_key(digest)

    def has(self, digest: str) -> bool:
        """Whether the blob exists (not whether its bytes are intact: `verify` does that)."""
        if self.folder is not None:
            return self.path_of(digest).is_file()
        return self._remote.has(digest)

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
            self._remote.put(digest, data)
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
        # A file already stored is only read, not copied.
        digest = digest_of_file(path)
        if folder is None:
            self._remote.put_file(digest, path)
            return digest
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
        """Remove a blob; the bytes freed (0 when it was not there). Not through the control plane: it collects itself."""
        if self.folder is None:
            return self._remote.delete(digest)
        path = self.path_of(digest)
        try:
            size = path.stat().st_size
            path.unlink()
        except FileNotFoundError:
            return 0
        return size

    def digests(self) -> Iterator[tuple[str, int]]:
        """Every blob with its size, in order. Not through the control plane."""
        folder = self.folder
        if folder is None:
            yield from self._remote.digests()
            return
        for path in sorted((folder / "sha256").glob("??/*")):
            if _DIGEST.fullmatch(path.name):
                yield path.name, path.stat().st_size

    def _open(self, digest: str) -> BinaryIO:
        if self.folder is None:
            return self._remote.open(digest)
        try:
            return self.path_of(digest).open("rb")
        except FileNotFoundError:
            hint = "upload it again, or set RML_STORE to the store that has it"
            raise BlobMissing(f"the store {self.url} has no blob {digest}: {hint}") from None

    def _corrupt(self, digest: str) -> str:
        return f"blob {digest} in {self.url} is damaged (other sha256): delete it there and store it again"


def blob_key(digest: str) -> str:
    """Where a blob lies below its store's root, in every kind of store."""
    # The digest becomes a path: nothing but hex may pass.
    if not _DIGEST.fullmatch(digest):
        raise StoreError(f"{digest!r} is no digest: 64 lowercase hex digits are expected")
    return f"sha256/{digest[:2]}/{digest}"


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
