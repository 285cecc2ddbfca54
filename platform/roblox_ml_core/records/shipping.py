"""From the local folder, where rows are made durable, to the bucket, where everybody reads them.

A file is deleted here only after it is there; a file that was shipped twice is the same object. A bucket that is away costs
nothing but local space: the writer does not wait for it.
"""

from __future__ import annotations

import logging
import threading

from ..telemetry import log
from .layout import Layout
from .schema import STREAMS

__all__ = ["Shipper"]

logger = logging.getLogger(__name__)
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0


class Shipper:
    """Moves finished files to another layout, in a thread of its own."""

    def __init__(self, source: Layout, target: Layout) -> None:
        self._source, self._target = source, target
        self._awake = threading.Event()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rml-records-shipping", daemon=True)
        self.failing = False

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """There may be new files."""
        self._awake.set()

    def close(self, timeout: float) -> None:
        """Ship what is there once more, and end."""
        self._ending.set()
        self._awake.set()
        self._thread.join(timeout)

    def pending(self) -> int:
        """Files that are not in the bucket yet."""
        return sum(1 for stream in STREAMS for _ in self._source.files(stream))

    def ship(self) -> int:
        """Move every finished file, and leave copies of the accounts; returns how many were moved.

        Raises:
            Exception: of the bucket's own kind; what is not moved stays.
        """
        moved = 0
        for stream in STREAMS:
            for file in self._source.files(stream):
                name = file.path.rsplit("/", 1)[-1]
                folder = self._target.partition(stream, file.endpoint, file.day)
                self._target.put(f"{folder}/{name}", self._source.read_bytes(file.path))
                self._source.delete(file.path)
                moved += 1
        for path in self._source.accounts():
            if path.endswith(".json"):
                self._target.put(self._target.path("accounts", path.rsplit("/", 1)[-1]), self._source.read_bytes(path))
        return moved

    def _run(self) -> None:
        pause = _FIRST_PAUSE_S
        while True:
            self._awake.wait()
            self._awake.clear()
            ending = self._ending.is_set()
            try:
                self.ship()
            except Exception as error:
                if not self.failing:
                    log(logger, logging.WARNING, "records wait for the bucket", url=self._target.url, reason=str(error))
                self.failing = True
                if ending:
                    return
                self._ending.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_S)
                self._awake.set()
            else:
                self.failing, pause = False, _FIRST_PAUSE_S
                if ending:
                    return
