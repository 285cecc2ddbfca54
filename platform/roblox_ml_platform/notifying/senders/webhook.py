"""A webhook: the event as JSON, its id in a header (the receiver's key for telling a repetition), and a signature.

The signature covers the time and the exact bytes: `x-rml-signature: t=<seconds>,v1=<hex HMAC-SHA256 of "<t>.<body>">`.
"""

from __future__ import annotations

import hashlib
import hmac
import time

from ..outcome import Again, Outcome, of_status
from .http import Unreachable, post

__all__ = ["send", "sign"]


def send(
    url: str, body: bytes, *, event: str, type: str, attempt: int, secret: str, timeout: float, ca_file: str = ""
) -> Outcome:
    """POST the event's bytes; any 2xx means it was taken."""
    headers = {
        "content-type": "application/json",
        "user-agent": "roblox-ml",
        "x-rml-event-id": event,
        "x-rml-event-type": type,
        "x-rml-attempt": str(attempt),
    }
    if secret:
        headers["x-rml-signature"] = sign(secret, body, int(time.time()))
    try:
        answer = post(url, body, headers, timeout, ca_file)
    except Unreachable as error:
        return Again(str(error))
    return of_status(answer.status, answer.body, answer.retry_after, time.time())


def sign(secret: str, body: bytes, at: int) -> str:
    """The signature header's value."""
    mac = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={mac}"
