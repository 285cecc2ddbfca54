"""Holdouts, and the switches that turn experiments, canaries and shadows off at once, everywhere or for one endpoint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from roblox_ml_core.errors import NotFound
from roblox_ml_core.names import check_name
from sqlalchemy import Connection, delete, insert, select, update

from .. import tables as core
from ..database import bump, now
from ..records import audit, iso
from . import tables as t
from .salts import retire

__all__ = ["KINDS", "delete_holdout", "kill", "list_holdouts", "put_holdout", "switched_off"]

KINDS = ("experiments", "canaries", "shadows")


def put_holdout(
    connection: Connection, name: str, unit: str, share: int, layers: Sequence[str], actor: str
) -> dict[str, Any]:
    """Keep `share` of the units out of every experiment of the layers (none named: of all). Growing it moves nobody back in."""
    check_name(name, "holdout name")
    values = {"unit": unit, "share": share, "layers": sorted(set(layers))}
    row = connection.execute(select(t.holdouts).where(t.holdouts.c.name == name)).mappings().one_or_none()
    known = set(connection.execute(select(t.layers.c.name)).scalars())
    if missing := sorted(set(layers) - known):
        raise NotFound(
            f"there is no layer {', '.join(missing)}", hint=f"layers: {', '.join(sorted(known)) or 'none yet'}"
        )
    if row is None:
        connection.execute(insert(t.holdouts).values(name=name, created_at=now(), actor=actor, **values))
    else:
        connection.execute(update(t.holdouts).where(t.holdouts.c.name == name).values(**values))
    before = None if row is None else {key: row[key] for key in values}
    audit(connection, actor, "holdout.put", name, before=before, after=values)
    bump(connection, "snapshot")
    return next(one for one in list_holdouts(connection) if one["name"] == name)


def delete_holdout(connection: Connection, name: str, actor: str) -> None:
    """Let its units into experiments again; one that is made again under its name takes other units out."""
    # Of two who delete at once on PostgreSQL the second waits here, and finds nothing.
    connection.execute(select(t.holdouts.c.name).where(t.holdouts.c.name == name).with_for_update()).all()
    gone = next((one for one in list_holdouts(connection) if one["name"] == name), None)
    if gone is None:
        known = sorted(connection.execute(select(t.holdouts.c.name)).scalars())
        raise NotFound(f"there is no holdout {name}", hint=f"holdouts: {', '.join(known) or 'none'}")
    connection.execute(delete(t.holdouts).where(t.holdouts.c.name == name))
    retire(connection, "holdout", name)
    before = {key: gone[key] for key in ("unit", "share", "layers")}
    audit(connection, actor, "holdout.delete", name, before=before, after=None)
    bump(connection, "snapshot")


def list_holdouts(connection: Connection) -> list[dict[str, Any]]:
    rows = connection.execute(select(t.holdouts).order_by(t.holdouts.c.name)).mappings()
    return [{**row, "created_at": iso(row["created_at"])} for row in rows]


def switched_off(connection: Connection) -> dict[str, Any]:
    """What is off: `{"experiments": false, …, "endpoints": […]}`."""
    names = set(connection.execute(select(t.switches.c.name)).scalars())
    endpoints = sorted(name.removeprefix("endpoint/") for name in names if name.startswith("endpoint/"))
    return {**{kind: kind in names for kind in KINDS}, "endpoints": endpoints}


def kill(
    connection: Connection, wishes: Mapping[str, bool | None], endpoints: Iterable[str] | None, actor: str
) -> dict[str, Any]:
    """Switch off (true) or on again (false); `endpoints` are those at which only the champion may answer. None: as it is."""
    before = switched_off(connection)
    wanted = {**before, **{kind: off for kind, off in wishes.items() if off is not None}}
    if endpoints is not None:
        wanted["endpoints"] = sorted(set(endpoints))
        known = set(connection.execute(select(core.endpoints.c.name)).scalars())
        if missing := [name for name in wanted["endpoints"] if name not in known]:
            raise NotFound(f"there is no endpoint {', '.join(missing)}", hint=f"endpoints: {', '.join(sorted(known))}")
    if wanted != before:
        off = [kind for kind in KINDS if wanted[kind]] + [f"endpoint/{name}" for name in wanted["endpoints"]]
        connection.execute(delete(t.switches).where(t.switches.c.name.not_in(off)))
        have = set(connection.execute(select(t.switches.c.name)).scalars())
        for name in off:
            if name not in have:
                connection.execute(insert(t.switches).values(name=name, at=now(), actor=actor))
        audit(connection, actor, "kill", "rollouts", before=before, after=wanted)
        bump(connection, "snapshot")
    return wanted
