"""Tables of rollouts. What is over stays as a row, so that a report can still say what ran, when, and why it ended."""

from __future__ import annotations

from sqlalchemy import JSON, Boolean, Column, Float, Integer, PrimaryKeyConstraint, String, Table, Text

from ..tables import metadata

__all__ = ["canaries", "experiments", "holdouts", "layers", "retired_salts", "shadows", "switches"]

_NAME = String(63)

layers = Table(
    "layers",
    metadata,
    Column("name", _NAME, primary_key=True),
    Column("unit", String(64), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("actor", Text, nullable=False),
)

# One row a round: an experiment that is made again under its name is another experiment, with another salt.
experiments = Table(
    "experiments",
    metadata,
    Column("name", _NAME, nullable=False),
    Column("round", Integer, nullable=False),
    Column("endpoint", _NAME, nullable=False, index=True),
    Column("layer", _NAME, nullable=False, index=True),
    Column("share", Integer, nullable=False),
    Column("ranges", JSON, nullable=False),
    # [{"name", "weight", "model", "alias", "version", "params"}]; model null: the arm leaves the model alone
    Column("arms", JSON, nullable=False),
    Column("targeting", JSON, nullable=False),
    Column("metrics", JSON, nullable=False),
    Column("guardrails", JSON, nullable=False),
    Column("hypothesis", Text, nullable=False),
    Column("isolated", Boolean, nullable=False),
    Column("running", Boolean, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("started_at", Float, nullable=False),
    Column("actor", Text, nullable=False),
    Column("stopped_at", Float),
    Column("reason", Text, nullable=False, server_default=""),
    Column("winner", String(63)),
    PrimaryKeyConstraint("name", "round"),
)

canaries = Table(
    "canaries",
    metadata,
    Column("endpoint", _NAME, primary_key=True),
    Column("model", _NAME, nullable=False),
    Column("version", Integer, nullable=False),
    Column("share", Integer, nullable=False),
    Column("salt", Text, nullable=False),
    Column("isolated", Boolean, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("started_at", Float, nullable=False),
    Column("actor", Text, nullable=False),
)

shadows = Table(
    "shadows",
    metadata,
    Column("endpoint", _NAME, nullable=False),
    Column("name", _NAME, nullable=False),
    Column("model", _NAME, nullable=False),
    Column("alias", _NAME),
    Column("version", Integer),
    Column("share", Integer, nullable=False),
    Column("isolated", Boolean, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("actor", Text, nullable=False),
    PrimaryKeyConstraint("endpoint", "name"),
)

holdouts = Table(
    "holdouts",
    metadata,
    Column("name", _NAME, primary_key=True),
    Column("unit", String(64), nullable=False),
    Column("share", Integer, nullable=False),
    Column("layers", JSON, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("actor", Text, nullable=False),
)

# How often a layer or a holdout ("kind") of the name was deleted.
retired_salts = Table(
    "retired_salts",
    metadata,
    Column("kind", String(16), nullable=False),
    Column("name", _NAME, nullable=False),
    Column("times", Integer, nullable=False),
    PrimaryKeyConstraint("kind", "name"),
)

# "experiments", "canaries", "shadows", or "endpoint/<name>": a row means switched off.
switches = Table(
    "switches",
    metadata,
    Column("name", String(80), primary_key=True),
    Column("at", Float, nullable=False),
    Column("actor", Text, nullable=False),
)
