"""Blob stores that are reached over a network: the control plane's HTTP view of a store, and a bucket.

Both are asked one question a request and keep nothing between them, so they serve any number of threads and processes.
Whoever reads verifies (`_store.py`); a bucket verifies what is written as well, because a blob's name is the very
checksum that S3 signs.
"""

from __future__ import annotations

import contextlib
import io
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from . import _s3
from ._store import BlobMissing, StoreError, blob_key

__all__ = ["Remote", "remote"]

_HTTP_SECONDS = 60.0
_PARTS_ABOVE = 64 << 20
_PART = 16 << 20
_MOST_PARTS = 9_000  # S3 takes 10,000
_YOUNG = 3600.0


class Remote(Protocol):
    """What a store over a network does; digests are checked, bytes are not (the caller does)."""

    def has(self, digest: str) -> bool: ...
    def open(self, digest: str) -> BinaryIO: ...
    def put(self, digest: str, data: bytes) -> None: ...
    def put_file(self, digest: str, path: Path) -> None: ...
    def delete(self, digest: str) -> int: ...
    def digests(self) -> Iterator[tuple[str, int]]: ...


def remote(url: str) -> Remote:
    """The store behind an `http(s)://` or `s3://` address."""
    if url.startswith("s3://"):
        with _told(url):
            return S3Blobs(url, _s3.Bucket(*_s3.parse(url)))
    return HttpBlobs(url.rstrip("/"))


@dataclass(frozen=True, slots=True)
class HttpBlobs:
    """The control plane serves the store's layout: GET, HEAD and PUT, with the bearer token."""

    url: str

    def has(self, digest: str) -> bool:
        try:
            with self._send("HEAD", digest):
                return True
        except BlobMissing:
            return False

    def open(self, digest: str) -> BinaryIO:
        return self._send("GET", digest)

    def put(self, digest: str, data: bytes) -> None:
        self._put(digest, io.BytesIO(data), len(data))

    def put_file(self, digest: str, path: Path) -> None:
        with path.open("rb") as stream:
            self._put(digest, stream, path.stat().st_size)

    def delete(self, digest: str) -> int:
        raise StoreError(
            f"{self.url} is reached over HTTP: blob {digest} is deleted by the control plane (POST /v1/gc)"
        )

    def digests(self) -> Iterator[tuple[str, int]]:
        raise StoreError(f"{self.url} is reached over HTTP and cannot be listed")

    def _put(self, digest: str, stream: BinaryIO, size: int) -> None:
        if not self.has(digest):
            self._send("PUT", digest, stream, size).close()

    def _send(self, method: str, digest: str, body: BinaryIO | None = None, size: int = 0) -> BinaryIO:
        url = f"{self.url}/{blob_key(digest)}"
        request = urllib.request.Request(url, data=body, method=method)  # noqa: S310 - http(s), or we were not called
        if body is not None:
            request.add_header("Content-Length", str(size))
        from ._credentials import token_for  # it reads the home from `_store`, which loads this module

        if token := token_for(self.url):
            request.add_unredirected_header("Authorization", f"Bearer {token}")
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


@dataclass(frozen=True, slots=True)
class S3Blobs:
    """A bucket. An object appears whole or not at all, so no temporary names are needed."""

    url: str
    bucket: _s3.Bucket

    def has(self, digest: str) -> bool:
        key = blob_key(digest)
        with _told(self.url):
            return self.bucket.head(key) is not None

    def open(self, digest: str) -> BinaryIO:
        key = blob_key(digest)
        with _told(self.url):
            return self.bucket.get(key)

    def put(self, digest: str, data: bytes) -> None:
        self._put(digest, io.BytesIO(data), len(data))

    def put_file(self, digest: str, path: Path) -> None:
        with path.open("rb") as stream:
            self._put(digest, stream, path.stat().st_size)

    def delete(self, digest: str) -> int:
        key = blob_key(digest)
        with _told(self.url):
            found = self.bucket.head(key)
            if found is None:
                return 0
            self.bucket.delete(key)
            return found[0]

    def digests(self) -> Iterator[tuple[str, int]]:
        with _told(self.url):
            for key, size in self.bucket.listed("sha256/"):
                digest = key.rpartition("/")[2]
                if re.fullmatch(r"[0-9a-f]{64}", digest) and key == blob_key(digest):
                    yield digest, size

    def _put(self, digest: str, stream: BinaryIO, size: int) -> None:
        key = blob_key(digest)
        with _told(self.url):
            found = self.bucket.head(key)
            # A collector goes by age: what is old and wanted again is written again, which makes it young. (A copy onto
            # itself would do on AWS, but not every server gives it a new time.)
            if found is not None and found[0] == size and time.time() - found[1] < _YOUNG:
                return
            if size > _PARTS_ABOVE:
                self.bucket.put_parts(key, stream, max(_PART, -(-size // _MOST_PARTS)), digest)
            else:
                # An object of the right name and another size is damaged, and is written over.
                self.bucket.put(key, stream, size, digest, absent=found is None)


@contextlib.contextmanager
def _told(url: str) -> Iterator[None]:
    """The bucket's errors as the store's."""
    try:
        yield
    except _s3.ObjectMissing as error:
        hint = "upload it again, or set RML_STORE to the store that has it"
        raise BlobMissing(f"the store {url} has no such blob: {error}; {hint}") from None
    except _s3.S3Error as error:
        raise StoreError(f"the store {url}: {error}") from None
