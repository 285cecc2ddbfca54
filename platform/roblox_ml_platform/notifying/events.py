"""Writing down what happened, once, in the transaction in which it happens.

`record(connection, event("run.late", {...}, pipeline="…"))` is all a caller does. An event's id is made from what happened
(type and subject) and from nothing else, so that saying it twice (a retry, a second replica, a spool file read again) is one
event. Telling people is `routing` and `delivery`, later and elsewhere: nothing here waits for anybody.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from roblox_ml_core.digests import canonical_json
from roblox_ml_core.errors import Invalid
from sqlalchemy import Connection, select
from sqlalchemy.dialects import postgresql, sqlite

from ..database import now
from . import tables as t

__all__ = ["TYPES", "event", "event_id", "record", "subscribe"]

# Every type there is, and the word by which people ask to be told of it.
TYPES: Mapping[str, str] = {
    "run.started": "start",
    "run.succeeded": "success",
    "run.failed": "failure",
    "run.recovered": "recovery",
    "run.retry": "retry",
    "run.late": "late",
    "gate.refused": "gate",
    "alias.moved": "alias",
    "schedule.paused": "late",
    "rollout.guarded": "rollback",
    "channel.test": "test",
}
_SCHEMA = 1


def event_id(type: str, subject: Mapping[str, Any]) -> str:
    """The id of "this happened to that": the first half of the digest of type and subject."""
    return hashlib.sha256(canonical_json({"subject": dict(subject), "type": type})).hexdigest()[:32]


def event(
    type: str,
    subject: Mapping[str, Any],
    *,
    pipeline: str | None = None,
    notify: Sequence[Mapping[str, Any]] | None = None,
    at: float | None = None,
    **facts: Any,
) -> dict[str, Any]:
    """An event as it travels (docs/formats/event.md).

    `subject` names what it happened to, precisely enough to tell it from every other time: ``{"schedule": …, "due": …}``.
    `notify` names who hears of it; None means those who subscribed to `pipeline`, an empty list nobody.
    """
    if type not in TYPES:
        raise Invalid(f"there is no event type {type!r}", hint=f"the types are {', '.join(TYPES)}")
    return {
        "schema": _SCHEMA,
        "id": event_id(type, subject),
        "type": type,
        "at": now() if at is None else at,
        "pipeline": pipeline or subject.get("pipeline"),
        "subject": dict(subject),
        "notify": None if notify is None else [dict(one) for one in notify],
        "facts": facts,
    }


def record(connection: Connection, event: Mapping[str, Any]) -> bool:
    """Write the event down; False when it is known already. Never waits for a channel.

    A run that begins says who hears of its pipeline. That counts from this transaction on, not from when the event is routed:
    a gate's verdict or an alias's move that is routed meanwhile would be told to nobody, and never again.
    """
    known = select(t.events.c.seq).where(t.events.c.id == event["id"])
    if connection.execute(known).scalar() is not None:
        return False
    row = {
        "id": event["id"],
        "type": event["type"],
        "at": float(event["at"]),
        "recorded_at": now(),
        "pipeline": event.get("pipeline"),
        "subject": event["subject"],
        "facts": event.get("facts") or {},
        "notify": event.get("notify"),
        "routed": False,
    }
    # Two replicas may be told at once: the constraint decides, and neither transaction fails.
    statement = _dialect(connection).insert(t.events).values(row)
    fresh = bool(connection.execute(statement.on_conflict_do_nothing(index_elements=["id"])).rowcount)
    if fresh and row["type"] == "run.started" and row["pipeline"] and row["notify"] is not None:
        subscribe(connection, row["pipeline"], row["notify"], published=False)
    return fresh


def subscribe(
    connection: Connection, pipeline: str, notify: Sequence[Mapping[str, Any]], *, published: bool = True
) -> None:
    """Say who hears of a pipeline from now on: its declaration's `notify`. The latest counts, and a published one for more."""
    values = {"notify": [dict(one) for one in notify], "at": now(), "published": published}
    statement = _dialect(connection).insert(t.subscriptions).values(pipeline=pipeline, **values)
    weaker = None if published else t.subscriptions.c.published.is_(False)
    connection.execute(statement.on_conflict_do_update(index_elements=["pipeline"], set_=values, where=weaker))


def _dialect(connection: Connection) -> Any:
    return postgresql if connection.dialect.name == "postgresql" else sqlite
