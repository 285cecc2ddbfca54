"""How often a layer or a holdout of a name was deleted: part of the salt of the next one.

What is there keeps its salt. Names that the audit trail saw deleted, and that are free now, begin with the next one.

Revision ID: 0008
Revises: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    made = op.create_table(
        "retired_salts",
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("times", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "name"),
    )
    audit = sa.table("audit", *(sa.column(name, sa.Text) for name in ("action", "subject", "outcome")))
    connection = op.get_bind()
    for kind in ("layer", "holdout"):
        live = connection.execute(sa.select(sa.table(f"{kind}s", sa.column("name")).c.name)).scalars().all()
        seen = connection.execute(
            sa.select(audit.c.subject).where(audit.c.action == f"{kind}.delete", audit.c.outcome == "done")
        )
        rows = [{"kind": kind, "name": name, "times": 1} for name in set(seen.scalars()) if name not in set(live)]
        if rows:
            op.bulk_insert(made, rows)


def downgrade() -> None:
    op.drop_table("retired_salts")
