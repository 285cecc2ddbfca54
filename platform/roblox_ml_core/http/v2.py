"""What model servers mean by their answers to v2 requests over REST, where the status alone does not say it. Pure."""

from __future__ import annotations

__all__ = ["lacks_model"]


def lacks_model(status: int, body: bytes) -> bool:
    """The server does not hold the version although it was reported ready: it has just restarted, or is full."""
    return status in (404, 503) or (status == 400 and b"unknown model" in body[:512])
