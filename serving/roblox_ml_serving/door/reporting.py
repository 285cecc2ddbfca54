"""Tell the control plane, once a second, what this door has counted since it began: the guard compares versions by it.

Counts are cumulative, so a report that is lost or sent twice changes nothing, and a control plane that was away knows
everything with the next one.
One task, one request at a time, never in the way of an inference.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import socket
import time
from typing import Any
from urllib.parse import urlsplit

from roblox_ml_core.http import Pool
from roblox_ml_core.settings import ControlPlaneSettings, HomeSettings
from roblox_ml_core.telemetry import log

from .metrics import Metrics

__all__ = ["Reporter", "door_name"]

_EVERY_S, _TIMEOUT_S, _LONGEST_PAUSE_S = 1.0, 5.0, 10.0
logger = logging.getLogger(__name__)


def door_name(port: int) -> str:
    """What this door is called: its machine (in a cluster: its pod) and its port. A door that starts again is the same door, begun anew."""
    host = "".join(c if c.isalnum() or c in ".-_" else "-" for c in socket.gethostname()) or "door"
    return f"{host.lstrip('.-_')[:100] or 'door'}-{port}"


class Reporter:
    """Runs as a task until it is cancelled; `sent` and `failed` count reports."""

    def __init__(
        self,
        metrics: Metrics,
        name: str,
        control: ControlPlaneSettings,
        home: HomeSettings,
        *,
        every_s: float = _EVERY_S,
    ) -> None:
        self._metrics, self._home, self._every_s = metrics, home, every_s
        # Two lives of one door differ in this, and the first report of a life counts from zero.
        self._started_at = time.time() + os.getpid() * 1e-7
        parts = urlsplit(control.base_url)
        self._pool = Pool(f"{parts.scheme}://{parts.netloc}", max_connections=1, max_waiting=0)
        self._target = f"{parts.path.rstrip('/')}/v1/doors/{name}/counts".encode()
        self._last: list[dict[str, Any]] = []
        self._silent = False
        self.sent = self.failed = 0

    async def run(self) -> None:
        """Report for ever."""
        pause = self._every_s
        while True:
            await asyncio.sleep(pause)
            counts = self._metrics.counts()
            if counts == self._last and not self._silent and self.sent:
                continue  # nothing has happened: there is nothing to judge
            try:
                await self._send(counts)
            except asyncio.CancelledError:
                raise
            except Exception as error:  # whatever it is: the next report says it all
                self.failed += 1
                pause = min(_LONGEST_PAUSE_S, pause * 2) * random.uniform(0.8, 1.0)  # noqa: S311 - spreads doors
                if not self._silent:
                    self._silent = True
                    log(logger, logging.WARNING, "counts are not reported", reason=repr(error)[:300])
                continue
            if self._silent:
                log(logger, logging.INFO, "counts are reported again")
            self.sent += 1
            self._last, self._silent, pause = counts, False, self._every_s

    async def close(self) -> None:
        await self._pool.close()

    async def _send(self, counts: list[dict[str, Any]]) -> None:
        body = json.dumps({"started_at": self._started_at, "counts": counts}, separators=(",", ":")).encode()
        headers = [(b"content-type", b"application/json")]
        if token := self._home.read_token():
            headers.append((b"authorization", b"Bearer " + token.encode("ascii")))
        response = await self._pool.request(b"PUT", self._target, headers, body, timeout=_TIMEOUT_S)
        if response.status != 200:
            raise ConnectionError(f"HTTP {response.status}: {response.body[:200].decode(errors='replace')}")
