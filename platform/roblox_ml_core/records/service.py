"""The records of one door: four streams, one thread that writes them, counters that outlive the process."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import Invalid
from ..policy import LogPolicy
from ..settings import RecordsSettings
from ..telemetry import log
from .accounts import Accounts, Counters
from .layout import Layout
from .schema import STREAMS
from .stream import Row, Stream

if TYPE_CHECKING:
    from .shipping import Shipper
    from .writer import Disk, StreamWriter

__all__ = ["NullRecords", "NullStream", "Records"]

logger = logging.getLogger(__name__)
_DOOR = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")
_CLOSE_S = 10.0


class NullStream:
    """Keeps nothing and counts nothing: the stream of a door that keeps no records."""

    failing = False
    buffered_bytes = 0

    def offer(self, row: Row) -> bool:
        return False

    def sample(self, inference_id: str, rate: int) -> bool:
        return False

    def accounts(self) -> Accounts:
        return Accounts()


class NullRecords:
    """A door without records. The same names as `Records`."""

    url = door = ""

    def __init__(self) -> None:
        self.requests = self.exposures = self.events = self.shadows = NullStream()

    def start(self) -> None:
        """Nothing to start."""

    def adopt(self, policies: Mapping[str, LogPolicy]) -> None:
        """Nothing to know."""

    def policy(self, endpoint: str) -> LogPolicy:
        return LogPolicy(rate=0)

    def body(self, data: bytes) -> bytes | None:
        return None

    def accounts(self) -> dict[str, Accounts]:
        return {name: Accounts() for name in STREAMS}

    def flush(self, timeout: float = 10.0) -> bool:
        return True

    async def close(self) -> None:
        """Nothing to end."""


class Records:
    """Four streams of rows: `requests`, `exposures`, `events`, `shadows`.

    `url` is a folder or a bucket; with a bucket, `spool` is the folder where rows are made durable first. `door` names the
    files: a second living door of that name becomes `<door>~2`. Rows may be offered before `start` and are written then.
    """

    def __init__(
        self,
        url: str,
        *,
        door: str,
        settings: RecordsSettings | None = None,
        spool: str = "",
        disk: Disk | None = None,
    ) -> None:
        if not _DOOR.match(door):
            raise Invalid(f"{door[:80]!r} cannot name a door", hint="letters, digits, '.', '_' and '-', at most 63")
        self.settings = settings or RecordsSettings()
        self.url = url
        self._target = Layout(url)
        self.layout = self._target if self._target.local is not None else Layout(spool)
        if self.layout.local is None:
            raise Invalid(f"records at {url} need a local folder too", hint="give `spool`: rows are safe there first")
        self._counters, self.door = Counters.claim(self.layout.local / "accounts", door)
        self._awake = threading.Event()
        self._flushed = threading.Condition()
        self._rounds = 0
        self._ending = False
        self._thread: threading.Thread | None = None
        self._disk = disk
        self._policies: Mapping[str, LogPolicy] = {}
        self._default = LogPolicy(
            retention_days=self.settings.retention_days, data_class=self.settings.data_class, bodies=False
        )
        self.streams = {
            name: Stream(
                schema, self._counters.of(name), rows=self.settings.buffer_rows, bytes=self.settings.buffer_bytes,
                wake_at=self.settings.flush_rows, wake=self._awake.set,
            )
            for name, schema in STREAMS.items()
        }  # fmt: skip
        self.requests, self.exposures, self.events, self.shadows = self.streams.values()
        self.writers: dict[str, StreamWriter] = {}
        self.shipper: Shipper | None = None

    # -- the door's side -------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Count what the process before left behind."""
        from .writer import Disk, StreamWriter  # Arrow takes its time to load

        disk = self._disk or Disk(self.layout, self.settings.keep_free_bytes)
        for name, stream in self.streams.items():
            slots = self._counters.of(name)
            writer = StreamWriter(stream, slots, self.door, disk, self.settings.flush_rows)
            try:
                lost = writer.recover()
            except OSError as error:
                lost = stream.recover(0)
                log(logger, logging.WARNING, "earlier records cannot be counted", stream=name, reason=str(error))
            if lost:
                log(logger, logging.WARNING, "the door before ended with rows in memory", stream=name, lost=lost)
            self.writers[name] = writer
        self.layout.remove_drafts(self.door)

    def start(self) -> None:
        """Count what the process before left behind, and begin to write."""
        self.prepare()
        if self.layout is not self._target:
            from .shipping import Shipper

            self.shipper = Shipper(self.layout, self._target)
            self.shipper.start()
        self._thread = threading.Thread(target=self._run, name="rml-records", daemon=True)
        self._thread.start()

    def adopt(self, policies: Mapping[str, LogPolicy]) -> None:
        """What is kept of each endpoint, and for how long, from now on."""
        self._policies = dict(policies)

    def policy(self, endpoint: str) -> LogPolicy:
        """What is kept of an endpoint."""
        return self._policies.get(endpoint, self._default)

    def body(self, data: bytes) -> bytes | None:
        """A request's or an answer's bytes as they go into a row: None where they are too long."""
        return bytes(data) if len(data) <= self.settings.body_bytes else None

    def accounts(self) -> dict[str, Accounts]:
        """The accounts of this moment, by stream."""
        return {name: stream.accounts() for name, stream in self.streams.items()}

    def flush(self, timeout: float = 10.0) -> bool:
        """Wait until what is offered by now has been tried to be written. For tests and tools, never on an event loop."""
        with self._flushed:
            wanted = self._rounds + 2  # one may be under way, and has not seen everything
            self._awake.set()
            while self._rounds < wanted and self._thread is not None and self._thread.is_alive():
                self._awake.set()
                if not self._flushed.wait(min(timeout, 0.05)) and (timeout := timeout - 0.05) <= 0:
                    return False
        return all(not stream.failing for stream in self.streams.values())

    async def close(self, timeout: float = _CLOSE_S) -> None:
        """Write everything, or count it as dropped. A disk that does not answer is left alone after `timeout` seconds."""
        for stream in self.streams.values():
            stream.close()
        self._ending = True
        self._awake.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, timeout)
            if self._thread.is_alive():
                return  # it still counts: what it holds is found as lost by the next start
        if self.shipper is not None:
            await asyncio.to_thread(self.shipper.close, timeout)
        self._counters.release()

    # -- the writer thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        last = ""
        swept = time.monotonic()
        while True:
            self._awake.wait(self.settings.flush_s)
            self._awake.clear()
            ending = self._ending
            for writer in self.writers.values():
                try:
                    writer.flush(self._policies, self._default)
                except Exception:  # a row must never end the thread
                    logger.exception("records: a stream could not be written")
            last = self._publish(last)
            if self.shipper is not None:
                self.shipper.wake()
            with self._flushed:
                self._rounds += 1
                self._flushed.notify_all()
            if ending:
                for writer in self.writers.values():
                    writer.give_up()
                self._publish(last)
                return
            if self.settings.sweep_s and time.monotonic() - swept > self.settings.sweep_s:
                swept = time.monotonic()
                self._sweep()

    def _publish(self, last: str) -> str:
        """Leave the accounts for people and programs to read, where they changed."""
        streams = {name: account.to_json() for name, account in self.accounts().items()}
        text = json.dumps(streams, sort_keys=True)
        if text == last:
            return last
        self._counters.flush()
        document = {"schema": 1, "door": self.door, "at": time.time(), "streams": streams}
        try:
            self.layout.put(self.layout.path("accounts", f"{self.door}.json"), json.dumps(document).encode())
        except OSError:
            return last  # the counters have it all the same
        return text

    def _sweep(self) -> None:
        from .merging import merge
        from .retention import sweep

        try:
            sweep(self.url, retention={name: policy.retention_days for name, policy in self._policies.items()})
            merge(self.url)
        except Exception as error:
            log(logger, logging.WARNING, "old records could not be deleted or merged", reason=str(error))

    def collect(self) -> list[Any]:
        """The records' Prometheus metrics: register this object as a collector."""
        from .measures import families

        return families(self)
