"""What the guard did, with its evidence. A row outlives what it speaks of: a report must be able to say why something ended."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, Float, Integer, String, Table, Text

from ..tables import metadata

__all__ = ["rollbacks"]

_NAME = String(63)

rollbacks = Table(
    "rollbacks",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("at", Float, nullable=False),
    Column("endpoint", _NAME, nullable=False, index=True),
    # "canary", "experiment" (an arm), "promotion" (a new champion) or "guardrail" (a metric of an experiment)
    Column("kind", String(16), nullable=False),
    # the experiment's name, or empty
    Column("subject", _NAME, nullable=False),
    # "model/version" of what was worse, and of what answers instead
    Column("version", Text, nullable=False),
    Column("back_to", Text, nullable=False),
    # "rolled_back", "warned" (the guard is set to warn only) or "refused" (it could not be taken back; `reason` says why)
    Column("action", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("evidence", JSON, nullable=False),
)
