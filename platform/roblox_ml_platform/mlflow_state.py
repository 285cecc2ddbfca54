"""What is known of MLflow's copy of each model: what was last written there, and how it differs from the registry."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from . import tables as t
from .database import now
from .records import audit, dirty, iso

__all__ = ["forget", "pending", "projected", "read", "save"]


def read(connection: Connection, model: str) -> dict[str, Any]:
    """``{"in_sync", "differences", "checked_at"}``; a change that waits for projection is a difference too."""
    row = connection.execute(select(t.mlflow_models).where(t.mlflow_models.c.model == model)).mappings().one_or_none()
    waiting = connection.execute(select(func.count()).where(t.outbox.c.model == model)).scalar_one()
    differences = list(row["differences"]) if row else []
    if waiting or row is None:
        differences.append({"kind": "pending", "message": f"{waiting} changes are not in MLflow yet"})
    return {
        "in_sync": not differences,
        "differences": differences,
        "checked_at": iso(row["checked_at"]) if row else None,
    }


def projected(connection: Connection, model: str) -> dict[str, Any]:
    """What was last written to MLflow: versions (ours -> theirs, run, tags, metrics) and aliases."""
    query = select(t.mlflow_models.c.projected).where(t.mlflow_models.c.model == model)
    return {"versions": {}, "aliases": {}, **(connection.execute(query).scalar() or {})}


def save(connection: Connection, model: str, written: dict[str, Any], differences: list[dict[str, Any]]) -> None:
    values = {"projected": written, "in_sync": not differences, "differences": differences, "checked_at": now()}
    if (
        connection.execute(update(t.mlflow_models).where(t.mlflow_models.c.model == model).values(**values)).rowcount
        == 0
    ):
        connection.execute(insert(t.mlflow_models).values(model=model, **values))


def pending(connection: Connection) -> list[tuple[str, int]]:
    """Models with changes not yet projected, oldest first, each with the last mark to remove when done."""
    query = (
        select(t.outbox.c.model, func.max(t.outbox.c.id)).group_by(t.outbox.c.model).order_by(func.min(t.outbox.c.id))
    )
    return [(model, last) for model, last in connection.execute(query).tuples()]


def forget(connection: Connection, model: str, actor: str) -> None:
    """Treat MLflow's aliases and tags as never written, so that the next projection writes them all."""
    connection.execute(delete(t.mlflow_models).where(t.mlflow_models.c.model == model))
    audit(connection, actor, "mlflow.sync", model)
    dirty(connection, model)
