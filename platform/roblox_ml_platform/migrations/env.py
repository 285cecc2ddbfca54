"""What Alembic runs: upgrade over the connection that the control plane hands in."""

from __future__ import annotations

from alembic import context

import roblox_ml_platform.guarding.tables
import roblox_ml_platform.identity.tables
import roblox_ml_platform.notifying.tables
import roblox_ml_platform.scheduling.tables  # noqa: F401 - importing a module adds its tables to the metadata
from roblox_ml_platform.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite cannot alter most things in place
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
