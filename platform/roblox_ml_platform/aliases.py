"""Aliases: moved by compare-and-swap, every move recorded, rollback as one more move."""

from __future__ import annotations

from typing import Any

from roblox_ml_core.errors import Conflict, NotFound
from roblox_ml_core.names import check_alias
from sqlalchemy import Connection, delete, insert, select, update

from . import tables as t
from .database import bump, now
from .notifying.events import event, record
from .records import audit, dirty, iso
from .rollback import stack_of, target
from .rollout.uses import refuse_if_used, users_of_alias
from .scheduling.occurrences import alias_moved
from .versions import lock_model, require, require_model

__all__ = ["delete_alias", "get", "history", "move", "rollback", "rollback_version"]


def get(connection: Connection, model: str, alias: str) -> dict[str, Any]:
    """Where the alias points: alias, version, digest, generation."""
    query = (
        select(t.aliases.c.alias, t.aliases.c.version, t.versions.c.digest, t.aliases.c.generation)
        .join_from(t.aliases, t.versions)
        .where(t.aliases.c.model == model, t.aliases.c.alias == alias)
    )
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        require_model(connection, model)
        known = connection.execute(select(t.aliases.c.alias).where(t.aliases.c.model == model)).scalars().all()
        raise NotFound(
            f"{model} has no alias {alias}",
            hint=f"its aliases are: {', '.join(sorted(known)) or 'none yet'}; promote a version to make one",
        )
    return dict(row)


def history(connection: Connection, model: str, alias: str) -> list[dict[str, Any]]:
    """Every move, newest first: who, when, from, to, why."""
    rows = _events(connection, model, alias)
    if not rows:
        get(connection, model, alias)  # raises, with the aliases there are
    return [
        {
            "generation": row["generation"],
            "kind": row["kind"],
            "from": row["from_version"],
            "to": row["to_version"],
            "by": row["actor"],
            "reason": row["reason"],
            "at": iso(row["at"]),
        }
        for row in reversed(rows)
    ]


def move(
    connection: Connection,
    model: str,
    alias: str,
    version: int | None,
    *,
    actor: str,
    reason: str,
    expected: int | None = None,
    kind: str = "promote",
) -> dict[str, Any]:
    """Point the alias at `version` (None removes it), if its generation is still `expected`; 0 means it must be new.

    Returns version, generation, from, moved. A move to where it already points changes nothing and is not recorded.
    """
    check_alias(alias)
    lock_model(connection, model)
    if version is not None:
        require(connection, model, version)
    events = _events(connection, model, alias)
    generation = events[-1]["generation"] if events else 0
    current = events[-1]["to_version"] if events else None
    if expected is not None and expected != generation:
        raise _lost(model, alias, expected, events)
    if current == version:
        return {"alias": alias, "version": version, "generation": generation, "from": current, "moved": False}
    where = (t.aliases.c.model == model, t.aliases.c.alias == alias)
    if version is None:
        connection.execute(delete(t.aliases).where(*where))
    elif current is None:
        connection.execute(
            insert(t.aliases).values(model=model, alias=alias, version=version, generation=generation + 1)
        )
    else:
        connection.execute(update(t.aliases).where(*where).values(version=version, generation=generation + 1))
    connection.execute(
        insert(t.alias_events).values(
            model=model,
            alias=alias,
            generation=generation + 1,
            kind=kind,
            from_version=current,
            to_version=version,
            actor=actor,
            reason=reason,
            at=now(),
        )
    )
    audit(connection, actor, f"alias.{kind}", f"{model}@{alias}", **{"from": current, "to": version, "reason": reason})
    subject = {"model": model, "alias": alias, "generation": generation + 1}
    facts: dict[str, Any] = {"from": current, "to": version, "kind": kind, "by": actor, "reason": reason}
    record(connection, event("alias.moved", subject, pipeline=_pipeline(connection, model, version), **facts))
    dirty(connection, model)
    if version is not None:
        alias_moved(connection, model, alias, version, generation + 1, now())
    bump(connection, "snapshot", "desired")
    return {"alias": alias, "version": version, "generation": generation + 1, "from": current, "moved": True}


def rollback(
    connection: Connection, model: str, alias: str, *, actor: str, expected: int | None = None, reason: str = "rollback"
) -> dict[str, Any]:
    """Move the alias back to the version before its current one; `Conflict` where there is none."""
    lock_model(connection, model)
    current = get(connection, model, alias)
    back = rollback_version(connection, model, alias)
    if back is None:
        raise Conflict(
            f"{model}@{alias} has nothing to roll back to: no other version that still exists was there before",
            hint=f"promote a version instead: rml.models.promote('{model}/<version>', alias='{alias}')",
            details={"version": current["version"], "generation": current["generation"]},
        )
    return move(connection, model, alias, back, actor=actor, reason=reason, expected=expected, kind="rollback")


def rollback_version(connection: Connection, model: str, alias: str) -> int | None:
    """The version a rollback would go to, or None."""
    moves = [(row["kind"] == "rollback", row["to_version"]) for row in _events(connection, model, alias)]
    living = set(connection.execute(select(t.versions.c.version).where(t.versions.c.model == model)).scalars())
    gone = {to for _, to in moves if to not in living}
    return target(stack_of(moves), gone)


def delete_alias(connection: Connection, model: str, alias: str, *, actor: str) -> dict[str, Any]:
    """Remove the alias; refused while an endpoint follows it. Its history stays."""
    lock_model(connection, model)
    get(connection, model, alias)
    query = select(t.endpoints.c.name).where(t.endpoints.c.model == model, t.endpoints.c.alias == alias)
    if users := list(connection.execute(query).scalars()):
        raise Conflict(
            f"{model}@{alias} is followed by endpoint {', '.join(users)}",
            hint="undeploy the endpoint, or point it elsewhere, first",
            details={"used_by": users},
        )
    refuse_if_used(f"{model}@{alias}", users_of_alias(connection, model, alias))
    return move(connection, model, alias, None, actor=actor, reason="deleted", kind="delete")


def _events(connection: Connection, model: str, alias: str) -> list[Any]:
    query = (
        select(t.alias_events)
        .where(t.alias_events.c.model == model, t.alias_events.c.alias == alias)
        .order_by(t.alias_events.c.generation)
    )
    return list(connection.execute(query).mappings())


def _pipeline(connection: Connection, model: str, version: int | None) -> str | None:
    """The pipeline that made a version: those who hear of it hear of its alias too."""
    query = select(t.versions.c.lineage).where(t.versions.c.model == model, t.versions.c.version == version)
    lineage = connection.execute(query).scalar() or {}
    return str(lineage["pipeline"])[:255] if lineage.get("pipeline") else None


def _lost(model: str, alias: str, expected: int, events: list[Any]) -> Conflict:
    if not events:
        return Conflict(
            f"{model}@{alias} does not exist yet, but generation {expected} of it was expected",
            hint="pass expected_generation 0 to create it, or null to move it whatever it is",
            details={"generation": 0, "version": None},
        )
    last = events[-1]
    return Conflict(
        f"{model}@{alias} was moved meanwhile: {last['actor']} pointed it at version {last['to_version']} at {iso(last['at'])}"
        f" (generation {last['generation']}, you expected {expected})",
        hint="look at that version, then promote again with the new generation if yours should replace it",
        details={
            "generation": last["generation"],
            "version": last["to_version"],
            "by": last["actor"],
            "at": iso(last["at"]),
        },
    )
