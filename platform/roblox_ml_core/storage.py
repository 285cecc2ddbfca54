"""Content-addressed blobs over any fsspec URL: ``<store>/sha256/<first two hex>/<digest>`` holds the bytes of that digest.

A local folder is written through a temporary name and `os.replace`, so a reader never sees half a blob; any other file
system goes through fsspec the same way, but for a bucket (``s3:``, by s3fs), where an object appears whole by itself.
Endpoint, region and keys of a bucket come from AWS_* as in a step (`roblox_ml._s3`). An http(s) URL is the view of the
store that the control plane serves: read with GET, written with PUT. Every read verifies, so a tampered byte is an
`IntegrityError` and never an answer.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import unquote, urlsplit

from .digests import check_digest, is_digest, sha256_bytes, sha256_file
from .errors import IntegrityError, Invalid, NotFound, Unauthorized, Unavailable

__all__ = ["BlobStore", "blob_key"]

_CHUNK = 1 << 20
_YOUNG = 3600.0


def blob_key(digest: str) -> str:
    """Where a blob lies below the store's root."""
    check_digest(digest)
    return f"sha256/{digest[:2]}/{digest}"


class BlobStore:
    """A blob store at `url` (``file:``, ``http(s):``, ``memory:``, ``s3:`` …); a bare path means a local folder.

    `token` is sent as bearer token to an http store. All methods are safe to call from several threads and processes.
    """

    def __init__(self, url: str, *, token: str | None = None) -> None:
        self.url = url.rstrip("/")
        parts = urlsplit(url)
        self._token = token
        self._local: Path | None = None
        self._http = parts.scheme in ("http", "https")
        self._s3 = parts.scheme == "s3"
        if parts.scheme in ("", "file"):
            self._local = Path(unquote(parts.path) if parts.scheme else url)

    def __repr__(self) -> str:
        return f"BlobStore({self.url!r})"

    @property
    def local_root(self) -> Path | None:
        """The folder of a local store, else None."""
        return self._local

    # -- reading ---------------------------------------------------------------------------------------------------

    def has(self, digest: str) -> bool:
        """Whether the blob exists (its bytes are not read)."""
        return self.size(digest) is not None

    def size(self, digest: str) -> int | None:
        """The blob's length in bytes, or None where there is no such blob."""
        key = blob_key(digest)
        if self._local is not None:
            try:
                return (self._local / key).stat().st_size
            except FileNotFoundError:
                return None
        if self._http:
            answer = self._request("HEAD", key)
            return None if answer.status_code == 404 else int(answer.headers.get("content-length", 0))
        try:
            return int(self._info(key)["size"])
        except FileNotFoundError:
            return None

    def get(self, digest: str) -> bytes:
        """The blob's verified bytes."""
        with self.open(digest) as stream:
            data = stream.read()
        self._check(digest, sha256_bytes(data))
        return data

    def get_file(self, digest: str, target: Path) -> None:
        """Write the blob's verified bytes to `target`, which appears complete or not at all."""
        target.parent.mkdir(parents=True, exist_ok=True)
        seen = hashlib.sha256()
        with _draft(target) as draft, draft.open("wb") as out:
            with self.open(digest) as stream:
                while chunk := stream.read(_CHUNK):
                    seen.update(chunk)
                    out.write(chunk)
            self._check(digest, seen.hexdigest())

    def verify(self, digest: str) -> bool:
        """Whether the blob exists and its bytes have that digest."""
        try:
            with self.open(digest) as stream:
                return _hash(stream) == digest
        except NotFound:
            return False

    @contextlib.contextmanager
    def open(self, digest: str) -> Iterator[BinaryIO]:
        """The raw stream, not verified: for callers that hash while they read."""
        key = blob_key(digest)
        if self._http:
            with self._client().stream("GET", f"{self.url}/{key}", headers=self._headers()) as answer:
                self._raise_for(answer.status_code, digest)
                yield cast(BinaryIO, _IterReader(answer.iter_bytes(_CHUNK)))
            return
        try:
            if self._local is not None:
                stream: Any = (self._local / key).open("rb")
            else:
                with self._told():
                    stream = self._fs().open(self._remote(key), "rb")
        except FileNotFoundError:
            raise self._missing(digest) from None
        with stream:
            yield cast(BinaryIO, stream)

    # -- writing ---------------------------------------------------------------------------------------------------

    def put(self, data: bytes) -> str:
        """Store bytes; returns their digest."""
        digest = sha256_bytes(data)
        if not self._keep(digest, len(data)):
            with tempfile.TemporaryDirectory() as folder:
                draft = Path(folder) / "blob"
                draft.write_bytes(data)
                self._store(digest, draft)
        return digest

    def put_file(self, path: Path, digest: str | None = None) -> str:
        """Store a file; returns its digest. Where `digest` is given the file must have it."""
        actual = sha256_file(path)
        if digest is not None:
            self._check(digest, actual)
        if not self._keep(actual, path.stat().st_size):
            self._store(actual, path)
        return actual

    def delete(self, digest: str) -> bool:
        """Remove a blob; returns whether there was one."""
        key = blob_key(digest)
        if self._http:
            raise Invalid("blobs cannot be deleted through an http store", hint="ask the control plane: POST /v1/gc")
        try:
            if self._local is not None:
                (self._local / key).unlink()
            else:
                if self._s3:
                    self._info(key)  # S3 itself does not say whether there was one
                with self._told():
                    self._fs().rm_file(self._remote(key))
        except FileNotFoundError:
            return False
        return True

    def digests(self) -> Iterator[tuple[str, int, float]]:
        """Every blob as (digest, size, seconds since it was last written or kept); a local store only knows the age."""
        if self._http:
            raise Invalid("an http store cannot be listed", hint="ask the control plane: POST /v1/gc")
        if self._local is not None:
            now = time.time()
            for path in sorted((self._local / "sha256").glob("??/*")):
                if is_digest(path.name):
                    with contextlib.suppress(FileNotFoundError):
                        stat = path.stat()
                        yield path.name, stat.st_size, max(0.0, now - stat.st_mtime)
            return
        with self._told():
            found = self._fs().find(self._remote("sha256"), detail=True)
        for name, info in sorted(found.items()):
            if is_digest(digest := name.rsplit("/", 1)[-1]):
                yield digest, int(info["size"]), _age(info)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _keep(self, digest: str, size: int) -> bool:
        """Whether an intact blob of that size is there already; its age restarts, so that a sweep leaves it alone."""
        if self.size(digest) != size:
            return False
        if self._local is not None:
            with contextlib.suppress(FileNotFoundError, PermissionError):
                os.utime(self._local / blob_key(digest))
        if self._s3:
            # The server checks bytes when they come: reading them all again would only cost. What is old is written again,
            # which makes it young: collectors go by age.
            return _age(self._info(blob_key(digest))) < _YOUNG
        # A damaged blob of the right length must be healed by the next writer, not kept for ever.
        return self._http or self.verify(digest)

    def _store(self, digest: str, source: Path) -> None:
        key = blob_key(digest)
        if self._local is not None:
            target = self._local / key
            target.parent.mkdir(parents=True, exist_ok=True)
            with _draft(target) as draft, source.open("rb") as stream, draft.open("wb") as out:
                while chunk := stream.read(_CHUNK):
                    out.write(chunk)
        elif self._http:
            with source.open("rb") as stream:
                answer = self._client().put(f"{self.url}/{key}", content=_chunks(stream), headers=self._headers())
            self._raise_for(answer.status_code, digest, answer.text)
        elif self._s3:
            with self._told():
                self._fs().put_file(str(source), self._remote(key))
        else:
            fs, draft_name = self._fs(), self._remote(f"draft/{uuid.uuid4().hex}")
            fs.makedirs(self._remote("draft"), exist_ok=True)
            fs.makedirs(self._remote(key).rsplit("/", 1)[0], exist_ok=True)
            fs.put_file(str(source), draft_name)
            fs.mv(draft_name, self._remote(key))

    def _check(self, digest: str, actual: str) -> None:
        if digest != actual:
            raise IntegrityError(
                f"blob {digest} in {self.url} holds other bytes (sha256 {actual})",
                hint="the store is damaged or was changed behind its back: delete the blob and upload it again",
            )

    def _missing(self, digest: str) -> NotFound:
        hint = "upload it, or check that RML_STORE names the right store"
        return NotFound(f"blob {digest} is not in {self.url}", hint=hint)

    def _info(self, key: str) -> Any:
        with self._told():
            return self._fs().info(self._remote(key))

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """What s3fs and botocore raise, as an error of ours that says what to set; a missing object stays what it is."""
        if not self._s3:
            yield
            return
        from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

        try:
            yield
        except FileNotFoundError as error:
            if "bucket does not exist" in str(error).lower():
                raise Unavailable(f"{self.url}: {error}", hint="create the bucket, or correct RML_STORE") from None
            raise
        except (PermissionError, BotoCoreError, ClientError, OSError) as error:
            hint = "check AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            raise Unavailable(f"the bucket of {self.url} refuses or does not answer: {error}", hint=hint) from None

    def _fs(self) -> Any:
        import fsspec  # not needed by a local store, and slow to import

        return fsspec.core.url_to_fs(self.url, **(_s3_options() if self._s3 else {}))[0]

    def _remote(self, key: str) -> str:
        import fsspec

        root: str = fsspec.core.strip_protocol(self.url)
        return f"{root.rstrip('/')}/{key}"

    def _client(self) -> Any:
        import httpx

        client = self.__dict__.get("_pool")
        if client is None:
            verify = self.url.startswith("https:")  # plain http needs no certificates, and reading them is slow
            client = self.__dict__.setdefault(
                "_pool", httpx.Client(timeout=60.0, follow_redirects=False, verify=verify)
            )
        return client

    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self._token}"} if self._token else {}

    def _request(self, method: str, key: str) -> Any:
        answer = self._client().request(method, f"{self.url}/{key}", headers=self._headers())
        if answer.status_code != 404:
            self._raise_for(answer.status_code, key.rsplit("/", 1)[-1], answer.text)
        return answer

    def _raise_for(self, status: int, digest: str, text: str = "") -> None:
        if status == 404:
            raise self._missing(digest)
        if status in (401, 403):
            hint = "set RML_TOKEN, or use the home that holds the token file"
            raise Unauthorized(f"{self.url} refuses the token", hint=hint)
        if status >= 400:
            raise Unavailable(f"{self.url} answered {status} for blob {digest}: {text[:200]}")


class _IterReader:
    """`read` over an iterator of byte chunks."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        parts, have = [self._rest], len(self._rest)
        while size < 0 or have < size:
            chunk = next(self._chunks, b"")
            if not chunk:
                break
            parts.append(chunk)
            have += len(chunk)
        data = b"".join(parts)
        cut = len(data) if size < 0 else size
        self._rest = data[cut:]
        return data[:cut]

    def readinto(self, buffer: memoryview) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _hash(stream: BinaryIO) -> str:
    seen = hashlib.sha256()
    for chunk in _chunks(stream):
        seen.update(chunk)
    return seen.hexdigest()


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    while chunk := stream.read(_CHUNK):
        yield chunk


def _s3_options() -> dict[str, Any]:
    """s3fs as a step would ask: path-style addresses, AWS_ENDPOINT_URL, AWS_REGION; nothing remembered of listings."""
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    return {
        "endpoint_url": os.environ.get("AWS_ENDPOINT_URL") or None,
        "client_kwargs": {"region_name": region},
        "config_kwargs": {"s3": {"addressing_style": "path"}},
        "use_listings_cache": False,
    }


def _age(info: Any) -> float:
    """Seconds since an object was written, as far as its file system tells (fsspec has no one name for it)."""
    for field in ("mtime", "LastModified", "last_modified", "created", "updated"):
        value = info.get(field)
        if hasattr(value, "timestamp"):
            value = value.timestamp()
        if isinstance(value, int | float):
            return max(0.0, time.time() - value)
    return 0.0  # unknown: as young as can be, so that no sweep removes it


@contextlib.contextmanager
def _draft(target: Path) -> Iterator[Path]:
    """A temporary neighbour of `target` that takes its name when the block ends well, and vanishes when it does not."""
    draft = target.with_name(f".{target.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
    try:
        yield draft
        with draft.open("rb") as stream:
            os.fsync(stream.fileno())  # the name must not survive a power cut that the bytes do not
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
