"""HTTP for hot paths: a pooled asyncio client and a server, both over httptools.

Frameworks and general clients cost more per request than the work behind them: on one core, httpx spends about two
milliseconds where this client spends tens of microseconds. What is not hot uses httpx.
"""

from __future__ import annotations

from .client import Exchange, Pool, Response
from .errors import (
    ConnectFailed,
    ConnectionLost,
    DeadlineExceeded,
    PoolBusy,
    ProtocolViolation,
    ResponseTooLarge,
    UpstreamError,
)

__all__ = [
    "ConnectFailed",
    "ConnectionLost",
    "DeadlineExceeded",
    "Exchange",
    "Pool",
    "PoolBusy",
    "ProtocolViolation",
    "Response",
    "ResponseTooLarge",
    "UpstreamError",
]
