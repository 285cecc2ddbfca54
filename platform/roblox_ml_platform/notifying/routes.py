"""Routes of notifying: events come in, deliveries are listed and tried again, channels are kept."""

from __future__ import annotations

import hmac
import json
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Response
from pydantic import Field
from roblox_ml_core.errors import Conflict, Invalid, NotFound
from roblox_ml_core.settings import HomeSettings, NotifySettings
from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite

from ..bodies import Body
from ..context import Actor, Plane, Who
from ..database import now
from ..identity import access
from ..identity.policy import declare
from ..records import audit, iso
from ..scheduling.tables import pipelines
from . import intake, outbox, rendering
from . import tables as t
from .channels import Unready, check, read
from .events import event, record
from .page import HEADERS, PATH, signature
from .summary import Links, summarise

__all__ = ["router"]

router = APIRouter(tags=["notifying"])
_LONGEST_EVENT = 256 * 1024
EventId = Annotated[str, Path(pattern="^[0-9a-f]{32}$")]
ChannelName = Annotated[str, Path(pattern="^[a-z0-9][a-z0-9-]{0,62}$")]
DeliveryId = Annotated[int, Path(ge=1, le=2**62)]
Limit = Annotated[int, Query(ge=1, le=1000)]

# Everything else here is for administrators of the platform: log tails are shown, and a channel decides where they go.
declare("POST", "/v1/events", "run", "anywhere")
declare("GET", "/v1/channels", "view", "anywhere")
for _path in ("/v1/events", "/v1/events/{event_id}", "/v1/notifications"):
    declare("GET", _path, "view", "platform")


class EventBody(Body):
    """An event as docs/formats/event.md has it; everything in it is checked once more by `intake.parse`."""

    schema_: Annotated[int, Field(alias="schema")]
    id: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    type: str
    at: float
    pipeline: Annotated[str, Field(max_length=255)] | None = None
    subject: dict[str, Any]
    notify: list[dict[str, Any]] | None = None
    facts: dict[str, Any] = Field(default_factory=dict)


class ChannelBody(Body):
    kind: Literal["slack", "email", "webhook", "apprise"]
    options: dict[str, Any] = Field(default_factory=dict, max_length=20)
    on: list[str] = Field(default_factory=list, max_length=20)
    match: Annotated[str, Field(max_length=200)] = "*"


@router.post("/v1/events", status_code=202)
def post_event(plane: Plane, who: Who, body: EventBody, response: Response) -> dict[str, Any]:
    """Say that something happened; saying it again changes nothing."""
    document = body.model_dump(by_alias=True)
    if len(json.dumps(document)) > _LONGEST_EVENT:
        raise Invalid(f"the event has more than {_LONGEST_EVENT} bytes", hint="send the end of the log, not all of it")
    parsed = intake.parse(document)
    with plane.database.write() as connection:
        # A published pipeline is its team's: its end starts others, and its people are called.
        team = connection.execute(select(pipelines.c.team).where(pipelines.c.name == parsed["pipeline"])).scalar()
        if team is not None:
            access.require(connection, who, "run", team=team)
        created = intake.take(connection, parsed)
    response.status_code = 202 if created else 200
    return {"id": parsed["id"], "created": created}


@router.get("/v1/events")
def list_events(
    plane: Plane,
    pipeline: Annotated[str | None, Query(max_length=255)] = None,
    type: Annotated[str | None, Query(max_length=32)] = None,
    before: Annotated[int | None, Query(ge=1, le=2**62)] = None,
    limit: Limit = 100,
) -> dict[str, Any]:
    """What happened, newest first; page on with the last row's `seq` as `before`."""
    e = t.events.c
    query = select(t.events).order_by(e.seq.desc()).limit(limit)
    for column, value in ((e.pipeline, pipeline), (e.type, type)):
        query = query.where(column == value) if value is not None else query
    query = query.where(e.seq < before) if before is not None else query
    with plane.database.read() as connection:
        return {"events": [_event(row) for row in connection.execute(query).mappings()]}


@router.get("/v1/events/{event_id}")
def show_event(plane: Plane, event_id: EventId) -> dict[str, Any]:
    """One event and how far the telling got."""
    with plane.database.read() as connection:
        row = connection.execute(select(t.events).where(t.events.c.id == event_id)).mappings().one_or_none()
        if row is None:
            raise NotFound(f"there is no event {event_id}", hint="`rml notifications` lists what was told")
        return {**_event(row), "deliveries": outbox.listing(connection, event=event_id)}


@router.get("/v1/notifications")
def list_notifications(
    plane: Plane, state: Literal["pending", "delivered", "dead"] | None = None, limit: Limit = 100
) -> dict[str, Any]:
    """Deliveries, newest first, and how many there are in each state."""
    with plane.database.read() as connection:
        return {
            "notifications": outbox.listing(connection, state=state, limit=limit),
            "counts": outbox.counts(connection),
        }


@router.post("/v1/notifications/retry")
def retry_dead(plane: Plane, actor: Actor) -> dict[str, Any]:
    """Try everything that was given up once more."""
    with plane.database.write() as connection:
        revived = outbox.again_dead(connection)
        audit(connection, actor, "notification.retry", "dead", count=revived)
    return {"retried": revived}


@router.post("/v1/notifications/{delivery}/retry")
def retry_one(plane: Plane, actor: Actor, delivery: DeliveryId) -> dict[str, Any]:
    """Try one delivery now, also one that was given up."""
    with plane.database.write() as connection:
        done = outbox.again(connection, delivery)
        if done["was"] == "delivered":
            raise Conflict(
                f"notification {delivery} was delivered", hint="it is told once; there is nothing to try again"
            )
        audit(connection, actor, "notification.retry", str(delivery))
    return done


@router.get("/v1/channels")
def list_channels(plane: Plane) -> dict[str, Any]:
    """Every channel, of the database and of the file; never a secret."""
    settings, home = NotifySettings(), HomeSettings()
    trouble = ""
    with plane.database.read() as connection:
        try:
            found = read(connection, settings, home)
        except Unready as error:
            found, trouble = read(connection, settings, home, file=False), str(error)
    return {"channels": [found.known[name].shown() for name in sorted(found.known)], "trouble": trouble}


@router.put("/v1/channels/{name}")
def put_channel(plane: Plane, actor: Actor, name: ChannelName, body: ChannelBody) -> dict[str, Any]:
    """Make or change a channel. Secrets are named (`{"env": "RML_CHANNEL_…"}`, `{"file": "…"}`), never sent."""
    channel = check(name, body.kind, body.options, body.on, body.match, settings=NotifySettings())
    values = {
        "kind": channel.kind, "options": body.options, "on": list(channel.on), "match": channel.match,
        "created_at": now(), "created_by": actor,
    }  # fmt: skip
    with plane.database.write() as connection:
        dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
        statement = dialect.insert(t.channels).values(name=name, **values)
        connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=values))
        audit(connection, actor, "channel.put", name, **channel.shown())
    return channel.shown()


@router.delete("/v1/channels/{name}")
def delete_channel(plane: Plane, actor: Actor, name: ChannelName) -> dict[str, Any]:
    """Remove a channel; what waits for it shows that it is missing, and goes on once it is back."""
    with plane.database.write() as connection:
        if not connection.execute(delete(t.channels).where(t.channels.c.name == name)).rowcount:
            raise NotFound(f"there is no channel {name} in the database", hint="`rml channels` lists them")
        audit(connection, actor, "channel.delete", name)
    return {"name": name, "deleted": True}


@router.post("/v1/channels/{name}/test", status_code=202)
def test_channel(plane: Plane, actor: Actor, name: ChannelName, target: str = "") -> dict[str, Any]:
    """Send a message through a channel; the answer names the event, whose deliveries say what became of it."""
    notify: list[dict[str, Any]] = [{"kind": "apprise", "target": name, "via": name, "on": ["test"]}]
    with plane.database.write() as connection:
        kind = read(connection, NotifySettings(), HomeSettings(), file=False).known.get(name)
        if target and kind is not None and kind.kind != "apprise":
            notify = [{"kind": kind.kind, "target": target[:400], "via": name, "on": ["test"]}]
        made = event("channel.test", {"channel": name, "at": now()}, notify=notify, by=actor)
        record(connection, made)
        audit(connection, actor, "channel.test", name)
    return {"event": made["id"]}


@router.get(PATH, response_class=Response, include_in_schema=False)
def show_page(plane: Plane, e: str = "", k: str = "") -> Response:
    """The event behind a message's link, for whoever has the link (the guard lets everybody through to here)."""
    valid = signature(e, HomeSettings().ensure_token())
    row = None
    if hmac.compare_digest(valid.encode(), k.encode()):
        with plane.database.read() as connection:
            row = connection.execute(select(t.events).where(t.events.c.id == e)).mappings().one_or_none()
    if row is None:
        # The same answer for a wrong link and for an event of long ago: neither tells anything.
        raise NotFound("there is nothing behind this link", hint="events are kept for a month")
    settings = NotifySettings()
    summary = summarise(dict(row), Links(settings.run_url, settings.model_url))
    return Response(rendering.page(summary), headers={**HEADERS, "content-type": "text/html; charset=utf-8"})


def _event(row: Any) -> dict[str, Any]:
    keys = ("seq", "id", "type", "pipeline", "subject", "facts", "notify")
    return {**{key: row[key] for key in keys}, "at": iso(row["at"])}
