"""Service tokens: ``rml_<id>_<secret><checksum>``. The server keeps a hash; the id is what people see and name.

The secret has 238 random bits, so a plain sha256 is enough to keep it: there is no dictionary to try. The checksum lets a
scanner tell a token from a look-alike, and lets a server refuse a mistyped one without asking its database. The fixed
prefix is what secret scanners (in repositories, in logs) search for.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import zlib
from dataclasses import dataclass

from ..errors import Unauthorized

__all__ = ["PREFIX", "ServiceToken", "digest_of", "is_service_token", "make", "parse"]

PREFIX = "rml_"
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID, _SECRET, _CHECK = 12, 40, 6
_SHAPE = re.compile(rf"rml_([0-9A-Za-z]{{{_ID}}})_([0-9A-Za-z]{{{_SECRET}}})([0-9A-Za-z]{{{_CHECK}}})", re.ASCII)


@dataclass(frozen=True, slots=True)
class ServiceToken:
    """A token taken apart. `text` is the secret itself and must go nowhere but to its owner."""

    text: str
    id: str
    digest: str

    @property
    def shown(self) -> str:
        """What lists and audit trails show."""
        return PREFIX + self.id

    def __repr__(self) -> str:
        return f"ServiceToken({self.shown}_…)"  # a token in a traceback or a log is a leak


def make() -> ServiceToken:
    """A new random token."""
    head = f"{PREFIX}{_random(_ID)}_{_random(_SECRET)}"
    return parse(head + _checksum(head))


def is_service_token(text: str) -> bool:
    """Whether the text claims to be one of ours (whole or not)."""
    return text.startswith(PREFIX)


def parse(text: str) -> ServiceToken:
    """Take a token apart; `Unauthorized` when it is cut, mistyped or not one at all. Says nothing of whether it is valid."""
    match = _SHAPE.fullmatch(text)
    if match is None or not secrets.compare_digest(_checksum(text[:-_CHECK]), match[3]):
        raise Unauthorized(
            "this is not a whole service token", hint="copy it again: rml_, 12 characters, _, 46 characters"
        )
    return ServiceToken(text, match[1], digest_of(text))


def digest_of(text: str) -> str:
    """What is stored of a token."""
    return hashlib.sha256(text.encode()).hexdigest()


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def _checksum(text: str) -> str:
    number = zlib.crc32(text.encode())
    digits = ""
    while number:
        number, digit = divmod(number, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits.rjust(_CHECK, "0")
