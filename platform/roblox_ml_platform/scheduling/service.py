"""The background part of scheduling: a thread that does a round every second, in one replica at a time.

Its lease only keeps replicas from doing the same reads; that nothing is decided twice is the transactions' work (`work`).
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import uuid
from collections.abc import Callable

from prometheus_client import Counter
from roblox_ml_core.settings import HomeSettings
from roblox_ml_core.telemetry import log
from sqlalchemy import delete, insert, select, update

from ..context import Context
from ..database import now
from ..tables import leases
from .datasets import look
from .measures import Measures
from .work import round_of

__all__ = ["Scheduler"]

_LOG = logging.getLogger(__name__)
_LEASE, _LEASE_S = "scheduler", 10.0
_TICK_S = 1.0
_LOOK_S = 2.0  # how often the folder of data sets is looked at
_PAUSE_S = 5.0


class Scheduler:
    """Runs in a thread from `start` to `stop`; `step` is one tick. `clock` is the only clock it knows."""

    def __init__(self, context: Context, clock: Callable[[], float] = now) -> None:
        self._context, self._clock = context, clock
        self._database = context.database
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._holder = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self._lease_until = float("-inf")
        self._looked = float("-inf")
        self._datasets = HomeSettings().root / "datasets"
        context.metrics.register(Measures(context.database, clock))
        self._count = Counter("rml_scheduler_work_total", "Work done, by kind", ["kind"], registry=context.metrics)

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End, and wait until it has; another replica may take over at once."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10)
            with self._database.write() as connection:
                connection.execute(delete(leases).where(leases.c.name == _LEASE, leases.c.holder == self._holder))

    def step(self) -> dict[str, int]:
        """Do what there is to do now, if this process holds the lease."""
        at = self._clock()
        if not self._lease(at):
            return {}
        if at - self._looked >= _LOOK_S:
            look(self._database, self._datasets, at)
            self._looked = at
        done = round_of(self._database, at)
        for kind, count in done.items():
            self._count.labels(kind).inc(count)
        return done

    def _run(self) -> None:
        while not self._stop.wait(_TICK_S):
            try:
                self.step()
            except Exception as error:  # a database that does not answer, say: what is due stays due
                text = f"{type(error).__name__}: {error}"[:500]
                log(_LOG, logging.ERROR, "scheduling failed", error=text, retry_s=_PAUSE_S)
                self._stop.wait(_PAUSE_S)

    def _lease(self, at: float) -> bool:
        if at < self._lease_until - _LEASE_S / 2:
            return True
        with self._database.write() as connection:
            query = select(leases).where(leases.c.name == _LEASE).with_for_update()
            row = connection.execute(query).mappings().one_or_none()
            if row is not None and row["holder"] != self._holder and row["expires_at"] > at:
                return False
            values = {"holder": self._holder, "expires_at": at + _LEASE_S}
            if row is None:
                connection.execute(insert(leases).values(name=_LEASE, **values))
            else:
                connection.execute(update(leases).where(leases.c.name == _LEASE).values(**values))
        self._lease_until = at + _LEASE_S
        return True
