"""Outcomes: what units did after they were asked about. Sent in the background, so that tracking costs the caller nothing.

    rml.track("click", unit="user-17")            rml.track_many(frame)            rml.track_flush()

An event is checked by the door's own rules when it is said, so one that is wrong is its caller's error, and never spoils
the batch it would travel in. Each has an id of its own: a batch that was sent twice is counted once.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from .. import _siblings
from .._addresses import door_url
from .sending import Sender
from .wishes import WishError, as_unit

__all__ = ["track", "track_flush", "track_many"]


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
        given = {str(key): value for key, value in row.items() if not _missing(value)}
        if unknown := sorted(set(given) - set(_EMPTY)):
            raise WishError(f"row {number} has {', '.join(unknown)}", fix=f"a row has {', '.join(_EMPTY)}")
        try:
            lines.append(_line(**{**_EMPTY, **given}))
        except WishError as wrong:
            raise WishError(f"row {number}: {wrong.message}", fix=wrong.fix) from None
    tracker = _tracker()
    return sum(map(tracker.offer, lines))


def _missing(value: Any) -> bool:
    """None, NaN, NaT, pandas' NA: a frame's ways to have nothing in a cell."""
    if value is None:
        return True
    try:
        return bool(value != value)
    except (TypeError, ValueError):  # NA says neither yes nor no; a list of values is one
        return type(value).__name__ == "NAType"


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


_TRACKERS: dict[tuple[str, str], Sender] = {}


def _tracker() -> Sender:
    """The one of the door that the environment names: to ask the stack where it runs would cost more than the event."""
    key = (os.environ.get("RML_DOOR_URL", ""), os.environ.get("RML_HOME", ""))
    found = _TRACKERS.get(key)
    if found is None:  # no lock, which a fork could leave locked: of two that were made at once the first one stays
        made = Sender((lambda: key[0].rstrip("/")) if key[0] else door_url)
        found = _TRACKERS.setdefault(key, made)
        if found is not made:
            made.end_soon()
    return found
