"""Tables of notifying: what happened, who is told of it, and how far the telling got."""

from __future__ import annotations

from sqlalchemy import JSON, Boolean, Column, Float, Index, Integer, String, Table, Text, UniqueConstraint

from ..tables import _Serial, metadata

__all__ = ["channels", "deliveries", "events", "pipeline_states", "subscriptions"]

_ID, _LONG = String(32), String(255)

# Everything that happened, once. `routed` says whether its deliveries have been written.
events = Table(
    "events",
    metadata,
    Column("seq", _Serial, primary_key=True),
    Column("id", _ID, nullable=False),
    Column("type", String(32), nullable=False),
    Column("at", Float, nullable=False),
    Column("recorded_at", Float, nullable=False),
    Column("pipeline", _LONG),
    Column("subject", JSON, nullable=False),
    Column("facts", JSON, nullable=False),
    Column("notify", JSON, nullable=False),
    Column("routed", Boolean, nullable=False),
    UniqueConstraint("id", name="events_once"),
    Index("events_unrouted", "routed", "seq"),
    Index("events_by_pipeline", "pipeline", "at"),
)

# The outbox: one row per event and address. The constraint is what makes "each event once per channel" true.
deliveries = Table(
    "deliveries",
    metadata,
    Column("id", _Serial, primary_key=True),
    Column("event", _ID, nullable=False),
    Column("address", String(512), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("channel", String(64), nullable=False),
    Column("target", String(400), nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("next_at", Float, nullable=False),
    # While somebody sends it. A sender that was killed lets the lease run out, and the next one sends it again.
    Column("holder", String(64)),
    Column("lease_until", Float),
    Column("error", Text, nullable=False),
    Column("finished_at", Float),
    UniqueConstraint("event", "address", name="deliveries_once"),
    Index("deliveries_due", "state", "next_at"),
    Index("deliveries_by_address", "address", "state"),
)

# Named ways to reach people. Secrets are references (`{"env": …}` or `{"file": …}`), never values.
channels = Table(
    "channels",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("options", JSON, nullable=False),
    Column("on", JSON, nullable=False),
    Column("match", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("created_by", Text, nullable=False),
)

# Who hears of a pipeline, for events that do not say it themselves (lateness, gates, aliases). What was published counts for
# more than what some run of a pipeline of that name said.
subscriptions = Table(
    "subscriptions",
    metadata,
    Column("pipeline", _LONG, primary_key=True),
    Column("published", Boolean, nullable=False),
    Column("notify", JSON, nullable=False),
    Column("at", Float, nullable=False),
)

# How the last run of each pipeline ended: a recovery is the first success after a failure.
pipeline_states = Table(
    "pipeline_states",
    metadata,
    Column("pipeline", _LONG, primary_key=True),
    Column("state", String(16), nullable=False),
    Column("run", Text, nullable=False),
    Column("at", Float, nullable=False),
)
