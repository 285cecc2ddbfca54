"""Who may read a blob: knowing its digest is needed, and not enough.

Digests travel (in lineage, in logs, in an IR), so a digest is not a capability. A blob is claimed by the teams (or the principal)
that uploaded it, which proves that they had its bytes, and by each model with a version that consists of it. It can be read
by who may see one of those. To everybody else it is not there: "forbidden" would say that somebody has it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from roblox_ml_core.auth import Action, Principal, Resource
from roblox_ml_core.errors import Conflict
from sqlalchemy import Connection, select
from sqlalchemy.dialects import postgresql, sqlite

from . import access
from . import tables as i

__all__ = ["claim", "readable", "require_readable", "uploaders"]

_CHUNK = 500  # SQLite takes a bounded number of parameters


def claim(connection: Connection, digests: Iterable[str], owners: Iterable[str]) -> None:
    """Note who the blobs belong to."""
    at = time.time()
    rows = [{"digest": digest, "owner": owner, "at": at} for digest in sorted(set(digests)) for owner in set(owners)]
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    for start in range(0, len(rows), _CHUNK):
        insert = dialect.insert(i.blob_claims).values(rows[start : start + _CHUNK])
        connection.execute(insert.on_conflict_do_nothing())


def uploaders(connection: Connection, who: Principal, team: str | None = None) -> list[str]:
    """To whom an upload belongs: the team that was named, else every team the principal runs for, else the principal."""
    if team is not None:
        access.require(connection, who, "run", team=team)
        return [f"team:{team}"]
    teams = access.teams_with(connection, who, Action.RUN)
    return [f"team:{name}" for name in teams] or [who.subject]


def readable(connection: Connection, who: Principal, digests: Iterable[str]) -> set[str]:
    """Those of the digests that the principal may read."""
    asked = sorted(set(digests))
    if who.is_local or access.judge(connection, who, "view", Resource()).allowed:
        return set(asked)
    judged: dict[str, bool] = {}

    def may(owner: str) -> bool:
        if owner not in judged:
            kind, _, name = owner.partition(":")
            if kind == "team":
                judged[owner] = access.judge(connection, who, "view", Resource(name)).allowed
            elif kind == "model":
                judged[owner] = access.judge(connection, who, "view", access.resource_of(connection, name)).allowed
            else:
                judged[owner] = owner == who.subject
        return judged[owner]

    found: set[str] = set()
    for start in range(0, len(asked), _CHUNK):
        part = asked[start : start + _CHUNK]
        rows = connection.execute(
            select(i.blob_claims.c.digest, i.blob_claims.c.owner).where(i.blob_claims.c.digest.in_(part))
        )
        found |= {digest for digest, owner in rows.tuples().all() if may(owner)}
    return found


def require_readable(connection: Connection, who: Principal, digests: Iterable[str]) -> None:
    """Refuse a request that names blobs the principal cannot read: naming them would make them its own.

    They count as missing, as they do when one asks for them; who has the bytes uploads them, and may then.
    """
    asked = set(digests)
    if missing := asked - readable(connection, who, asked):
        raise Conflict(
            f"{len(missing)} blobs are not in the store: {', '.join(sorted(missing))}"[:1000],
            hint="PUT /v1/store/sha256/<first two>/<digest> each of them, then register again",
            details={"missing": sorted(missing)},
        )
