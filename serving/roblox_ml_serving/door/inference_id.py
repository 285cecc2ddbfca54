"""The id every inference has: made here, or kept when the client brought one, and returned either way.

Made ids have the layout of UUID version 7 (RFC 9562): they sort by time, so a request log stays in order.
"""

from __future__ import annotations

import re
import time
from random import getrandbits

from .refusals import Reason, Refused

__all__ = ["HEADER", "keep_or_make", "make"]

HEADER = "x-rml-inference-id"
_ALLOWED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}\Z")
_VERSION_AND_VARIANT = (0x7 << 76) | (0x2 << 62)
_RANDOM = (1 << 80) - 1 - (0xF << 76) - (0x3 << 62)


def make() -> str:
    """A new id: 48 bits of milliseconds, 74 random bits. Unique, not secret: a system call for each would be a waste."""
    value = (time.time_ns() // 1_000_000) << 80 | getrandbits(80) & _RANDOM | _VERSION_AND_VARIANT
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def keep_or_make(given: str | None) -> str:
    """The client's id, or a new one.

    Raises:
        Refused: the id could not be logged or joined safely.
    """
    if not given:
        return make()
    if not _ALLOWED.match(given):
        raise Refused(
            Reason.BAD_REQUEST,
            f"{HEADER} may hold 1 to 128 letters, digits, '.', '_', ':' and '-', starting with a letter or digit; "
            "leave it out and the door makes one",
        )
    return given
