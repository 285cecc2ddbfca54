"""A request body that the door itself reads, and a client that may go away while it is answered.

Only endpoints with preprocessing need either: everything else passes as bytes, and its model server answers to nobody.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Sequence
from typing import TypeVar

from roblox_ml_core.http.asgi import Receive

from .refusals import Reason, Refused

__all__ = ["HungUp", "decode_body", "while_connected"]

T = TypeVar("T")
_WINDOW = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}


class HungUp(Exception):
    """The client closed its connection while its answer was computed."""


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


async def while_connected(work: Awaitable[T], receive: Receive) -> T:
    """The result of `work`, which is cancelled when the client hangs up. The request's body has been received.

    Raises:
        HungUp: it did.
    """
    here = asyncio.current_task()
    assert here is not None
    gone = False

    def hung_up(_: object) -> None:
        nonlocal gone
        if not watching.cancelled():
            gone = True
            here.cancel()

    watching = asyncio.ensure_future(receive())
    watching.add_done_callback(hung_up)
    try:
        return await work
    except asyncio.CancelledError:
        if gone and here.uncancel() == 0:
            raise HungUp from None
        raise
    finally:
        watching.remove_done_callback(hung_up)
        watching.cancel()
