"""Tables of scheduling. What is due is found by `schedules.next_at`, what may run by `scheduled_runs.state`: nothing is scanned."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, Float, Index, Integer, String, Table, Text

from ..tables import metadata

__all__ = [
    "backfills",
    "occurrences",
    "pipeline_versions",
    "pipelines",
    "scheduled_runs",
    "schedules",
    "triggers",
]

_Serial = BigInteger().with_variant(Integer, "sqlite")
_NAME = String(128)

pipelines = Table(
    "pipelines",
    metadata,
    Column("name", _NAME, primary_key=True),
    Column("latest", Integer, nullable=False),
    # Whose it is; without one only administrators of the platform may change it.
    Column("team", String(63), nullable=True),
    Column("created_at", Float, nullable=False),
)

pipeline_versions = Table(
    "pipeline_versions",
    metadata,
    Column("pipeline", _NAME, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    # The digest of all that makes a version, so that publishing the same again is the same version.
    Column("digest", String(64), nullable=False),
    Column("ir", String(64), nullable=False),
    # Everything else it needs of the blob store; the collector spares them.
    Column("blobs", JSON, nullable=False),
    Column("arguments", JSON, nullable=False),
    Column("newest", JSON, nullable=False),
    Column("notify", JSON, nullable=False),
    Column("provenance", JSON, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("created_by", Text, nullable=False),
)

triggers = Table(
    "triggers",
    metadata,
    Column("pipeline", _NAME, primary_key=True),
    Column("kind", String(16), primary_key=True),
    Column("subject", String(255), primary_key=True),
    Column("state", String(16), primary_key=True),
    # Of a data set: the newest version when this was published. Only later ones are news.
    Column("seen", Integer, nullable=False),
    Index("triggers_by_subject", "kind", "subject"),
)

# What happened and may start something: written by whoever makes it happen, in the same transaction; read by the scheduler.
occurrences = Table(
    "occurrences",
    metadata,
    Column("id", _Serial, primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("subject", String(255), nullable=False),
    Column("key", String(255), nullable=False),
    Column("state", String(16), nullable=False),
    Column("cause", Text, nullable=False),
    Column("at", Float, nullable=False),
)

schedules = Table(
    "schedules",
    metadata,
    Column("name", _NAME, primary_key=True),
    Column("pipeline", _NAME, nullable=False),
    Column("schedule", JSON, nullable=False),
    Column("arguments", JSON, nullable=False),
    Column("paused", Boolean, nullable=False),
    # Every due time up to here has its row in scheduled_runs.
    Column("decided", Float, nullable=False),
    # When the scheduler must look again; null when no due time is left.
    Column("next_at", Float, nullable=True),
    Column("created_at", Float, nullable=False),
    Column("updated_by", Text, nullable=False),
    Index("schedules_by_next", "next_at"),
    Index("schedules_by_pipeline", "pipeline"),
)

backfills = Table(
    "backfills",
    metadata,
    Column("id", _Serial, primary_key=True),
    # The digest of what was asked: asking again while it goes on is the same backfill.
    Column("digest", String(64), nullable=False, index=True),
    Column("pipeline", _NAME, nullable=False),
    Column("version", Integer, nullable=False),
    Column("schedule", JSON, nullable=False),
    Column("first", Float, nullable=False),
    Column("last", Float, nullable=False),
    Column("concurrency", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("created_by", Text, nullable=False),
)

scheduled_runs = Table(
    "scheduled_runs",
    metadata,
    Column("id", _Serial, primary_key=True),
    # `schedule:<name>@<due>`, `backfill:<id>@<due>` or `trigger:<pipeline>@<what happened>`: once, whatever crashes.
    Column("key", String(420), nullable=False, unique=True),
    Column("source", String(160), nullable=False),
    Column("pipeline", _NAME, nullable=False),
    Column("version", Integer, nullable=False),
    Column("run", String(200), nullable=False, unique=True),
    Column("due", Float, nullable=False),
    Column("tz", String(64), nullable=False),
    Column("arguments", JSON, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    # How many runs of one source may go on at once; 0 is any number.
    Column("width", Integer, nullable=False),
    # Of runs that triggers started: how many such runs led here.
    Column("chain", Integer, nullable=False),
    # When to say that it is late; null once said, or once it has started.
    Column("late_at", Float, nullable=True),
    Column("late", Boolean, nullable=False),
    Column("cancel", Boolean, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("runner", Text, nullable=True),
    Column("instance", String(64), nullable=True),
    Column("lease_until", Float, nullable=True),
    Column("recorded_at", Float, nullable=False),
    Column("started_at", Float, nullable=True),
    Column("finished_at", Float, nullable=True),
    Index("scheduled_runs_by_state", "state", "late_at"),
    Index("scheduled_runs_by_source", "source", "state"),
    Index("scheduled_runs_by_due", "source", "due"),
    Index("scheduled_runs_by_pipeline", "pipeline", "recorded_at"),
)
