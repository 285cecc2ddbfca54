"""Say who was reached by which arm, as the door does: only arms that answered, each once a day, in batches that nobody waits for."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

from .. import _siblings
from .._addresses import door_url
from .._rollouts.forking import renewed_after_fork
from .._rollouts.sending import Sender

__all__ = ["Exposures"]

_DAY_S = 86_400


class Exposures:
    """Of one endpoint. Offered = sent + waiting + dropped."""

    def __init__(self, endpoint: str, *, most: int) -> None:
        self._endpoint = endpoint
        self._seen = _siblings.load("roblox_ml_core.records.seen").Seen()
        self._parse = _siblings.load("roblox_ml_core.records.intake").parse_exposures
        self._lock = threading.Lock()
        self._sender = Sender(door_url, "/v1/exposures", "exposures", "exposures", most=most)
        renewed_after_fork(self)

    def renew(self) -> None:
        """In a forked process: what was said before the fork is its parent's to send."""
        self._lock = threading.Lock()

    def log(self, decision: Any, version: int, identity: str, *, reached: bool) -> None:
        """An answer went out. `reached`: it came from the version that was decided on; else the unit saw no arm of it."""
        now = time.time()
        day = int(now // _DAY_S)
        for experiment, arm, kind, unit in decision.exposures:
            if (experiment, arm) == decision.chosen and not reached:
                continue
            with self._lock:
                if not self._seen.first(experiment, unit, arm, day):
                    continue
            line = self._line({
                "endpoint": self._endpoint, "experiment": experiment, "arm": arm, "unit": unit, "unit_kind": kind,
                "version": version, "at": now, "inference_id": identity,
            })  # fmt: skip
            if line is None:
                self._sender.drop()
            elif not self._sender.offer(line):
                with self._lock:  # tried again when there is room
                    self._seen.forget(experiment, unit)

    def accounts(self) -> dict[str, int]:
        return self._sender.accounts()

    @property
    def problem(self) -> str:
        """Why nothing can be sent; empty when it can."""
        return self._sender.problem

    def flush(self) -> dict[str, int]:
        return self._sender.flush()

    def close(self, timeout: float) -> dict[str, int]:
        return self._sender.close(timeout)

    def end_soon(self) -> None:
        self._sender.end_soon()

    def _line(self, exposure: dict[str, Any]) -> bytes | None:
        """As it travels; None where the door would refuse it, and all that travels with it."""
        try:
            line = json.dumps(exposure, separators=(",", ":"), ensure_ascii=False).encode()
            self._parse(b'{"exposures":[' + line + b"]}")
        except Exception:  # of core's own kind, or a text that is no Unicode
            return None
        return line
