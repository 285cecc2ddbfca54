"""Tables of identity: teams, grants, service tokens (their hashes), who was seen, and what was revoked.

No table holds anything that could be sent as a token.
"""

from __future__ import annotations

from sqlalchemy import JSON, Boolean, Column, Float, Index, String, Table, Text

from ..tables import metadata

__all__ = ["blob_claims", "grants", "principals", "revoked", "secret_owners", "teams", "tokens"]

_NAME, _DIGEST, _WHO = String(63), String(64), String(250)

teams = Table(
    "teams",
    metadata,
    Column("name", _NAME, primary_key=True),
    Column("created_at", Float, nullable=False),
    Column("created_by", Text, nullable=False),
)

grants = Table(
    "grants",
    metadata,
    Column("principal", _WHO, primary_key=True),
    Column("scope", String(80), primary_key=True),
    Column("role", String(16), primary_key=True),
    Column("created_at", Float, nullable=False),
    Column("created_by", Text, nullable=False),
    Index("grants_by_scope", "scope"),
)

principals = Table(
    "principals",
    metadata,
    Column("id", _WHO, primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("display", Text, nullable=False),
    # What its issuer's groups gave it when it was last seen: its service tokens have no groups of their own.
    Column("mapped", JSON, nullable=False),
    Column("seen_at", Float, nullable=False),
    # Credentials from before this moment are worth nothing.
    Column("valid_after", Float, nullable=False),
    Column("disabled", Boolean, nullable=False),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", String(12), primary_key=True),
    Column("digest", _DIGEST, nullable=False, unique=True),
    Column("name", String(100), nullable=False),
    Column("owner", _WHO, nullable=False, index=True),
    Column("role", String(16), nullable=False),
    Column("scope", String(80), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("used_at", Float),
    Column("revoked_at", Float),
    Column("revoked_by", Text),
)

# Signed tokens that were ended early (a log-out), by hash; a row may go once the token itself has expired.
revoked = Table(
    "revoked",
    metadata,
    Column("digest", _DIGEST, primary_key=True),
    Column("expires_at", Float, nullable=False, index=True),
    Column("at", Float, nullable=False),
)

# Who may read a blob: "team:<name>", "model:<name>" or the principal that uploaded it. Knowing a digest is not enough.
blob_claims = Table(
    "blob_claims",
    metadata,
    Column("digest", _DIGEST, primary_key=True),
    Column("owner", _WHO, primary_key=True),
    Column("at", Float, nullable=False),
)

# Which team a step secret belongs to. Its name only: the value is where the steps run.
secret_owners = Table(
    "secret_owners",
    metadata,
    Column("name", String(253), primary_key=True),
    Column("team", _NAME, nullable=False),
    Column("at", Float, nullable=False),
    Column("by", Text, nullable=False),
)
