"""The model servers of one text model: which to ask, how many instances each has, and a batch as one v2 request.

A batch travels as binary tensors: the token ids of all rows one after the other, and how many each row has. Padding is made
where it is needed, in front of the engine.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from roblox_ml_core.http import (
    ConnectFailed,
    ConnectionLost,
    DeadlineExceeded,
    Pool,
    PoolBusy,
    ProtocolViolation,
    Response,
    ResponseTooLarge,
    UpstreamError,
)
from roblox_ml_core.http.health import usable

from ..door.fleet import Fleet, Server
from ..door.refusals import Reason, Refused
from ..door.snapshot import Version
from .batching import Row
from .dispatch import BatchLost

__all__ = ["Replicas", "decode", "encode"]

_LENGTH = b"inference-header-content-length"
_ASK_AGAIN_S = 2.0


class Replicas:
    """The servers that hold one version. `names` follows the snapshot."""

    def __init__(self, fleet: Fleet, version: Version, per_token: bool) -> None:
        self._fleet = fleet
        self._base = f"/v2/models/{version.model}.{version.version}.batch/versions/{version.version}".encode()
        self._what = version.key
        self._per_token = per_token
        self.names: tuple[str, ...] = ()
        self._instances: dict[Server, int] = {}
        self._asked: dict[Server, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def servers(self) -> Sequence[Server]:
        """Those that have not just lost a batch, if there is one; else all."""
        found = self._fleet.named(self.names)
        if len(found) < 2:
            return found
        now = time.monotonic()
        return list(usable(found, now))

    def instances(self, server: Server) -> int:
        """As the server's configuration says; one until it has answered."""
        known = self._instances.get(server)
        if known is None:
            self._learn(server)
        return known or 1

    async def compute(self, server: Server, rows: Sequence[Row], deadline: float) -> list[Any]:
        server.health.in_flight += 1
        try:
            headers, body = encode(rows)
            response = await server.pool.request(
                b"POST", self._base + b"/infer", headers, body, deadline=deadline, resend_safe=True
            )
        except DeadlineExceeded as error:
            raise Refused(Reason.DEADLINE, f"{self._what} did not answer before the deadline ({error})") from error
        except (ConnectFailed, ConnectionLost) as error:
            self._fleet.failed(server, lost=True)
            self._instances.pop(server, None)  # it may come back with another number of them
            raise BatchLost(f"{server.name}: {error.message}") from error
        except PoolBusy as error:
            raise BatchLost(f"{server.name}: {error.message}") from error
        except (ProtocolViolation, ResponseTooLarge) as error:
            raise Refused(Reason.BAD_UPSTREAM, f"{self._what}: {error}") from error
        finally:
            server.health.in_flight -= 1
        if response.status != 200:
            said = response.body[:300].decode(errors="replace")
            if response.status >= 500 or response.status == 404 or b"unknown model" in response.body[:512]:
                self._fleet.failed(server, lost=True)
                raise BatchLost(f"{server.name}: {said}")
            raise Refused(Reason.BAD_UPSTREAM, f"{self._what}: its server answered {response.status}: {said}")
        try:
            return decode(response, rows, self._per_token)
        except (ValueError, KeyError, TypeError) as error:
            raise Refused(Reason.BAD_UPSTREAM, f"{self._what}: its server's answer cannot be read: {error}") from error

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _learn(self, server: Server) -> None:
        now = time.monotonic()
        if now - self._asked.get(server, -_ASK_AGAIN_S) < _ASK_AGAIN_S:
            return
        self._asked = {known: at for known, at in self._asked.items() if now - at < _ASK_AGAIN_S}
        self._asked[server] = now
        task = asyncio.get_running_loop().create_task(self._ask_instances(server))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask_instances(self, server: Server) -> None:
        pool: Pool = server.pool
        try:
            answer = await pool.request(b"GET", self._base + b"/config", timeout=_ASK_AGAIN_S)
            groups = json.loads(answer.body).get("instance_group", ()) if answer.status == 200 else ()
            count = sum(int(group.get("count", 1)) for group in groups)
        except (UpstreamError, ValueError, AttributeError, TypeError):
            return
        if count > 0:
            self._instances[server] = count


def encode(rows: Sequence[Row]) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Headers and body of the request for a batch."""
    ids = b"".join(row.ids for row in rows)
    lengths = np.fromiter((row.length for row in rows), dtype="<i4", count=len(rows)).tobytes()
    head = (
        b'{"inputs":[{"name":"IDS","datatype":"INT32","shape":[1,%d],"parameters":{"binary_data_size":%d}},'
        b'{"name":"LENGTHS","datatype":"INT32","shape":[1,%d],"parameters":{"binary_data_size":%d}}],'
        b'"outputs":[{"name":"LOGITS","parameters":{"binary_data":true}}]}'
        % (len(ids) // 4, len(ids), len(rows), len(lengths))
    )
    return [(_LENGTH, b"%d" % len(head))], head + ids + lengths


def decode(response: Response, rows: Sequence[Row], per_token: bool) -> list[Any]:
    """The logits of each row: [n], or [tokens, n] for token classification.

    Raises:
        ValueError, KeyError, TypeError: the answer is not one to this batch.
    """
    length = int(response.header(_LENGTH) or b"")
    outputs = json.loads(response.body[:length])["outputs"]
    if len(outputs) != 1 or outputs[0]["name"] != "LOGITS" or outputs[0]["datatype"] != "FP32":
        raise ValueError("it has other outputs than LOGITS FP32")
    classes = int(outputs[0]["shape"][-1])
    lines = sum(row.length for row in rows) if per_token else len(rows)
    logits = np.frombuffer(response.body, dtype="<f4", offset=length)
    if classes < 1 or logits.size != lines * classes:
        raise ValueError(f"{logits.size} numbers for {lines} lines of {classes}")
    logits = logits.reshape(lines, classes)
    if not per_token:
        return list(logits)
    ends = np.cumsum([row.length for row in rows])[:-1]
    return list(np.split(logits, ends))
