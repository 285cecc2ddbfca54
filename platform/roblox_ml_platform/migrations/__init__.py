"""Alembic's folder: `env.py` runs inside the control plane's own connection, `versions/` holds one file per schema change."""
