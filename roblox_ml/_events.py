"""Saying what happened: `emit("run.failed", {...}, notify)` leaves an event in the home's spool and returns at once.

Telling people is the control plane's work; this side only makes sure that nothing is forgotten and nobody waits. The file is
written by a thread of its own, so a slow disk slows down no run, and a full one is reported and otherwise ignored. The id is
made from type and subject, so whoever reads the spool twice, or is told over HTTP as well, has heard of one event.
Standard library only. Format: docs/formats/event.md.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ._store import home

__all__ = ["Emission", "emit", "event_id", "flush", "spool"]

_SCHEMA = 1
_LONGEST_FILE = 128 * 1024
_AT_EXIT_S = 5.0


def spool() -> Path:
    """Where events wait for the control plane."""
    return home() / "spool" / "events"


def event_id(type: str, subject: Mapping[str, Any]) -> str:
    """The id of "this happened to that"."""
    text = json.dumps(
        {"subject": dict(subject), "type": type}, sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Emission:
    """An event on its way. `trouble(seconds)` waits that long at most, and says what went wrong (empty: nothing)."""

    __slots__ = ("_done", "_problem", "data", "folder", "id")

    def __init__(self, id: str, data: bytes, folder: Path) -> None:
        self.id, self.data, self.folder = id, data, folder
        self._done = threading.Event()
        self._problem = ""

    def settle(self, problem: str = "") -> None:
        self._problem = problem
        self._done.set()

    def trouble(self, wait: float = 0.0) -> str:
        if not self._done.wait(wait):
            return f"the event is not on disk yet after {wait:g} s"
        return self._problem


def emit(type: str, subject: Mapping[str, Any], notify: Sequence[Any] = (), **facts: Any) -> Emission:
    """Say that `type` happened to `subject`; `notify` names who asked to hear of it. Never blocks, never raises."""
    try:
        identity = event_id(type, subject)
        document = {
            "schema": _SCHEMA,
            "id": identity,
            "type": type,
            "at": time.time(),
            "pipeline": subject.get("pipeline"),
            "subject": dict(subject),
            "notify": [_plain(one) for one in notify],
            "facts": facts,
        }
        data = json.dumps(document, default=str).encode()
        if len(data) > _LONGEST_FILE:
            data = json.dumps({**document, "facts": {"cut": f"{len(data)} bytes of facts"}}, default=str).encode()
        emission = Emission(identity, data, spool())
        _WRITER.put(emission)
    except Exception as error:  # a run must not fail because somebody could not be told of it
        emission = Emission("", b"", Path())
        emission.settle(f"{type_name(error)}: {error}")
    return emission


def flush(seconds: float = _AT_EXIT_S) -> bool:
    """Wait until everything said so far is on its way, at most so long."""
    return _WRITER.flush(seconds)


def type_name(error: BaseException) -> str:
    return error.__class__.__name__


def _plain(notification: Any) -> Any:
    return notification.to_json() if hasattr(notification, "to_json") else dict(notification)


class _Writer:
    """One thread that writes events into the spool, one after the other. Started by the first event."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Emission] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._waiting = 0
        self._idle = threading.Event()
        self._idle.set()
        self._thread: threading.Thread | None = None
        self._pid = 0

    def put(self, emission: Emission) -> None:
        with self._lock:
            if self._thread is None or self._pid != os.getpid():  # a fork has the object and not the thread
                self._pid, self._waiting = os.getpid(), 0
                self._thread = threading.Thread(target=self._work, name="rml-events", daemon=True)
                self._thread.start()
                atexit.register(self.flush, _AT_EXIT_S)
            self._waiting += 1
            self._idle.clear()
            self._queue.put(emission)

    def flush(self, seconds: float) -> bool:
        return self._idle.wait(seconds)

    def _work(self) -> None:
        while True:
            emission = self._queue.get()
            try:
                _write(emission)
                emission.settle()
            except Exception as error:
                emission.settle(f"{type_name(error)}: {error}")
            with self._lock:
                self._waiting -= 1
                if self._waiting <= 0:
                    self._idle.set()


def _write(emission: Emission) -> None:
    """The file under its final name, complete and on disk, or not at all."""
    emission.folder.mkdir(parents=True, exist_ok=True)
    draft = emission.folder / f".{emission.id}.{os.getpid()}"
    try:
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as stream:
            stream.write(emission.data)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(emission.folder / f"{emission.id}.json")
    except OSError:
        draft.unlink(missing_ok=True)
        raise


_WRITER = _Writer()
