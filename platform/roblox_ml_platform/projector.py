"""The thread that keeps MLflow a copy of the registry: works off the outbox, backs off while MLflow is down, looks for drift.

One replica at a time holds the lease and does this. Nothing here is on the way of a registration: MLflow may be down for a
day, and the copy catches up afterwards.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from typing import Any

from roblox_ml_core.telemetry import log
from sqlalchemy import delete, insert, select, update

from . import mlflow_state
from . import tables as t
from .database import Database, now
from .projection import compare, project, read_wanted

__all__ = ["Projector"]

_LOG = logging.getLogger(__name__)
_LEASE, _LEASE_S = "mlflow-projector", 30.0
_TICK_S = 0.5
_BACK_OFF_S = (1.0, 15.0)


class Projector:
    """Start it with `start`, end it with `stop`; `error` is the reason of the last failure, None while all is well."""

    def __init__(self, database: Database, url: str, *, check_s: float = 15.0) -> None:
        self._database, self._url, self._check_s = database, url, check_s
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._holder = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self._client: Any = None
        self._lease_until = 0.0
        self.error: str | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="mlflow-projector", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end and wait briefly; what it had in hand is done again by the next one."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def _run(self) -> None:
        pause, next_check = _BACK_OFF_S[0], 0.0
        while not self._stop.wait(_TICK_S):
            try:
                if not self._lease():
                    continue
                self.work()
                if time.monotonic() >= next_check:
                    self.check()
                    next_check = time.monotonic() + self._check_s
                self.error, pause = None, _BACK_OFF_S[0]
            except Exception as error:  # whatever it was, the outbox still has the work
                text = f"{type(error).__name__}: {error}"[:500]
                log(_LOG, logging.WARNING, "MLflow projection failed", error=text, retry_s=pause, url=self._url)
                self.error = text
                self._stop.wait(pause)
                pause = min(2 * pause, _BACK_OFF_S[1])

    def work(self) -> int:
        """Project every model that waits for it; returns how many. One that MLflow refuses does not hold up the others."""
        with self._database.read() as connection:
            waiting = mlflow_state.pending(connection)
        client = self._mlflow() if waiting else None
        failed: Exception | None = None
        for model, last in waiting:
            try:
                self._project(client, model, last)
            except Exception as error:
                if _refused(error):
                    failed = failed or error
                else:
                    raise  # MLflow does not answer: the next model would only wait as long again
        if failed is not None:
            raise failed
        return len(waiting)

    def _project(self, client: Any, model: str, last: int) -> None:
        with self._database.read() as connection:
            wanted, written = read_wanted(connection, model), mlflow_state.projected(connection, model)
        try:
            project(client, wanted, written)
        finally:
            # Even a projection cut short has written something, and the next one must know.
            with self._database.write() as connection:
                mlflow_state.save(connection, model, written, [_unfinished()])
        differences = compare(client, wanted, written)
        with self._database.write() as connection:
            mlflow_state.save(connection, model, written, differences)
            connection.execute(delete(t.outbox).where(t.outbox.c.model == model, t.outbox.c.id <= last))

    def check(self) -> None:
        """Compare every projected model with MLflow and note what was changed there behind our back."""
        with self._database.read() as connection:
            models = list(connection.execute(select(t.mlflow_models.c.model)).scalars())
        for model in models:
            if self._stop.is_set():
                return
            with self._database.read() as connection:
                wanted, written = read_wanted(connection, model), mlflow_state.projected(connection, model)
                before = connection.execute(
                    select(t.mlflow_models.c.differences).where(t.mlflow_models.c.model == model)
                ).scalar()
            differences = compare(self._mlflow(), wanted, written)
            if differences and differences != before:
                log(_LOG, logging.WARNING, "MLflow differs from the registry", model=model, differences=differences)
            with self._database.write() as connection:
                mlflow_state.save(connection, model, written, differences)

    def _mlflow(self) -> Any:
        if self._client is None:
            # Its own patience (minutes) would hide an outage: we retry ourselves. Read when a request is sent.
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
            from mlflow import MlflowClient  # 1.4 s: paid in this thread, when there is something to project

            self._client = MlflowClient(tracking_uri=self._url, registry_uri=self._url)
        return self._client

    def _lease(self) -> bool:
        """Whether this process may work now: it holds the lease, or takes one that has run out."""
        if now() < self._lease_until - _LEASE_S / 2:
            return True
        with self._database.write() as connection:
            query = select(t.leases).where(t.leases.c.name == _LEASE).with_for_update()
            row = connection.execute(query).mappings().one_or_none()
            if row is not None and row["holder"] != self._holder and row["expires_at"] > now():
                return False
            until = now() + _LEASE_S
            values = {"holder": self._holder, "expires_at": until}
            if row is None:
                connection.execute(insert(t.leases).values(name=_LEASE, **values))
            else:
                connection.execute(update(t.leases).where(t.leases.c.name == _LEASE).values(**values))
            self._lease_until = until
            return True


def _refused(error: Exception) -> bool:
    """Whether MLflow answered, and said that this cannot be (asking again gives the same answer)."""
    return getattr(error, "error_code", "") in ("INVALID_PARAMETER_VALUE", "RESOURCE_ALREADY_EXISTS", "BAD_REQUEST")


def _unfinished() -> dict[str, Any]:
    return {"kind": "unfinished", "message": "the last projection did not finish; it is tried again"}
