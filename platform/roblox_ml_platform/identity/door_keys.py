"""What doors must know of service tokens: their hashes, and which models each may ask at this moment.

A door proves a token by looking its hash up in what it was told, so a request never waits for the control plane, and a control plane
that is away takes nobody's access. What is told is what `access.judge` would say of every model; a token that may ask nothing is left
out, which is how revocation reaches the doors.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from roblox_ml_core.auth import ROLES, Action, Grant, Principal, Scope
from roblox_ml_core.auth.grants import EVERYTHING
from roblox_ml_core.digests import sha256_json
from sqlalchemy import Connection, select

from .. import tables as t
from . import access
from . import tables as i

__all__ = ["door_keys", "models_of", "version_of"]

_SCHEMA = 1


def door_keys(connection: Connection) -> dict[str, Any]:
    """The document of `GET /v1/door/keys` (docs/formats/tokens.md)."""
    now = time.time()
    owned: dict[str, set[str]] = {}
    for name, team in connection.execute(select(t.models.c.name, t.models.c.team)).tuples():
        owned.setdefault(team or "", set()).add(name)
    dead = {
        row.id: (row.disabled, row.valid_after)
        for row in connection.execute(select(i.principals.c.id, i.principals.c.disabled, i.principals.c.valid_after))
    }
    held: dict[str, frozenset[Grant]] = {}
    keys: dict[str, Any] = {}
    query = select(i.tokens).where(i.tokens.c.revoked_at.is_(None), i.tokens.c.expires_at > now)
    for row in connection.execute(query).mappings():
        owner = row["owner"]
        disabled, valid_after = dead.get(owner, (False, 0.0))
        if disabled or row["created_at"] < valid_after:
            continue
        if owner not in held:
            held[owner] = access.grants_of(connection, Principal(owner, "token", owner=owner))
        limit = Grant(row["role"], Scope.parse(row["scope"]))
        models = _meet(models_of(held[owner], owned), models_of([limit], owned))
        operator = _everywhere(held[owner], Action.VIEW) and _everywhere([limit], Action.VIEW)
        if models is None or models or operator:
            keys[row["digest"]] = {
                "principal": f"{owner} with token {row['name']}",
                "models": None if models is None else sorted(models),
                "operator": operator,
                "expires_at": row["expires_at"],
            }
    return {"schema": _SCHEMA, "version": version_of(keys), "keys": keys}


def version_of(keys: Mapping[str, Any]) -> int:
    """A number that differs whenever the keys do."""
    return int(sha256_json(dict(keys))[:15], 16)


def models_of(grants: Iterable[Grant], owned: Mapping[str, Iterable[str]]) -> frozenset[str] | None:
    """The models that grants allow to ask; None: all, also those that are not there yet."""
    found: set[str] = set()
    for grant in grants:
        if Action.INFER not in ROLES[grant.role]:
            continue
        if grant.scope == EVERYTHING:
            return None
        found.update(owned.get(grant.scope.name, ()) if grant.scope.kind == "team" else [grant.scope.name])
    return frozenset(found)


def _meet(one: frozenset[str] | None, other: frozenset[str] | None) -> frozenset[str] | None:
    if one is None or other is None:
        return other if one is None else one
    return one & other


def _everywhere(grants: Iterable[Grant], action: Action) -> bool:
    return any(grant.scope == EVERYTHING and action in ROLES[grant.role] for grant in grants)
