"""Layers: a hash of their own each, so that experiments in different layers are independent and those in one are disjoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from roblox_ml_core.errors import Conflict, NotFound
from roblox_ml_core.names import check_name
from roblox_ml_core.policy import SCALE
from roblox_ml_core.policy.allocation import free, size
from sqlalchemy import Connection, delete, insert, select, update

from ..database import bump, now
from ..records import audit, iso
from . import tables as t
from .salts import retire

__all__ = ["delete_layer", "describe", "list_layers", "lock", "put"]


def put(connection: Connection, name: str, unit: str, actor: str) -> dict[str, Any]:
    """Make a layer, or change the unit of one in which nothing runs."""
    check_name(name, "layer name")
    row = lock(connection, name, missing_ok=True)
    if row is None:
        connection.execute(insert(t.layers).values(name=name, unit=unit, created_at=now(), actor=actor))
        audit(connection, actor, "layer.put", name, before=None, after={"unit": unit})
    elif row["unit"] != unit:
        _refuse_if_used(connection, name, "change its unit")
        connection.execute(update(t.layers).where(t.layers.c.name == name).values(unit=unit))
        audit(connection, actor, "layer.put", name, before={"unit": row["unit"]}, after={"unit": unit})
    bump(connection, "snapshot")
    return describe(connection, name)


def describe(connection: Connection, name: str) -> dict[str, Any]:
    """The layer, who has which of its 10,000 buckets, and how many are free."""
    row = lock(connection, name)
    running = _running(connection, name)
    taken = [tuple(stretch) for one in running for stretch in one["ranges"]]
    return {
        "name": name,
        "unit": row["unit"],
        "created_at": iso(row["created_at"]),
        "experiments": [
            {"name": one["name"], "endpoint": one["endpoint"], "share": one["share"], "ranges": one["ranges"]}
            for one in running
        ],
        "free": size(free(taken)),
        "buckets": SCALE,
    }


def list_layers(connection: Connection) -> list[dict[str, Any]]:
    names = connection.execute(select(t.layers.c.name).order_by(t.layers.c.name)).scalars().all()
    return [describe(connection, name) for name in names]


def delete_layer(connection: Connection, name: str, actor: str) -> dict[str, Any]:
    """Remove a layer in which nothing runs; one that is made again under its name assigns units anew."""
    gone = describe(connection, name)
    _refuse_if_used(connection, name, "remove it")
    connection.execute(delete(t.layers).where(t.layers.c.name == name))
    retire(connection, "layer", name)
    audit(connection, actor, "layer.delete", name, before={"unit": gone["unit"]}, after=None)
    bump(connection, "snapshot")
    return gone


def lock(connection: Connection, name: str, *, missing_ok: bool = False) -> Mapping[str, Any] | Any:
    """The layer's row; held until the transaction ends, so that two experiments never take the same buckets."""
    query = select(t.layers).where(t.layers.c.name == name)
    if connection.get_execution_options().get("rml_write") is not None:
        query = query.with_for_update()
    row = connection.execute(query).mappings().one_or_none()
    if row is None and not missing_ok:
        known = sorted(connection.execute(select(t.layers.c.name)).scalars())
        hint = f"layers: {', '.join(known) or 'none yet'}; rml.layer({name!r}, unit='user_id') makes one"
        raise NotFound(f"there is no layer {name}", hint=hint)
    return row


def _running(connection: Connection, name: str) -> list[Any]:
    query = select(t.experiments).where(t.experiments.c.layer == name, t.experiments.c.running)
    return list(connection.execute(query.order_by(t.experiments.c.name)).mappings())


def _refuse_if_used(connection: Connection, name: str, what: str) -> None:
    if users := [row["name"] for row in _running(connection, name)]:
        raise Conflict(
            f"layer {name} has running experiments: {', '.join(users)}",
            hint=f"stop them first, then {what}: units would move between arms",
            details={"used_by": users},
        )
