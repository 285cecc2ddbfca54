"""The background part of notifying: a thread that reads the spool, routes events and hands due deliveries to a few workers.

Nothing here is on the way of a run or a request. Each worker sends one delivery; a provider that hangs keeps one worker for the
length of a time-out, and one address never has two in hand. Any number of replicas may do this at once.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from concurrent.futures import Future, ThreadPoolExecutor

from prometheus_client import Counter, Gauge
from roblox_ml_core.settings import HomeSettings, MlflowSettings, NotifySettings
from roblox_ml_core.telemetry import log

from ..context import Context
from ..database import now
from . import outbox, routing
from .channels import Channels, Unready, read
from .intake import read_spool
from .outcome import Delivered, Outcome, Refused
from .sending import Sending, links, send
from .watching import Watcher

__all__ = ["Notifier"]

_LOG = logging.getLogger(__name__)
_UPKEEP_S = 600.0
_COUNT_S = 5.0
_LOOKS = 10  # rounds between two looks at the runs of the home
_TROUBLE_S = 5.0


class Notifier:
    """Runs in threads from `start` to `stop`. `error` is the reason of the last failed round, None while all is well."""

    def __init__(
        self,
        context: Context,
        home: HomeSettings | None = None,
        settings: NotifySettings | None = None,
        mlflow: MlflowSettings | None = None,
    ) -> None:
        self._database = context.database
        self._home, self._settings = home or HomeSettings(), settings or NotifySettings()
        self._links = links(self._settings, mlflow or MlflowSettings(), context.settings.base_url, self._home)
        self._holder = f"{socket.gethostname()[:30]}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._stop, self._wake = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._in_hand: set[Future[None]] = set()
        self._next_upkeep = self._next_count = 0.0
        self._watcher = Watcher(self._database, self._home.root / "runs", self._settings)
        self._rounds = 0
        self.error: str | None = None
        self._sent = Counter(
            "rml_notifications_attempts_total", "Attempts to tell somebody", ["outcome"], registry=context.metrics
        )
        self._waiting = Gauge(
            "rml_notifications", "Notifications by state", ["state"], registry=context.metrics
        )  # fmt: skip

    def start(self) -> None:
        """Begin."""
        self._pool = ThreadPoolExecutor(self._settings.workers, thread_name_prefix="notify")
        self._thread = threading.Thread(target=self._run, name="notifier", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End, and wait for what is in hand as long as a delivery may take; what is cut off is sent again later."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=5)
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            ends = time.monotonic() + 2.0
            while self._in_hand and time.monotonic() < ends:
                time.sleep(0.02)

    def _run(self) -> None:
        while not self._stop.is_set():
            pause = self._settings.tick_s
            try:
                self.round()
                self.error = None
            except Exception as error:  # the database is away, the disk is full: the next round may find them back
                self.error = f"{type(error).__name__}: {error}"
                log(_LOG, logging.WARNING, "a round of notifying failed", error=self.error[:500])
                pause = _TROUBLE_S
            self._wake.wait(pause)
            self._wake.clear()

    def round(self) -> None:
        """Read the spool, route what was recorded before, send what is due."""
        began = now()
        read_spool(self._database, self._home.root / "spool" / "events")
        self._rounds += 1
        if self._rounds % _LOOKS == 0:
            self._watcher.look()
        with self._database.read() as connection:
            unrouted = routing.waiting(connection)
            due = self._settings.enabled and outbox.due(connection)
        if unrouted:
            channels = self._channels()
            with self._database.write() as connection:
                # Only what was recorded before this round read the spool: a gate's verdict must find the run's own word
                # about who hears of it, which was in the spool before the run could ask the gate.
                while routing.route(connection, channels, self._settings, began):
                    pass
            due = self._settings.enabled
        if due and (free := self._settings.workers - len(self._in_hand)) > 0:
            self._send(free)
        self._upkeep()

    def _send(self, free: int) -> None:
        with self._database.write() as connection:
            claimed = outbox.claim(connection, self._holder, free, self._settings)
        for one in claimed:
            assert self._pool is not None
            future = self._pool.submit(self._deliver, one)
            self._in_hand.add(future)
            future.add_done_callback(self._done)

    def _done(self, future: Future[None]) -> None:
        self._in_hand.discard(future)
        self._wake.set()  # the next for this address need not wait for the tick

    def _deliver(self, one: Sending) -> None:
        outcome: Outcome
        try:
            outcome = send(one, self._channels(), self._settings, self._home, self._links)
        except Exception as error:  # a bug in one sender must not be a loop of leases that run out
            _LOG.error("a delivery failed", exc_info=error)
            outcome = Refused(f"{type(error).__name__} in the sender: see the control plane's log")
        with self._database.write() as connection:
            state = outbox.settle(connection, one, self._holder, outcome, self._settings)
        word = "delivered" if isinstance(outcome, Delivered) else type(outcome).__name__.lower()
        self._sent.labels(word).inc()
        level = logging.INFO if isinstance(outcome, Delivered) else logging.WARNING
        facts = {"event_id": one.event["id"], "address": one.address, "attempt": one.attempts + 1, "state": state}
        log(
            _LOG,
            level,
            "notification",
            **facts,
            **({} if isinstance(outcome, Delivered) else {"error": outcome.reason}),
        )

    def _channels(self) -> Channels:
        try:
            with self._database.read() as connection:
                return read(connection, self._settings, self._home)
        except Unready as error:
            # A file that cannot be read makes its channels unknown, not everybody else's.
            log(_LOG, logging.WARNING, "channels.toml is not used", error=str(error))
            with self._database.read() as connection:
                return read(connection, self._settings, self._home, file=False)

    def _upkeep(self) -> None:
        moment = time.monotonic()
        if moment >= self._next_count:
            self._next_count = moment + _COUNT_S
            with self._database.read() as connection:
                for state, count in outbox.counts(connection).items():
                    self._waiting.labels(state).set(count)
        if moment >= self._next_upkeep:
            self._next_upkeep = moment + _UPKEEP_S
            with self._database.write() as connection:
                while outbox.prune(connection, self._settings):
                    pass
