"""What doors must know of service tokens: their hashes, and which models each may ask at this moment.

A door proves a token by looking its hash up in what it was told, so a request never waits for the control plane, and a control plane
that is away takes nobody's access. What is told is what `access.judge` would say of every model; a token that may ask nothing is left
out, which is how revocation reaches the doors.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from roblox_ml_core.auth import ROLES, Action, Grant, Limit, Principal, Scope
from roblox_ml_core.auth.grants import EVERYTHING
from roblox_ml_core.digests import sha256_json
from sqlalchemy import Connection, select

from .. import tables as t
from . import access
from . import tables as i

__all__ = ["door_keys", "key_of", "models_of", "version_of"]

_SCHEMA = 1
#: How long a door may go by what it was told of a signed token; a log-out is known after that.
_SIGNED_S = 60.0


def door_keys(connection: Connection) -> dict[str, Any]:
    """The document of `GET /v1/door/keys` (docs/formats/tokens.md)."""
    now = time.time()
    owned = _owned(connection)
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
        key = _key(f"{owner} with token {row['name']}", held[owner], limit, owned, row["expires_at"])
        if key["models"] != [] or key["operator"]:
            keys[row["digest"]] = key
    return {"schema": _SCHEMA, "version": version_of(keys), "keys": keys}


def key_of(connection: Connection, principal: Principal) -> dict[str, Any]:
    """The same of one principal who was proved just now, for a minute."""
    held = access.grants_of(connection, principal)
    most = principal.limit or Limit()
    who = principal.display or principal.id
    return _key(who, held, Grant(most.role, most.scope), _owned(connection), time.time() + _SIGNED_S)


def _key(
    who: str, held: Iterable[Grant], limit: Grant, owned: Mapping[str, Iterable[str]], expires_at: float
) -> dict[str, Any]:
    models = _meet(models_of(held, owned), models_of([limit], owned))
    return {
        "principal": who,
        "models": None if models is None else sorted(models),
        "operator": _everywhere(held, Action.VIEW) and _everywhere([limit], Action.VIEW),
        "expires_at": expires_at,
    }


def _owned(connection: Connection) -> dict[str, set[str]]:
    """The models of each team; of nobody under the empty name."""
    found: dict[str, set[str]] = {}
    for name, team in connection.execute(select(t.models.c.name, t.models.c.team)).tuples():
        found.setdefault(team or "", set()).add(name)
    return found


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
