"""Service tokens as the control plane keeps them: made, listed, revoked. Only the hash is stored; the text is shown once."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any

from roblox_ml_core.auth import ROLES, Action, Grant, Limit, Principal, Resource, Scope, decide, make
from roblox_ml_core.errors import Conflict, Forbidden, Invalid, NotFound
from roblox_ml_core.settings import IdentitySettings
from sqlalchemy import Connection, insert, select, update

from ..records import audit, iso
from . import access
from . import tables as i

__all__ = ["Wanted", "create", "listed", "revoke"]

_DAY = 86400.0
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9 ._-]{0,99}\Z")
_SERVICE = re.compile(r"service:[a-z0-9][a-z0-9-]{0,62}/[a-z0-9][a-z0-9-]{0,62}\Z")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody asks for: a name for people, the most the token may do, how long it lives, and for whom it is."""

    name: str
    role: str
    scope: str
    days: int | None
    owner: str | None


def create(
    connection: Connection, who: Principal, wanted: Wanted, settings: IdentitySettings, actor: str
) -> dict[str, Any]:
    """Make a token. Its text is in this answer and nowhere else."""
    if who.token is not None:
        raise Forbidden(
            "a service token cannot make tokens: a leaked one would outlive its revocation",
            hint="log in as a person: rml login",
        )
    if not _NAME.match(wanted.name):
        raise Invalid(f"{wanted.name[:40]!r} is no name for a token", hint="letters, digits, spaces, '.', '_', '-'")
    days = settings.token_days if wanted.days is None else wanted.days
    if days > settings.max_token_days:
        raise Invalid(f"a token lives {settings.max_token_days} days at most", hint="make another when it ends")
    limit = Limit(wanted.role, Grant(wanted.role, Scope.parse(wanted.scope)).scope)
    owner = _owner(connection, who, wanted.owner)
    if wanted.owner is None:
        _check_useful(connection, who, limit)
    name = select(i.tokens.c.id).where(
        i.tokens.c.owner == owner, i.tokens.c.name == wanted.name, i.tokens.c.revoked_at.is_(None)
    )
    if connection.execute(name.where(i.tokens.c.expires_at > time.time())).first() is not None:
        raise Conflict(f"{owner} has a token {wanted.name!r} already", hint="choose another name, or revoke that one")
    token, at = make(), time.time()
    values = {
        "id": token.id, "name": wanted.name, "owner": owner, "role": limit.role, "scope": str(limit.scope),
        "created_at": at, "created_by": actor, "expires_at": at + days * _DAY,
    }  # fmt: skip
    connection.execute(insert(i.tokens).values(digest=token.digest, **values))
    audit(
        connection, actor, "token.create", token.shown, owner=owner, name=wanted.name,
        role=limit.role, scope=str(limit.scope), days=days,
    )  # fmt: skip
    row = connection.execute(select(i.tokens).where(i.tokens.c.id == token.id)).mappings().one()
    return {**_shown(row), "token": token.text}


def listed(connection: Connection, who: Principal, *, everybody: bool = False) -> list[dict[str, Any]]:
    """The principal's own tokens; with `everybody` all of them, for administrators of the platform."""
    if everybody:
        access.require(connection, who, "admin")
    query = select(i.tokens).order_by(i.tokens.c.created_at.desc(), i.tokens.c.id)
    if not everybody and not who.is_local:
        query = query.where(i.tokens.c.owner == who.subject)
    return [_shown(row) for row in connection.execute(query).mappings()]


def revoke(connection: Connection, who: Principal, token: str, actor: str) -> dict[str, Any]:
    """End a token, by its id (`rml_…` as lists show it). Owners may, and administrators of what it is for."""
    query = select(i.tokens).where(i.tokens.c.id == token.removeprefix("rml_"))
    row = connection.execute(query.with_for_update()).mappings().one_or_none()
    mine = row is not None and row["owner"] == who.subject
    if not mine and not who.is_local:
        scope = Scope("all") if row is None else Scope.parse(row["scope"])
        team = _team_of_service(row["owner"]) if row is not None else None
        if team is not None:
            access.require(connection, who, "admin", team=team)
        elif scope.kind == "team":
            access.require(connection, who, "admin", team=scope.name)
        else:
            access.require(connection, who, "admin")
    if row is None:
        raise NotFound(f"there is no token {token[:20]}", hint="rml tokens list shows them")
    if row["revoked_at"] is None:
        values = {"revoked_at": time.time(), "revoked_by": actor}
        connection.execute(update(i.tokens).where(i.tokens.c.id == row["id"]).values(**values))
        audit(connection, actor, "token.revoke", f"rml_{row['id']}", owner=row["owner"], name=row["name"])
    return _shown(connection.execute(select(i.tokens).where(i.tokens.c.id == row["id"])).mappings().one())


def _owner(connection: Connection, who: Principal, asked: str | None) -> str:
    """Whose permissions bound the token: the asker's, or a team's service that no person's leaving ends."""
    if asked is None:
        return who.subject
    if not _SERVICE.match(asked):
        raise Invalid(f"{asked[:80]!r} is no service", hint="write service:TEAM/NAME, for example service:safety/ci")
    access.require(connection, who, "admin", team=_team_of_service(asked))
    return asked


def _team_of_service(owner: str) -> str | None:
    return owner.removeprefix("service:").partition("/")[0] if owner.startswith("service:") else None


def _check_useful(connection: Connection, who: Principal, limit: Limit) -> None:
    """Refuse a token that could do more than its owner: it would not work, and asking for it shows a mistake (or an attempt)."""
    if who.is_local or limit == Limit("admin"):
        return  # as much as the owner, whatever that is
    scope = limit.scope
    if scope.kind == "all":
        return
    resource = Resource(scope.name) if scope.kind == "team" else access.resource_of(connection, scope.name)
    highest = max(ROLES[limit.role], key=list(Action).index)
    decision = decide(highest, resource, access.grants_of(connection, who), who.limit, who=who.display or who.id)
    if not decision.allowed:
        raise access.refusal(f"no token for what you may not do: {decision.reason}", highest, resource)


def _shown(row: Any) -> dict[str, Any]:
    state = "revoked" if row["revoked_at"] else "expired" if row["expires_at"] <= time.time() else "active"
    return {
        "id": f"rml_{row['id']}",
        "name": row["name"],
        "owner": row["owner"],
        "role": row["role"],
        "scope": row["scope"],
        "state": state,
        "created_at": iso(row["created_at"]),
        "created_by": row["created_by"],
        "expires_at": iso(row["expires_at"]),
        "used_at": iso(row["used_at"]) if row["used_at"] else None,
    }
