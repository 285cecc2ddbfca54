"""A request body that the door itself reads: only endpoints with preprocessing need it, everything else passes as bytes."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from .refusals import Reason, Refused

__all__ = ["decode_body"]

_WINDOW = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}


def decode_body(headers: Sequence[tuple[bytes, bytes]], body: bytes, limit: int) -> tuple[bytes, int | None]:
    """The body without its content coding, and the length of its JSON part where binary tensors follow.

    Raises:
        Refused: it is not what its headers say, or more than `limit` bytes.
    """
    length: int | None = None
    for name, value in headers:
        if name == b"content-encoding" and value.lower() in _WINDOW:
            body = _inflate(body, _WINDOW[value.lower()], limit)
        elif name == b"inference-header-content-length":
            if not value.isdigit() or len(value) > 12:
                raise Refused(
                    Reason.BAD_REQUEST,
                    f"Inference-Header-Content-Length is {value[:40]!r}; give the length of the JSON part in bytes",
                )
            length = int(value)
    return body, length


def _inflate(body: bytes, window: int, limit: int) -> bytes:
    decoder = zlib.decompressobj(window)
    try:
        plain = decoder.decompress(body, limit + 1)
    except zlib.error as error:
        raise Refused(Reason.BAD_REQUEST, f"the body is not compressed as its content-encoding says: {error}") from None
    if len(plain) > limit:
        raise Refused(Reason.TOO_LARGE, f"the request body is larger than {limit} bytes; send fewer items per request")
    if not decoder.eof:
        raise Refused(Reason.BAD_REQUEST, "the compressed body ends too early; send all of it")
    return plain
