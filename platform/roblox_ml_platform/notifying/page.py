"""The page behind a message's link: the event as a mail shows it, for whoever has the link and for nobody else.

A browser has no bearer token, so the link itself is the permission: it carries a signature of the event's id, made with a key that
is derived from the home's token. The page shows what the message said, secrets already taken out, and nothing more.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable

from roblox_ml_core.settings import HomeSettings

__all__ = ["HEADERS", "PATH", "linker", "signature"]

PATH = "/n"
# Nothing on it runs, loads or is kept.
HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
}


def signature(event: str, token: str) -> str:
    """What makes a link to this event valid."""
    key = hashlib.sha256(b"rml event page\0" + token.encode()).digest()
    return hmac.new(key, event.encode(), hashlib.sha256).hexdigest()[:40]


def linker(base: str, home: HomeSettings) -> Callable[[str], str]:
    """A function from an event's id to its address."""
    token = home.ensure_token()
    return lambda event: f"{base.rstrip('/')}{PATH}?e={event}&k={signature(event, token)}"
