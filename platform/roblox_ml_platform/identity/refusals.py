"""Refused attempts in the audit trail: who (or from which address), what, and why not. Never the credential itself.

Somebody who is refused over and over writes a bounded number of rows a minute; the count of all of them is a metric.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from typing import Any

from prometheus_client import CollectorRegistry, Counter
from roblox_ml_core.auth.principal import Principal
from roblox_ml_core.errors import RmlError
from sqlalchemy import insert

from .. import tables as t
from ..database import Database

__all__ = ["Refusals"]

_LOG = logging.getLogger(__name__)
_ROWS_PER_MINUTE = 60


class Refusals:
    """Writes refusals, each in a transaction of its own: the one that was refused is rolled back."""

    def __init__(self, database: Database, registry: CollectorRegistry) -> None:
        self._database = database
        self._count = Counter("rml_control_refused_total", "Requests refused", ["code"], registry=registry)
        self._lock = threading.Lock()
        self._rows: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def record(
        self, error: RmlError, method: str, path: str, *, principal: Principal | None, address: str = ""
    ) -> None:
        """Keep one. Failing to keep it is logged and does not change the answer, which is a refusal anyway."""
        self._count.labels(error.code).inc()
        who = principal.id if principal is not None else f"address:{address}"
        if not self._may_write(who):
            return
        detail: dict[str, Any] = {"reason": error.message[:500], **error.details}
        if address:
            detail["address"] = address
        row = {
            "at": time.time(),
            "actor": principal.id if principal is not None else "unknown",
            "action": "refused",
            "subject": _plain(f"{method} {path}"),
            "detail": detail,
            "principal": principal.id if principal is not None else "unknown",
            "outcome": "refused",
        }
        try:
            with self._database.write() as connection:
                connection.execute(insert(t.audit).values(**row))
        except Exception:
            _LOG.exception("a refusal could not be written to the audit trail")

    def _may_write(self, who: str) -> bool:
        minute = int(time.monotonic() // 60)
        with self._lock:
            last, count = self._rows.get(who, (minute, 0))
            count = count + 1 if last == minute else 1
            self._rows[who] = (minute, count)
            self._rows.move_to_end(who)
            while len(self._rows) > 10_000:
                self._rows.popitem(last=False)
            return count <= _ROWS_PER_MINUTE


def _plain(text: str) -> str:
    """As a database and a terminal can take it."""
    return "".join(char if " " <= char <= "~" else "?" for char in text)[:300]
