"""One feature server, asked through the pooled client; left alone for a while when it does not answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

from roblox_ml_core.http import (
    DeadlineExceeded,
    Pool,
    PoolBusy,
    ProtocolViolation,
    Response,
    ResponseTooLarge,
    UpstreamError,
)

from .wire import CONTENT_TYPE, PATH, Ask, Block, Rows, WireError, read_answer, write_request

__all__ = ["FeatureClient", "Unanswered"]

#: So many failures one after another, and only one request per `_PAUSE_S` is sent until one succeeds.
_FAILURES = 3
_PAUSE_S = 0.5
_MAX_ANSWER = 64 << 20


class Unanswered(Exception):
    """No features. `reason` is a word for a metric: slow, unreachable, busy, refused, broken or paused."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class FeatureClient:
    """The connection to the feature server at `url`; `token` is sent as a bearer token."""

    def __init__(self, url: str, token: str | None = None) -> None:
        self._pool = Pool(url, max_connections=64, max_waiting=256, connect_timeout=0.5, max_response_bytes=_MAX_ANSWER)
        self._headers = [(b"content-type", CONTENT_TYPE)]
        if token:
            self._headers.append((b"authorization", b"Bearer " + token.encode("ascii")))
        self._failures = 0
        self._next = 0.0

    async def ask(self, blocks: Sequence[Block], asks: Sequence[Ask], deadline: float) -> list[Rows]:
        """The views' rows, in the order asked.

        Raises:
            Unanswered: there are none, with why.
        """
        now = asyncio.get_running_loop().time()
        if self._failures >= _FAILURES:
            if now < self._next:
                raise Unanswered("paused", f"{self._pool.url} has not answered lately")
            self._next = now + _PAUSE_S  # whoever comes first finds out whether it is back
        try:
            rows = await self._exchange(blocks, asks, deadline, now)
        except Unanswered as error:
            # A server that refuses one request is there for the others.
            if error.reason != "refused":
                self._failures += 1
                self._next = max(self._next, now + _PAUSE_S)
            raise
        self._failures = 0
        return rows

    async def close(self) -> None:
        await self._pool.close()

    async def _exchange(self, blocks: Sequence[Block], asks: Sequence[Ask], deadline: float, now: float) -> list[Rows]:
        headers = [*self._headers, (b"x-rml-timeout-ms", b"%d" % max(1, int((deadline - now) * 1000)))]
        try:
            response = await self._pool.request(b"POST", PATH, headers, write_request(blocks, asks), deadline=deadline)
        except DeadlineExceeded as error:
            raise Unanswered("slow", str(error)) from error
        except PoolBusy as error:
            raise Unanswered("busy", str(error)) from error
        except (ProtocolViolation, ResponseTooLarge) as error:
            raise Unanswered("broken", str(error)) from error
        except UpstreamError as error:
            raise Unanswered("unreachable", str(error)) from error
        if response.status != 200:
            busy, failed = response.status in (429, 503), response.status >= 500
            reason = "busy" if busy else "broken" if failed else "refused"
            raise Unanswered(reason, f"{self._pool.url} answered {response.status}: {_said(response)}")
        try:
            rows = read_answer(response.body)
            _check(rows, blocks, asks)
        except WireError as error:
            raise Unanswered("broken", f"{self._pool.url}: {error}") from error
        return rows


def _check(rows: Sequence[Rows], blocks: Sequence[Block], asks: Sequence[Ask]) -> None:
    if [one.view for one in rows] != [ask.view for ask in asks]:
        raise WireError(f"it answered the views {[one.view for one in rows]} to {[ask.view for ask in asks]}")
    for one, ask in zip(rows, asks, strict=True):
        shape = (len(ask.features), len(blocks[ask.block].keys))
        if not one.error and one.values.shape != shape:
            raise WireError(f"view {ask.view!r} has {one.values.shape} values, asked were {shape}")


def _said(response: Response) -> str:
    try:
        error = json.loads(response.body)["error"]
        return f"{error['message']} {error.get('hint', '')}".strip()[:300]
    except (ValueError, KeyError, TypeError, AttributeError):
        return response.body[:200].decode("utf-8", "replace")
