"""Outcomes: what units did after they were asked about. Sent in the background, so that tracking costs the caller nothing.

    rml.track("click", unit="user-17")            rml.track_many(frame)            rml.track_flush()

An event is checked by the door's own rules when it is said, so one that is wrong is its caller's error, and never spoils
the batch it would travel in. Each has an id of its own: a batch that was sent twice is counted once.
"""

from __future__ import annotations

import atexit
import json
import os
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .. import _siblings
from .._addresses import door_url
from .._credentials import token_for
from ..errors import NotRunning, RemoteError, RmlSdkError
from .wishes import WishError, as_unit

__all__ = ["Tracker", "post_batch", "track", "track_flush", "track_many"]

_MOST = 100_000
_BATCH, _BATCH_BYTES = 2_000, 900_000
_EVERY_S = 1.0
_TRIES = 3


class Tracker:
    """A bounded line of events and one thread that sends them. `counts`: offered = sent + waiting + dropped.

    `address` gives the door's URL; it is asked for every batch, since a local stack may come up later, elsewhere.
    """

    def __init__(self, address: Callable[[], str], *, most: int = _MOST) -> None:
        self._address = address
        self._waiting: deque[bytes] = deque()
        self._most = most
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._http: Any = None
        self._thread: threading.Thread | None = None
        #: Why the last batch could not be sent; empty when it could.
        self.problem = ""
        self.counts = {"offered": 0, "sent": 0, "dropped": 0}

    def offer(self, line: bytes) -> bool:
        """Put an event into the line; whether there was room."""
        with self._lock:
            self.counts["offered"] += 1
            if len(self._waiting) >= self._most:
                self.counts["dropped"] += 1
                return False
            self._waiting.append(line)
            if self._thread is None or not self._thread.is_alive():  # a forked process has no threads but its own
                self._thread = threading.Thread(target=self._run, name="rml-track", daemon=True)
                self._thread.start()
        return True

    def flush(self) -> dict[str, int]:
        """Send everything now.

        Raises:
            NotRunning: the door does not answer; what could not be sent goes on waiting.
            RemoteError: it refused a batch, which is dropped.
        """
        while self._send_one():
            pass
        with self._lock:
            waiting = len(self._waiting)
        if waiting and self.problem:
            raise NotRunning(
                f"{waiting} outcomes go on waiting: {self.problem}",
                fix="start the door with `rml up`, or set RML_DOOR_URL",
            )
        return {**self.counts, "waiting": waiting}

    def _run(self) -> None:
        while True:
            time.sleep(_EVERY_S)
            try:
                while self._send_one():
                    pass
            except RmlSdkError as refused:  # of credentials, or of a batch: the next one may pass
                self.problem = str(refused)

    def _send_one(self) -> bool:
        """Send a batch; whether there may be more to send."""
        import httpx

        with self._sending:
            batch = self._next()
            if not batch:
                return False
            if self._http is None:
                self._http = httpx.Client(timeout=30.0)
            url = f"{self._address()}/v1/track"
            answer, self.problem = post_batch(self._http, url, b'{"events":[' + b",".join(batch) + b"]}")
            if answer is None:
                return False  # they wait for the next time
            accepted = int(answer.json()["accepted"]) if answer.status_code == 202 else 0
            with self._lock:
                for _ in batch:
                    self._waiting.popleft()
                self.counts["sent"] += accepted
                self.counts["dropped"] += len(batch) - accepted
                more = bool(self._waiting)
        if answer.status_code != 202:
            raise RemoteError(
                f"the door refused {len(batch)} outcomes, which are lost: {answer.text[:500]}",
                status=answer.status_code,
            )
        return more

    def _next(self) -> list[bytes]:
        """What fits in one request; it stays in the line until it has arrived."""
        batch: list[bytes] = []
        size = 0
        with self._lock:
            for line in self._waiting:
                if batch and (len(batch) >= _BATCH or size + len(line) > _BATCH_BYTES):
                    break
                batch.append(line)
                size += len(line) + 1
        return batch


def post_batch(http: Any, url: str, body: bytes) -> tuple[Any, str]:
    """(the door's answer, "") or, where it has none after some tries, (None, why)."""
    import httpx

    headers = {"content-type": "application/json"}
    if token := token_for(url):
        headers["authorization"] = f"Bearer {token}"
    problem = ""
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(0.1 * 2**attempt)
        try:
            answer = http.post(url, content=body, headers=headers)
        except httpx.HTTPError as error:
            problem = f"{url} does not answer ({type(error).__name__}: {error})"
        else:
            if answer.status_code < 500 and answer.status_code != 429:
                return answer, ""
            problem = f"{url} answered {answer.status_code}: {answer.text[:200]}"
    return None, problem


def track(
    event: str,
    *,
    unit: str | int,
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
        unit: the id of who did it.
        value: how much of it: one click, 4.99 spent.
        at: when, as a datetime with a zone or unix seconds, at most 35 days ago; left out: now.
        inference_id: of the prediction it follows, where that is known.
        id: give one where the same event may be reported twice.
        attributes: what else is to be kept with it, at most 2 kB as JSON.

    Raises:
        WishError: the event cannot be meant so; all that is wrong with it is named.
    """
    return _tracker().offer(_line(event, unit, value, unit_kind, at, inference_id, id, attributes))


def track_many(rows: Any) -> int:
    """A frame or a list of dicts with `event`, `unit` and what else `track` takes; how many found room.

    Missing values (None, NaN) of a frame are left out.

    Raises:
        WishError: an event cannot be meant so. Nothing of the rows is sent then.
    """
    listed: Iterable[Mapping[str, Any]] = rows.to_dict("records") if hasattr(rows, "to_dict") else rows
    lines = []
    for number, row in enumerate(listed):
        given = {str(key): value for key, value in row.items() if value is not None and value == value}
        try:
            lines.append(_line(**{**_EMPTY, **given}))
        except WishError as wrong:
            raise WishError(f"row {number}: {wrong.message}", fix=wrong.fix) from None
        except TypeError:
            unknown = ", ".join(sorted(set(given) - set(_EMPTY)))
            raise WishError(f"row {number} has {unknown}", fix=f"a row has {', '.join(_EMPTY)}") from None
    tracker = _tracker()
    return sum(map(tracker.offer, lines))


def track_flush() -> dict[str, int]:
    """Send what waits, now: `{"offered", "sent", "dropped", "waiting"}` of this process.

    Raises:
        NotRunning, RemoteError: it could not be sent, or was refused.
    """
    return _tracker().flush()


_EMPTY: dict[str, Any] = {
    "event": "", "unit": "", "value": 1.0, "unit_kind": "user_id", "at": None, "inference_id": None, "id": None,
    "attributes": None,
}  # fmt: skip


def _line(
    event: str,
    unit: Any,
    value: Any,
    unit_kind: str,
    at: Any,
    inference_id: str | None,
    id: str | None,
    attributes: Mapping[str, Any] | None,
) -> bytes:
    """An event as it travels, looked at with the door's own eyes."""
    when = time.time() if at is None else at
    if hasattr(at, "timestamp"):
        if at.tzinfo is None:
            raise WishError(f"event {event!r} is at {at}, which has no time zone", fix="at=datetime.now(UTC)")
        when = at.timestamp()
    line: dict[str, Any] = {
        "event": event, "unit": as_unit(unit), "value": value.item() if hasattr(value, "item") else value,
        "unit_kind": unit_kind, "at": when,
        "id": id or uuid.uuid4().hex,
    }  # fmt: skip
    if inference_id:
        line["inference_id"] = inference_id
    if attributes:
        line["attributes"] = dict(attributes)
    try:
        written = json.dumps(line, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise WishError(f"event {event!r} is not JSON: {error}", fix="texts and numbers only") from None
    intake = _siblings.load("roblox_ml_core.records.intake")
    try:
        intake.parse_events(b'{"events":[' + written + b"]}")
    except Exception as error:  # core's error tree; the SDK has its own
        found = (getattr(error, "details", None) or {}).get("findings") or [str(error)]
        words = "; ".join(str(one).removeprefix("events[0].") for one in found)
        raise WishError(f"event {event!r}: {words}", fix='rml.track("purchase", unit="user-17", value=4.99)') from None
    return written


_TRACKERS: dict[tuple[str, str], Tracker] = {}
_TRACKERS_LOCK = threading.Lock()


def _tracker() -> Tracker:
    """The one of the door that the environment names: to ask the stack where it runs would cost more than the event."""
    key = (os.environ.get("RML_DOOR_URL", ""), os.environ.get("RML_HOME", ""))
    with _TRACKERS_LOCK:
        if key not in _TRACKERS:
            _TRACKERS[key] = Tracker((lambda: key[0].rstrip("/")) if key[0] else door_url)
            atexit.register(_at_exit, _TRACKERS[key])
        return _TRACKERS[key]


def _at_exit(tracker: Tracker) -> None:
    try:
        tracker.flush()
    except RmlSdkError as error:
        print(f"outcomes of this process were lost: {error}")
