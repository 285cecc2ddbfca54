"""Saying what happened: `emit("run.failed", {...}, notify)` leaves an event in the home's spool and returns at once.

Telling people is the control plane's work; this side only makes sure that nothing is forgotten and nobody waits. The file is
written by a thread of its own, so a slow disk slows down no run, and a full one is reported and otherwise ignored. The id is
made from type and subject, so whoever reads the spool twice, or is told over HTTP as well, has heard of one event.
Standard library only. Format: docs/formats/event.md.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import logging
import os
import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ._store import home

__all__ = ["Emission", "emit", "event_id", "flush", "spool"]

_SCHEMA = 1
_LONGEST_FILE = 128 * 1024
_AT_EXIT_S = 5.0
_POST_S = 3.0
_AT_ONCE = 100
_MOST_WAITING = 5000
_LOG = logging.getLogger(__name__)


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
            return f"the event is not on disk yet ({self.folder} is slow)"
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
    """Wait until everything said so far is on disk, at most so long."""
    return _WRITER.flush(seconds)


def type_name(error: BaseException) -> str:
    return error.__class__.__name__


def _plain(notification: Any) -> Any:
    return notification.to_json() if hasattr(notification, "to_json") else dict(notification)


class _Writer:
    """One thread that writes events into the spool, one after the other, and sends them on. Started by the first event."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Emission] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._unwritten = self._unsent = 0
        self._written, self._sent = threading.Event(), threading.Event()
        self._written.set()
        self._sent.set()
        self._thread: threading.Thread | None = None
        self._pid = 0

    def put(self, emission: Emission) -> None:
        with self._lock:
            if self._thread is None or self._pid != os.getpid():  # a fork has the object and not the thread
                self._pid, self._unwritten, self._unsent = os.getpid(), 0, 0
                self._thread = threading.Thread(target=self._work, name="rml-events", daemon=True)
                self._thread.start()
                atexit.register(self._sent.wait, _AT_EXIT_S)
            self._unwritten += 1
            self._unsent += 1
            self._written.clear()
            self._sent.clear()
            self._queue.put(emission)

    def flush(self, seconds: float) -> bool:
        return self._written.wait(seconds)

    def _work(self) -> None:
        while True:
            emission = self._queue.get()
            problem, waiting = "", False
            try:
                _write(emission)
                waiting = True
            except Exception as error:
                problem = f"{emission.folder}: {type_name(error)}: {error}"
            if problem and _deliver(emission.data):
                problem = ""  # not on disk, but heard
            emission.settle(problem)
            with self._lock:
                self._unwritten -= 1
                if self._unwritten <= 0:
                    self._written.set()
            try:
                if waiting:
                    _send_waiting(emission.folder)
                    _bound(emission.folder)
            except Exception:  # the file stays, and somebody reads it later
                _LOG.debug("events stay in the spool", exc_info=True)
            with self._lock:
                self._unsent -= 1
                if self._unsent <= 0:
                    self._sent.set()


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
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise


def _send_waiting(folder: Path) -> None:
    """Post what waits to a control plane elsewhere; one that runs on this home reads the spool by itself."""
    if not os.environ.get("RML_CONTROL_URL"):
        return
    for _, name in sorted(_waiting(folder))[:_AT_ONCE]:
        try:
            data = Path(name).read_bytes()
        except OSError:
            continue  # somebody else has read it
        if not _deliver(data):
            return
        Path(name).unlink(missing_ok=True)


def _waiting(folder: Path) -> list[tuple[int, str]]:
    """The events in the spool with their times; a file may vanish while this looks."""
    found = []
    for entry in os.scandir(folder):
        if entry.name.endswith(".json"):
            with contextlib.suppress(OSError):
                found.append((entry.stat().st_mtime_ns, entry.path))
    return found


def _deliver(data: bytes) -> bool:
    """Tell the control plane over HTTP; whether it knows now. What it calls wrong is not sent a second time."""
    url = (os.environ.get("RML_CONTROL_URL") or "").rstrip("/")
    if not url.startswith(("http://", "https://")):
        return False
    try:
        from ._credentials import token_for

        address = f"{url}/v1/events"  # http(s), by the check above
        request = urllib.request.Request(address, data, {"content-type": "application/json"}, method="POST")  # noqa: S310
        if token := token_for(url):
            # Not followed to wherever a redirect leads.
            request.add_unredirected_header("authorization", f"Bearer {token}")
        with urllib.request.urlopen(request, timeout=_POST_S):  # noqa: S310
            return True
    except urllib.error.HTTPError as error:
        refused = error.code in (400, 413, 422)
        if refused:
            _LOG.warning("%s refuses an event: HTTP %s", url, error.code)
        return refused
    except Exception:  # it is not there, or we may not: the file stays
        return False


def _bound(folder: Path) -> None:
    """Keep a spool that nobody reads small: the oldest go first, and those that nobody asked to hear of before others."""
    waiting = _waiting(folder)
    if len(waiting) <= _MOST_WAITING:
        return
    found = []
    for at, name in waiting:
        with contextlib.suppress(OSError):
            found.append((b'"notify": []' not in Path(name).read_bytes(), at, name))
    # A tenth more than needed, so that this is not done for every event.
    for _, _, name in sorted(found)[: len(waiting) - _MOST_WAITING * 9 // 10]:
        Path(name).unlink(missing_ok=True)


_WRITER = _Writer()
