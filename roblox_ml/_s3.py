"""Just enough of S3 for a blob store: Signature Version 4, and objects read, written, listed and deleted.

Written with `hmac` and urllib because it travels into steps, which have the standard library only. Addresses are path
style (`endpoint/bucket/key`), which every S3 server knows. The endpoint, region and keys come from the variables that
AWS's own tools read; they are asked for when a request is made and never kept in an object that could be printed.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import random
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, BinaryIO
from urllib.parse import quote, urlsplit

__all__ = ["Bucket", "Credentials", "ObjectMissing", "S3Error", "parse", "sign"]

EMPTY = hashlib.sha256(b"").hexdigest()
_SECONDS = 60.0
_ATTEMPTS = 5
_AGAIN = frozenset({500, 502, 503, 504})
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"[A-Za-z0-9._/~-]*")


class S3Error(OSError):
    """The object store refused or did not answer; the message says why and what to set. `code` is S3's own word."""

    def __init__(self, message: str, code: str = "", status: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


class ObjectMissing(S3Error):
    """There is no object of this key."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """An access key. The secret half is never shown."""

    key: str
    secret: str = field(repr=False)
    token: str = field(default="", repr=False)

    @classmethod
    def of_environment(cls) -> Credentials:
        """AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, for temporary ones, AWS_SESSION_TOKEN."""
        key, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
        if not key or not secret:
            missing = "AWS_SECRET_ACCESS_KEY" if key else "AWS_ACCESS_KEY_ID"
            raise S3Error(
                f"{missing} is not set: an s3:// store needs an access key (AWS_ACCESS_KEY_ID and its secret)"
            )
        return cls(key, secret, os.environ.get("AWS_SESSION_TOKEN") or "")


def parse(url: str) -> tuple[str, str]:
    """`s3://bucket/prefix` as (bucket, prefix)."""
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    # Nothing here may need quoting: the tiny program that starts a step puts it into an address as it stands.
    if not _NAME.fullmatch(bucket) or not _PREFIX.fullmatch(prefix):
        raise S3Error(f"{url!r} is no place in S3: s3://bucket/prefix is expected, of letters, digits and . _ ~ -")
    return bucket, prefix.strip("/")


def region() -> str:
    """AWS_REGION, else AWS_DEFAULT_REGION, else us-east-1 (what servers of one's own go by)."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"


def endpoint() -> str:
    """AWS_ENDPOINT_URL, else AWS itself in that region."""
    return (os.environ.get("AWS_ENDPOINT_URL") or f"https://s3.{region()}.amazonaws.com").rstrip("/")


def sign(
    method: str,
    url: str,
    headers: Mapping[str, str],
    payload: str,
    credentials: Credentials,
    *,
    region: str,
    at: float,
    service: str = "s3",
) -> dict[str, str]:
    """`headers` with those of Signature Version 4 added. `payload` is the body's sha256 as hex, `at` Unix time.

    "Signature Version 4 signing process", AWS General Reference. The path is taken as it stands (S3's rule).
    """
    parts = urlsplit(url)
    now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(at))
    scope = f"{now[:8]}/{region}/{service}/aws4_request"
    signed = {name.lower(): " ".join(value.split()) for name, value in headers.items()}
    signed |= {"host": parts.netloc.rpartition("@")[2], "x-amz-content-sha256": payload, "x-amz-date": now}
    if credentials.token:
        signed["x-amz-security-token"] = credentials.token
    names = ";".join(sorted(signed))
    # By name, then by value: the sign between them must not take part ("0=" would come after "00=").
    pairs = sorted(pair.partition("=")[::2] for pair in parts.query.split("&") if pair)
    query = "&".join(f"{name}={value}" for name, value in pairs)
    lines = [method, parts.path or "/", query, *(f"{n}:{signed[n]}" for n in sorted(signed)), "", names, payload]
    request = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    key = f"AWS4{credentials.secret}".encode()
    for part in scope.split("/"):
        key = _hmac(key, part)
    signature = _hmac(key, f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{request}").hex()
    signed["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={credentials.key}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    del signed["host"]  # the HTTP client says it, as it was signed
    return signed


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), "sha256").digest()


@dataclass(frozen=True, slots=True)
class Bucket:
    """Objects below `s3://name/prefix`; keys are relative to the prefix."""

    name: str
    prefix: str = ""

    def get(self, key: str) -> BinaryIO:
        """The object's bytes as a stream."""
        stream: BinaryIO = self._send("GET", key)
        return stream

    def head(self, key: str) -> tuple[int, float] | None:
        """(size, Unix time of the last write), or None where there is no such object."""
        from email.utils import parsedate_to_datetime

        try:
            with self._send("HEAD", key) as answer:
                said = answer.headers
                changed = said.get("Last-Modified")
                return int(said["Content-Length"]), parsedate_to_datetime(changed).timestamp() if changed else 0.0
        except ObjectMissing:
            return None
        except S3Error as error:
            if not error.status:
                raise
            # The answer to a HEAD has no body, so it cannot say why; the same question as a GET can.
            self._send("GET", key, headers={"range": "bytes=0-0"}).close()
            raise

    def put(self, key: str, body: bytes | IO[bytes], size: int, sha256: str, *, absent: bool = False) -> bool:
        """Write an object whole; the server refuses bytes of another sha256. False: `absent` asked, and it is there."""
        extra = {"if-none-match": "*"} if absent else {}
        try:
            self._send("PUT", key, body=body, size=size, payload=sha256, headers=extra).close()
        except S3Error as error:
            if absent and error.status in (409, 412):  # 409: another writer of the same bytes is about to finish
                return False
            if absent and error.status == 501:  # a server older than conditional writes: they save work, no more
                return self.put(key, body, size, sha256)
            raise
        return True

    def put_parts(self, key: str, source: IO[bytes], part: int, sha256: str) -> None:
        """Write an object in parts of `part` bytes. It appears whole, and only if the bytes have that sha256."""
        from ._s3_errors import field_of

        with self._send("POST", key, query="uploads") as answer:
            upload = quote(field_of(answer.read(), "UploadId"), safe="")
        whole, tags = hashlib.sha256(), list[str]()
        try:
            while chunk := source.read(part):
                whole.update(chunk)
                query = f"partNumber={len(tags) + 1}&uploadId={upload}"
                digest = hashlib.sha256(chunk).hexdigest()
                with self._send("PUT", key, query=query, body=chunk, size=len(chunk), payload=digest) as answer:
                    tags.append(answer.headers["ETag"])
            if whole.hexdigest() != sha256:
                raise S3Error(f"{key}: the bytes changed while they were sent: store them again", "BadDigest")
            rows = (f"<Part><PartNumber>{n}</PartNumber><ETag>{tag}</ETag></Part>" for n, tag in enumerate(tags, 1))
            told = f"<CompleteMultipartUpload>{''.join(rows)}</CompleteMultipartUpload>".encode()
            payload = hashlib.sha256(told).hexdigest()
            with self._send("POST", key, query=f"uploadId={upload}", body=told, size=len(told), payload=payload) as end:
                if b"<Error>" in (said := end.read()):  # S3 may say 200 and then fail
                    code = field_of(said, "Code")
                    raise S3Error(f"{key}: {code}: {field_of(said, 'Message')}", code)
        except BaseException:
            with contextlib.suppress(S3Error):  # what is left of it costs room, the error told is the first one
                self._send("DELETE", key, query=f"uploadId={upload}").close()
            raise

    def delete(self, key: str) -> None:
        """Remove an object; S3 does not say whether there was one."""
        self._send("DELETE", key).close()

    def listed(self, below: str = "") -> Iterator[tuple[str, int]]:
        """(key, size) of every object below a key, in order, however many pages they fill."""
        from xml.etree import ElementTree

        start = f"{self.prefix}/{below}".lstrip("/")
        more = ""
        while True:
            query = f"{more}list-type=2&prefix={quote(start, safe='')}"
            with self._send("GET", None, query=query) as answer:
                page = ElementTree.fromstring(answer.read())  # noqa: S314 - the store the operator named
            for item in page.iterfind("{*}Contents"):
                yield str(item.findtext("{*}Key")).removeprefix(f"{self.prefix}/"), int(item.findtext("{*}Size") or 0)
            token = page.findtext("{*}NextContinuationToken")
            if not token:
                return
            more = f"continuation-token={quote(token, safe='')}&"

    def _path(self, key: str | None) -> str:
        return "/" + "/".join(part for part in (self.name, self.prefix if key else "", key or "") if part)

    def _send(
        self,
        method: str,
        key: str | None,
        *,
        query: str = "",
        body: bytes | IO[bytes] | None = None,
        size: int = 0,
        payload: str = EMPTY,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """One request, repeated while the server is overloaded; the answer, or an error that says what to do."""
        from . import _s3_errors as wire  # brings urllib.request

        url = f"{endpoint()}{self._path(key)}{'?' if query else ''}{query}"
        begin = body.tell() if body is not None and not isinstance(body, bytes) else 0
        for attempt in range(1, _ATTEMPTS + 1):
            if body is not None and not isinstance(body, bytes):
                body.seek(begin)
            key_pair = Credentials.of_environment()
            told = sign(method, url, headers or {}, payload, key_pair, region=region(), at=time.time())
            if body is not None:
                told["content-length"] = str(size)
            try:
                return wire.exchange(method, url, told, body, _SECONDS)
            except S3Error as error:
                if attempt == _ATTEMPTS or (error.status not in _AGAIN and error.code != wire.CUT):
                    raise
            time.sleep(random.uniform(0.5, 1.0) * 0.1 * 2**attempt)  # noqa: S311 - spreads clients, no secret
        raise AssertionError("unreachable")
