"""Outcomes: what units did after they were asked about. Sent in the background, so that tracking costs the caller nothing.

    rml.track("click", unit="user-17")            rml.track_many(frame)            rml.track_flush()

Each event has an id of its own, so that a batch that was sent twice is counted once.
"""

from __future__ import annotations

import atexit
import json
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from .._addresses import door_url
from .._credentials import token_for
from ..errors import NotRunning, RemoteError
from .wishes import WishError

__all__ = ["Tracker", "track", "track_flush", "track_many"]

_MOST = 100_000
_BATCH, _BATCH_BYTES = 2_000, 900_000
_EVERY_S = 1.0
_TRIES = 3


class Tracker:
    """A bounded line of events and one thread that sends them. `counts`: offered = sent + waiting + dropped."""

    def __init__(self, url: str, *, most: int = _MOST) -> None:
        self._url = f"{url}/v1/track"
        self._waiting: deque[bytes] = deque()
        self._most = most
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._sending = threading.Lock()
        self._http: Any = None
        self.problem = ""
        self.counts = {"offered": 0, "sent": 0, "dropped": 0}
        self._thread: threading.Thread | None = None

    def offer(self, event: Mapping[str, Any]) -> bool:
        """Whether there was room."""
        line = json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()
        with self._lock:
            self.counts["offered"] += 1
            if len(self._waiting) >= self._most:
                self.counts["dropped"] += 1
                return False
            self._waiting.append(line)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="rml-track", daemon=True)
                self._thread.start()
        return True

    def flush(self) -> dict[str, int]:
        """Send everything now.

        Raises:
            NotRunning: the door does not answer; what could not be sent waits still.
            RemoteError: it refused a batch, which is dropped.
        """
        self.problem = ""
        while self._send_one():
            pass
        if self.problem:
            raise NotRunning(self.problem, fix="start the door with `rml up`, or set RML_DOOR_URL")
        with self._lock:
            return {**self.counts, "waiting": len(self._waiting)}

    def _run(self) -> None:
        while True:
            self._wake.wait(_EVERY_S)
            self._wake.clear()
            try:
                while self._send_one():
                    pass
            except RemoteError as refused:
                self.problem = str(refused)

    def _send_one(self) -> bool:
        """Send a batch; whether there may be more to send."""
        import httpx

        with self._sending:
            with self._lock:
                batch: list[bytes] = []
                size = 0
                for line in self._waiting:
                    if len(batch) >= _BATCH or size + len(line) > _BATCH_BYTES:
                        break
                    batch.append(line)
                    size += len(line) + 1
            if not batch:
                return False
            if self._http is None:
                self._http = httpx.Client(timeout=30.0)
            headers = {"content-type": "application/json"}
            if token := token_for(self._url):
                headers["authorization"] = f"Bearer {token}"
            body = b'{"events":[' + b",".join(batch) + b"]}"
            for attempt in range(_TRIES):
                try:
                    answer = self._http.post(self._url, content=body, headers=headers)
                except httpx.HTTPError as error:
                    self.problem = f"outcomes cannot be sent to {self._url}: {error}"
                    answer = None
                else:
                    if answer.status_code < 500 and answer.status_code != 429:
                        break
                    self.problem = f"{self._url} answered {answer.status_code}"
                time.sleep(0.1 * 2**attempt)
            else:
                return False  # they wait for the next time
            accepted = int(answer.json()["accepted"]) if answer.status_code == 202 else 0
            with self._lock:
                for _ in batch:
                    self._waiting.popleft()
                self.counts["sent"] += accepted
                self.counts["dropped"] += len(batch) - accepted
                more = bool(self._waiting)
            if answer.status_code != 202:
                raise RemoteError(f"{len(batch)} outcomes were refused: {answer.text[:500]}", status=answer.status_code)
            return more


_TRACKERS: dict[str, Tracker] = {}
_TRACKERS_LOCK = threading.Lock()


def track(
    event: str,
    *,
    unit: str,
    value: float = 1.0,
    unit_kind: str = "user_id",
    at: Any = None,
    inference_id: str | None = None,
    id: str | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> bool:
    """Say that a unit did something; whether there was room for it in the line.

    Args:
        event: its name, as metrics name it.
        value: how much of it: one click, 4.99 spent.
        at: when, as a datetime with a zone or unix seconds; left out: now.
        inference_id: of the prediction it follows, where that is known.
        id: give one where the same event may be reported twice.

    Raises:
        WishError: no unit, or a value that is no number.
    """
    if not unit or not isinstance(unit, str):
        raise WishError(f"event {event!r} has the unit {unit!r}", fix='the id of who did it, as a text: unit="user-17"')
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise WishError(
            f"event {event!r} has the value {value!r}", fix="a number: 1 for a click, 4.99 for what was spent"
        )
    when = time.time() if at is None else at.timestamp() if hasattr(at, "timestamp") else float(at)
    line: dict[str, Any] = {"event": event, "unit": unit, "value": value, "unit_kind": unit_kind, "at": when}
    line["id"] = id or uuid.uuid4().hex
    if inference_id is not None:
        line["inference_id"] = inference_id
    if attributes:
        line["attributes"] = dict(attributes)
    return _tracker().offer(line)


def track_many(rows: Any) -> int:
    """A frame or a list of dicts with `event`, `unit` and what else `track` takes; how many found room."""
    listed: Iterable[Mapping[str, Any]] = rows.to_dict("records") if hasattr(rows, "to_dict") else rows
    return sum(track(**{str(key): value for key, value in row.items()}) for row in listed)


def track_flush() -> dict[str, int]:
    """Send what waits, now: `{"offered", "sent", "dropped", "waiting"}` of this process.

    Raises:
        NotRunning, RemoteError: it could not be sent, or was refused.
    """
    return _tracker().flush()


def _tracker() -> Tracker:
    url = door_url()
    with _TRACKERS_LOCK:
        if url not in _TRACKERS:
            _TRACKERS[url] = Tracker(url)
            atexit.register(_at_exit, _TRACKERS[url])
        return _TRACKERS[url]


def _at_exit(tracker: Tracker) -> None:
    try:
        tracker.flush()
    except (NotRunning, RemoteError) as error:
        print(f"outcomes of this process were lost: {error}")
