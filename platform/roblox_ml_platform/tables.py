"""The control plane's tables. Alembic owns the schema; a test compares these definitions with what the migrations make.

Times are seconds since the epoch. JSON columns hold what is only ever read whole; what is searched lies in `facts`.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

__all__ = [
    "alias_events",
    "aliases",
    "audit",
    "counters",
    "endpoint_events",
    "endpoints",
    "facts",
    "leases",
    "metadata",
    "mlflow_models",
    "models",
    "outbox",
    "registrations",
    "released_blobs",
    "servers",
    "versions",
]

metadata = MetaData()
# SQLite numbers rows by itself only for a column of type INTEGER.
_Serial = BigInteger().with_variant(Integer, "sqlite")
_NAME, _DIGEST = String(63), String(64)

models = Table(
    "models",
    metadata,
    Column("name", _NAME, primary_key=True),
    # The number the next version gets. Never lowered, so that a deleted version's number is not given out again.
    Column("next_version", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    # The team that owns it; without one only who has a role for the model itself or everywhere may use it.
    Column("team", _NAME),
)

versions = Table(
    "versions",
    metadata,
    Column("model", _NAME, ForeignKey("models.name"), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("digest", _DIGEST, nullable=False),
    Column("package", JSON, nullable=False),
    Column("manifest", JSON, nullable=False),
    Column("signature", JSON, nullable=False),
    Column("metrics", JSON, nullable=False),
    Column("params", JSON, nullable=False),
    Column("tags", JSON, nullable=False),
    Column("lineage", JSON, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("created_by", Text, nullable=False),
    UniqueConstraint("model", "digest", name="versions_digest_once"),
)

# One row per tag, parameter and metric of a version: the index that search reads. Rewritten with the version's JSON.
facts = Table(
    "facts",
    metadata,
    Column("model", _NAME, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("kind", String(8), primary_key=True),
    Column("key", String(250), primary_key=True),
    Column("text", Text, nullable=False),
    Column("number", Float),
    ForeignKeyConstraint(["model", "version"], ["versions.model", "versions.version"], name="facts_version"),
    Index("facts_by_key", "kind", "key", "number"),
)

# Every call that registered something, also those that met an identical package.
registrations = Table(
    "registrations",
    metadata,
    Column("id", _Serial, primary_key=True),
    Column("model", _NAME, nullable=False),
    Column("version", Integer, nullable=False),
    Column("created", Boolean, nullable=False),
    Column("lineage", JSON, nullable=False),
    Column("metrics", JSON, nullable=False),
    Column("params", JSON, nullable=False),
    Column("tags", JSON, nullable=False),
    Column("gate", JSON, nullable=False),
    Column("actor", Text, nullable=False),
    Column("at", Float, nullable=False),
    Index("registrations_by_version", "model", "version"),
)

aliases = Table(
    "aliases",
    metadata,
    Column("model", _NAME, primary_key=True),
    Column("alias", _NAME, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("generation", Integer, nullable=False),
    ForeignKeyConstraint(["model", "version"], ["versions.model", "versions.version"], name="aliases_version"),
)

alias_events = Table(
    "alias_events",
    metadata,
    Column("id", _Serial, primary_key=True),
    Column("model", _NAME, nullable=False),
    Column("alias", _NAME, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("from_version", Integer),
    Column("to_version", Integer),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", Float, nullable=False),
    # Two moves cannot both be the third: the database itself keeps compare-and-swap honest.
    UniqueConstraint("model", "alias", "generation", name="alias_events_generation_once"),
)

endpoints = Table(
    "endpoints",
    metadata,
    Column("name", _NAME, primary_key=True),
    Column("model", _NAME, ForeignKey("models.name"), nullable=False),
    Column("alias", _NAME),
    Column("version", Integer),
    Column("created_at", Float, nullable=False),
    # Cache and queue of the endpoint; empty: the defaults.
    Column("policy", JSON, nullable=False, server_default="{}"),
)

endpoint_events = Table(
    "endpoint_events",
    metadata,
    Column("id", _Serial, primary_key=True),
    Column("endpoint", _NAME, nullable=False, index=True),
    Column("kind", String(16), nullable=False),
    Column("model", _NAME, nullable=False),
    Column("alias", _NAME),
    Column("version", Integer),
    # What the target meant at that moment: an alias may mean something else by now.
    Column("resolved", Integer),
    Column("actor", Text, nullable=False),
    Column("at", Float, nullable=False),
)

servers = Table(
    "servers",
    metadata,
    Column("name", _NAME, primary_key=True),
    Column("http", Text, nullable=False),
    Column("grpc", Text, nullable=False),
    Column("models", JSON, nullable=False),
    Column("seen_at", Float, nullable=False),
    Column("alive", Boolean, nullable=False),
)

counters = Table(
    "counters",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", BigInteger, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("id", _Serial, primary_key=True),
    Column("at", Float, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", String(64), nullable=False),
    Column("subject", Text, nullable=False),
    Column("detail", JSON, nullable=False),
    # Who was proved to act ("actor" is who says to act, where the home's own token allows that).
    Column("principal", Text, nullable=False, server_default="local"),
    Column("outcome", String(8), nullable=False, server_default="done"),
)

# Models whose MLflow projection is out of date; written in the transaction of the change itself, so none is forgotten.
outbox = Table(
    "outbox",
    metadata,
    Column("id", _Serial, primary_key=True),
    Column("model", _NAME, nullable=False, index=True),
    Column("at", Float, nullable=False),
)

mlflow_models = Table(
    "mlflow_models",
    metadata,
    Column("model", _NAME, primary_key=True),
    Column("projected", JSON, nullable=False),
    Column("in_sync", Boolean, nullable=False),
    Column("differences", JSON, nullable=False),
    Column("checked_at", Float, nullable=False),
)

# Blobs of deleted versions: what garbage collection may remove once nothing refers to them.
released_blobs = Table(
    "released_blobs",
    metadata,
    Column("digest", _DIGEST, primary_key=True),
    Column("at", Float, nullable=False),
)

# Who of several replicas does the work that one must do (the projector).
leases = Table(
    "leases",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("holder", Text, nullable=False),
    Column("expires_at", Float, nullable=False),
)
