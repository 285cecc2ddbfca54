"""Shadows: versions that are asked what the champion is asked, and whose answers are compared and given to nobody."""

from __future__ import annotations

from typing import Any

from roblox_ml_core.errors import Conflict, NotFound
from roblox_ml_core.names import check_name
from sqlalchemy import Connection, delete, insert, select, update

from .. import endpoints
from ..database import bump, now
from ..records import audit, iso
from . import tables as t
from .refs import Challenger, check_fit

__all__ = ["MOST", "delete_shadow", "list_shadows", "put"]

MOST = 8  # of one endpoint: each costs as much as the endpoint itself


def put(
    connection: Connection, endpoint: str, name: str, ref: Challenger, share: int, actor: str, *, isolated: bool = False
) -> dict[str, Any]:
    """Ask `ref` too, for a share of the requests."""
    check_name(name, "shadow name")
    here = endpoints.describe(connection, endpoint)
    check_fit(connection, here, ref)
    others = list_shadows(connection, endpoint)
    before = next((one for one in others if one["name"] == name), None)
    if before is None and len(others) >= MOST:
        raise Conflict(f"endpoint {endpoint} has {MOST} shadows already", hint="remove one: rml shadow remove")
    values = {"model": ref.model, "alias": ref.alias, "version": ref.version, "share": share, "isolated": isolated}
    where = (t.shadows.c.endpoint == endpoint, t.shadows.c.name == name)
    if before is None:
        connection.execute(
            insert(t.shadows).values(endpoint=endpoint, name=name, created_at=now(), actor=actor, **values)
        )
    else:
        connection.execute(update(t.shadows).where(*where).values(actor=actor, **values))
    was = None if before is None else {key: before[key] for key in ("ref", "share", "isolated")}
    after = {"ref": str(ref), "share": share, "isolated": isolated}
    audit(connection, actor, "shadow.put", f"{endpoint}/{name}", before=was, after=after)
    bump(connection, "snapshot", "desired")
    return next(one for one in list_shadows(connection, endpoint) if one["name"] == name)


def delete_shadow(connection: Connection, endpoint: str, name: str, actor: str) -> dict[str, Any]:
    """Ask it no more. What was compared stays in the records."""
    found = next((one for one in list_shadows(connection, endpoint) if one["name"] == name), None)
    if found is None:
        known = ", ".join(one["name"] for one in list_shadows(connection, endpoint)) or "none"
        raise NotFound(f"endpoint {endpoint} has no shadow {name}", hint=f"its shadows: {known}")
    connection.execute(delete(t.shadows).where(t.shadows.c.endpoint == endpoint, t.shadows.c.name == name))
    before = {key: found[key] for key in ("ref", "share", "isolated")}
    audit(connection, actor, "shadow.delete", f"{endpoint}/{name}", before=before, after=None)
    bump(connection, "snapshot", "desired")
    return found


def list_shadows(connection: Connection, endpoint: str) -> list[dict[str, Any]]:
    query = select(t.shadows).where(t.shadows.c.endpoint == endpoint).order_by(t.shadows.c.name)
    return [
        {
            "name": row["name"],
            "ref": str(Challenger(row["model"], row["alias"], row["version"])),
            "share": row["share"],
            "isolated": row["isolated"],
            "actor": row["actor"],
            "created_at": iso(row["created_at"]),
        }
        for row in connection.execute(query).mappings()
    ]
