"""What every change leaves behind: a row in the audit trail, and a mark that MLflow's copy of the model is out of date."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, insert, or_, select

from . import tables as t
from .database import now
from .identity.current import CURRENT

__all__ = ["audit", "dirty", "iso", "read_audit"]


def audit(connection: Connection, actor: str, action: str, subject: str, **detail: Any) -> None:
    """Write who did what to which thing, in the transaction that does it."""
    row = {"at": now(), "actor": actor, "action": action, "subject": subject, "detail": detail}
    row["principal"] = CURRENT.get().id
    connection.execute(insert(t.audit).values(row))


def dirty(connection: Connection, model: str) -> None:
    """Ask for the model to be projected into MLflow."""
    connection.execute(insert(t.outbox).values(model=model, at=now()))


def read_audit(
    connection: Connection, before: int | None, limit: int, subject: str | None = None, outcome: str | None = None
) -> list[dict[str, Any]]:
    """The latest audit rows first, of a subject and its parts; page on with the last row's id as `before`."""
    query = select(t.audit).order_by(t.audit.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(t.audit.c.id < before)
    if subject is not None:
        # A model's versions (m/3) and aliases (m@champion), an endpoint's shadows (e/name) are its own.
        parts = [t.audit.c.subject.startswith(f"{subject}{mark}", autoescape=True) for mark in "/@"]
        query = query.where(or_(t.audit.c.subject == subject, *parts))
    if outcome is not None:
        query = query.where(t.audit.c.outcome == outcome)
    return [{**row, "at": iso(row["at"])} for row in connection.execute(query).mappings()]


def iso(seconds: float) -> str:
    """A time as people and JSON read it: UTC, milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
