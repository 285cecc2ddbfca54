"""Just enough HTTP/1.1 for a generator and a stub on one core: find where a message ends, in microseconds.

A client or server library here would cost more than what is measured.
"""

from __future__ import annotations

import re

__all__ = ["end_of"]

_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_LAST_CHUNK = b"\r\n0\r\n\r\n"


def end_of(data: bytes | bytearray) -> int:
    """Where the first message in `data` ends; -1 while it is not complete.

    >>> end_of(b"HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\n\\r\\nokHTTP")
    40
    """
    head = data.find(_END)
    if head < 0:
        return -1
    found = _LENGTH.search(data, 0, head)
    if found is None:
        if _CHUNKED.search(data, 0, head) is None:
            return head + 4
        last = data.find(_LAST_CHUNK, head + 2)
        return -1 if last < 0 else last + len(_LAST_CHUNK)
    end = head + 4 + int(found[1])
    return end if len(data) >= end else -1
