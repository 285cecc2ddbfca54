"""What can go wrong between the pooled client and an upstream, told apart by what the caller may do next.

The tree::

    UpstreamError
    ├── ConnectFailed       nobody answered the connection: nothing was sent, ask elsewhere
    ├── ConnectionLost      the connection ended early; `response_started` says whether an answer had begun
    ├── DeadlineExceeded    the caller's time is over
    ├── PoolBusy            every connection is taken and the line is full: shed load
    ├── ProtocolViolation   the upstream does not speak HTTP/1.1
    └── ResponseTooLarge    the answer is larger than the caller allowed
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from roblox_ml_core.errors import Unavailable

__all__ = [
    "ConnectFailed",
    "ConnectionLost",
    "DeadlineExceeded",
    "PoolBusy",
    "ProtocolViolation",
    "ResponseTooLarge",
    "UpstreamError",
]


class UpstreamError(Unavailable):
    """Base: an exchange with an upstream did not end in a complete answer."""


class ConnectFailed(UpstreamError):
    """No connection: refused, unreachable or too slow to accept. Nothing of the request was sent."""


class ConnectionLost(UpstreamError):
    """The connection ended before the answer was complete."""

    code = "connection_lost"

    def __init__(
        self, message: str, *, response_started: bool = False, hint: str = "", details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message, hint=hint, details=details)
        self.response_started = response_started


class DeadlineExceeded(UpstreamError):
    """The deadline passed before the answer was complete."""

    code = "deadline_exceeded"
    status = 504


class PoolBusy(UpstreamError):
    """All connections are in use and as many callers as allowed wait already."""


class ProtocolViolation(UpstreamError):
    """The upstream sent what is not an HTTP/1.1 response."""

    code = "bad_upstream"
    status = 502


class ResponseTooLarge(UpstreamError):
    """The answer's head or body passes its limit."""

    code = "response_too_large"
    status = 502
