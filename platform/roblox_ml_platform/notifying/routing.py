"""From what happened to who is told: the deliveries of each event, written once.

Runs in the background, after the change itself was committed. An event is told to those whom it names, to those who subscribed
to its pipeline when it names nobody, and to channels that asked for such events themselves. A recovery is found here: it is the
first success of a pipeline after a failure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from roblox_ml_core.settings import NotifySettings
from sqlalchemy import Connection, exists, select, update
from sqlalchemy.dialects import postgresql, sqlite

from ..database import now
from . import tables as t
from .channels import Channels
from .events import TYPES, event, record

__all__ = ["Address", "addresses", "route", "waiting"]

_BATCH = 200
_ENDS = {"run.succeeded": "SUCCEEDED", "run.failed": "FAILED"}


@dataclass(frozen=True, slots=True)
class Address:
    """Where one delivery goes: a kind, the channel that was named (or ''), and a target there (or '' for the channel's own)."""

    kind: str
    channel: str
    target: str

    @property
    def key(self) -> str:
        return f"{self.kind}:{self.channel}:{self.target}"[:512]


def route(connection: Connection, channels: Channels, settings: NotifySettings, before: float) -> int:
    """Write the deliveries of events recorded before that moment; returns how many events."""
    query = (
        select(t.events)
        .where(t.events.c.routed.is_(False), t.events.c.recorded_at <= before)
        .order_by(t.events.c.at, t.events.c.seq)
        .limit(_BATCH)
        .with_for_update(skip_locked=True)
    )
    rows = [dict(row) for row in connection.execute(query).mappings()]
    for row in rows:
        recovered = _remember(connection, row)
        if row["at"] >= now() - settings.stale_after_s:
            subscribed = _subscribed(connection, row["pipeline"]) if row["notify"] is None else row["notify"]
            for address in addresses(row, subscribed, channels, recovered=recovered).values():
                _deliver(connection, row["id"], address)
        connection.execute(update(t.events).where(t.events.c.seq == row["seq"]).values(routed=True))
    return len(rows)


def waiting(connection: Connection) -> bool:
    """Whether anything is to be routed; a look that locks nothing."""
    return connection.execute(select(exists().where(t.events.c.routed.is_(False)))).scalar_one() is True


def addresses(
    row: Mapping[str, Any], notify: Any, channels: Channels, *, recovered: bool = False
) -> dict[str, Address]:
    """Whom an event is told to, each once. Who asked for both is told of a recovery and not also of its success. Pure."""
    word = TYPES.get(row["type"], "")
    found: dict[str, Address] = {}
    for one in _valid(notify):
        on = one.get("on") or ()
        if word in on and not (recovered and "recovery" in on):
            target = str(one.get("target") or "")
            via = str(one.get("via") or (target if one["kind"] == "apprise" else ""))
            address = Address(one["kind"], via, "" if one["kind"] == "apprise" else target)
            found[address.key] = address
    names = tuple(str(n) for n in (row["pipeline"], row["subject"].get("model")) if n)
    for channel in channels.known.values():
        if channel.hears(word, names) and not (recovered and "recovery" in channel.on):
            address = Address("apprise", channel.name, "")
            found[address.key] = address
    return found


def _valid(notify: Any) -> Iterator[Mapping[str, Any]]:
    """The entries that have the shape; what came from outside may hold anything."""
    for one in notify if isinstance(notify, list) else []:
        if not isinstance(one, Mapping) or one.get("kind") not in ("slack", "email", "webhook", "apprise"):
            continue
        if len(str(one.get("target") or "")) <= 400 and len(str(one.get("via") or "")) <= 63:
            yield one


def _remember(connection: Connection, row: Mapping[str, Any]) -> bool:
    """Keep how the pipeline last ended; whether this is its recovery, which is an event of its own."""
    pipeline, state = row["pipeline"], _ENDS.get(row["type"])
    if not pipeline:
        return False
    if state is None:
        return False
    query = select(t.pipeline_states).where(t.pipeline_states.c.pipeline == pipeline).with_for_update()
    last = connection.execute(query).mappings().one_or_none()
    run = str(row["subject"].get("run") or "")
    if last is not None and last["at"] > row["at"]:
        return False  # told late: a newer run has ended since
    values = {"state": state, "run": run, "at": row["at"]}
    statement = _dialect(connection).insert(t.pipeline_states).values(pipeline=pipeline, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=["pipeline"], set_=values))
    if state != "SUCCEEDED" or last is None or last["state"] != "FAILED":
        return False
    facts = {k: v for k, v in row["facts"].items() if k != "notify"}
    record(
        connection,
        {
            **event("run.recovered", row["subject"], pipeline=pipeline, notify=row["notify"], at=row["at"]),
            "facts": {**facts, "failed_run": last["run"], "failed_at": last["at"]},
        },
    )
    return True


def _subscribed(connection: Connection, pipeline: str | None) -> Any:
    query = select(t.subscriptions.c.notify).where(t.subscriptions.c.pipeline == (pipeline or ""))
    return connection.execute(query).scalar() or []


def _deliver(connection: Connection, event_id: str, address: Address) -> None:
    moment = now()
    row = {
        "event": event_id, "address": address.key, "kind": address.kind, "channel": address.channel,
        "target": address.target, "state": "pending", "attempts": 0, "created_at": moment, "next_at": moment, "error": "",
    }  # fmt: skip
    statement = _dialect(connection).insert(t.deliveries).values(row)
    connection.execute(statement.on_conflict_do_nothing(index_elements=["event", "address"]))


def _dialect(connection: Connection) -> Any:
    return postgresql if connection.dialect.name == "postgresql" else sqlite
