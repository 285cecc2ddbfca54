"""Canaries: a share of an endpoint's units answered by another version of its model, until it is promoted or taken back."""

from __future__ import annotations

from typing import Any

from roblox_ml_core.errors import Conflict, NotFound
from sqlalchemy import Connection, delete, insert, select, update

from .. import aliases, endpoints
from ..database import bump, now
from ..records import audit, iso
from . import tables as t
from .refs import Challenger, check_fit

__all__ = ["describe", "end", "promote", "start"]


def describe(connection: Connection, endpoint: str) -> dict[str, Any] | None:
    """The endpoint's canary, or None."""
    row = _row(connection, endpoint)
    if row is None:
        return None
    fields = ("model", "version", "share", "isolated", "revision", "actor")
    return {**{field: row[field] for field in fields}, "started_at": iso(row["started_at"])}


def start(
    connection: Connection,
    endpoint: str,
    version: int,
    share: int,
    actor: str,
    *,
    isolated: bool = False,
    expect: int | None = None,
) -> dict[str, Any]:
    """Let a share of the units be answered by `version`, or change the share of the canary that runs.

    A larger share keeps everybody who is in. Another version is another canary: with a salt, and so with units, of its own.

    Raises:
        Conflict: it is the champion already, or somebody changed the canary since revision `expect`.
    """
    here = endpoints.describe(connection, endpoint)
    if version == here["version"]:
        raise Conflict(
            f"{here['model']}/{version} is what endpoint {endpoint} answers with already",
            hint="name another version; `rml models show` lists them",
        )
    check_fit(connection, here, Challenger(here["model"], None, version))
    row = _row(connection, endpoint)
    _expect(endpoint, row, expect)
    same = row is not None and (row["model"], row["version"]) == (here["model"], version)
    values: dict[str, Any] = {"share": share, "isolated": isolated, "actor": actor}
    if row is not None and same:
        values["revision"] = row["revision"] + 1
        connection.execute(update(t.canaries).where(t.canaries.c.endpoint == endpoint).values(**values))
    else:
        at = now()
        values |= {"model": here["model"], "version": version, "started_at": at, "salt": f"canary/{endpoint}/{at:.3f}"}
        values["revision"] = 1 if row is None else row["revision"] + 1
        connection.execute(delete(t.canaries).where(t.canaries.c.endpoint == endpoint))
        connection.execute(insert(t.canaries).values(endpoint=endpoint, **values))
    before = None if row is None else {"version": row["version"], "share": row["share"], "isolated": row["isolated"]}
    after = {"version": version, "share": share, "isolated": isolated}
    audit(connection, actor, "canary.start", endpoint, before=before, after=after)
    bump(connection, "snapshot", "desired")
    return describe(connection, endpoint) or {}


def end(connection: Connection, endpoint: str, actor: str, reason: str) -> dict[str, Any]:
    """Back to the champion for everybody.

    Raises:
        NotFound: there is no canary.
    """
    here = describe(connection, endpoint)
    if here is None:
        endpoints.describe(connection, endpoint)
        raise NotFound(f"endpoint {endpoint} has no canary", hint="rml canary start makes one")
    connection.execute(delete(t.canaries).where(t.canaries.c.endpoint == endpoint))
    before = {"version": here["version"], "share": here["share"], "isolated": here["isolated"]}
    audit(connection, actor, "canary.end", endpoint, before=before, after=None, reason=reason)
    bump(connection, "snapshot", "desired")
    return {**here, "reason": reason}


def promote(connection: Connection, endpoint: str, actor: str) -> dict[str, Any]:
    """The canary's version becomes the champion, for everybody at once: the alias (or the pin) moves and the canary ends."""
    here, canary = endpoints.describe(connection, endpoint), describe(connection, endpoint)
    if canary is None:
        raise NotFound(f"endpoint {endpoint} has no canary to promote", hint="rml canary start makes one")
    if canary["model"] != here["model"]:
        raise Conflict(
            f"the canary of {endpoint} is {canary['model']}/{canary['version']}, and the endpoint has come to {here['model']}",
            hint=f"rml canary end {endpoint}; then deploy the version you mean",
        )
    version = check_fit(connection, here, Challenger(canary["model"], None, int(canary["version"])))
    end(connection, endpoint, actor, "promoted")
    if here["alias"] is not None:
        reason = f"canary of endpoint {endpoint}"
        aliases.move(connection, here["model"], here["alias"], version, actor=actor, reason=reason)
    else:
        endpoints.put(connection, endpoint, endpoints.Target(here["model"], None, version), actor)
    return endpoints.describe(connection, endpoint)


def _row(connection: Connection, endpoint: str) -> Any:
    query = select(t.canaries).where(t.canaries.c.endpoint == endpoint)
    if connection.get_execution_options().get("rml_write") is not None:
        query = query.with_for_update()
    return connection.execute(query).mappings().one_or_none()


def _expect(endpoint: str, row: Any, expect: int | None) -> None:
    have = 0 if row is None else int(row["revision"])
    if expect is not None and expect != have:
        raise Conflict(
            f"the canary of {endpoint} was changed meanwhile: it is at revision {have}, you expected {expect}",
            hint="look at it, then send your change again with its revision",
            details={"revision": have},
        )
