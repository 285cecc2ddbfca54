"""Tables of identity; whose a model is; in the audit trail who was proved to act, and how it ended.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import json
import time

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_WHO = sa.String(length=250)


def upgrade() -> None:
    op.create_table(
        "teams",
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "grants",
        sa.Column("principal", _WHO, nullable=False),
        sa.Column("scope", sa.String(length=80), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("principal", "scope", "role"),
    )
    op.create_index("grants_by_scope", "grants", ["scope"])
    op.create_table(
        "principals",
        sa.Column("id", _WHO, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("display", sa.Text(), nullable=False),
        sa.Column("mapped", sa.JSON(), nullable=False),
        sa.Column("seen_at", sa.Float(), nullable=False),
        sa.Column("valid_after", sa.Float(), nullable=False),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "tokens",
        sa.Column("id", sa.String(length=12), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("owner", _WHO, nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("scope", sa.String(length=80), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=False),
        sa.Column("used_at", sa.Float(), nullable=True),
        sa.Column("revoked_at", sa.Float(), nullable=True),
        sa.Column("revoked_by", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("digest"),
    )
    op.create_index("ix_tokens_owner", "tokens", ["owner"])
    op.create_table(
        "revoked",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_index("ix_revoked_expires_at", "revoked", ["expires_at"])
    op.create_table(
        "blob_claims",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("owner", _WHO, nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("digest", "owner"),
    )
    op.create_table(
        "secret_owners",
        sa.Column("name", sa.String(length=253), nullable=False),
        sa.Column("team", sa.String(length=63), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.add_column("models", sa.Column("team", sa.String(length=63), nullable=True))
    op.add_column("audit", sa.Column("principal", sa.Text(), nullable=False, server_default="local"))
    op.add_column("audit", sa.Column("outcome", sa.String(length=8), nullable=False, server_default="done"))
    _claim_what_is_registered()


def _claim_what_is_registered() -> None:
    """The blobs of versions from before: they are readable by who may view the model."""
    connection = op.get_bind()
    pairs: set[tuple[str, str]] = set()
    for model, manifest in connection.execute(sa.text("select model, manifest from versions")):
        files = json.loads(manifest) if isinstance(manifest, str) else manifest
        pairs |= {(entry["sha256"], f"model:{model}") for entry in files.values()}
    table = sa.table("blob_claims", sa.column("digest"), sa.column("owner"), sa.column("at"))
    at = time.time()
    op.bulk_insert(table, [{"digest": digest, "owner": owner, "at": at} for digest, owner in sorted(pairs)])


def downgrade() -> None:
    raise NotImplementedError("going back would forget who owns what: restore a backup instead")
