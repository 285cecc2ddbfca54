"""Versions of models: how one is described, tagged, found and deleted. (How one is made is in `registration`.)"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from roblox_ml_core.errors import Conflict, NotFound
from sqlalchemy import Connection, delete, func, insert, select, update

from . import tables as t
from .database import bump, now
from .gates import number
from .records import audit, dirty, iso
from .rollout.uses import users_of_version
from .search import Term, condition

__all__ = [
    "brief",
    "delete_version",
    "describe",
    "index",
    "list_models",
    "list_versions",
    "lock_model",
    "require",
    "require_model",
    "tag",
]

_PAGE = 1000


def require(connection: Connection, model: str, version: int) -> Any:
    """The row of a version, or `NotFound` that says which versions there are."""
    query = select(t.versions).where(t.versions.c.model == model, t.versions.c.version == version)
    row = connection.execute(query).mappings().one_or_none()
    if row is not None:
        return row
    newest = connection.execute(select(func.max(t.versions.c.version)).where(t.versions.c.model == model)).scalar()
    raise NotFound(
        f"{model} has no version {version}",
        hint=f"its newest version is {newest}"
        if newest
        else f"no model {model} is registered; `rml models list` shows what is",
    )


def require_model(connection: Connection, model: str) -> None:
    """Raises `NotFound` when no such model is registered."""
    if connection.execute(select(t.models.c.name).where(t.models.c.name == model)).first() is None:
        raise NotFound(f"no model {model} is registered", hint="`rml models list` shows the registered models")


def lock_model(connection: Connection, model: str) -> Any:
    """The model's row, locked until the transaction ends: all changes of one model happen one after another."""
    row = (
        connection.execute(select(t.models).where(t.models.c.name == model).with_for_update()).mappings().one_or_none()
    )
    if row is None:
        raise NotFound(f"no model {model} is registered", hint="`rml models list` shows the registered models")
    return row


def brief(row: Any, aliases: list[str]) -> dict[str, Any]:
    """A version in a list."""
    return {
        "name": row["model"],
        "version": row["version"],
        "digest": row["digest"],
        "format": row["package"].get("format"),
        "aliases": aliases,
        "metrics": row["metrics"],
        "params": row["params"],
        "tags": row["tags"],
        "lineage": row["lineage"],
        "created_at": iso(row["created_at"]),
        "created_by": row["created_by"],
    }


def describe(connection: Connection, model: str, version: int) -> dict[str, Any]:
    """Everything about one version, each registration of it included."""
    row = require(connection, model, version)
    names = _aliases(connection, model).get(version, [])
    calls = connection.execute(
        select(t.registrations)
        .where(t.registrations.c.model == model, t.registrations.c.version == version)
        .order_by(t.registrations.c.id)
    ).mappings()
    fields = ("created", "lineage", "metrics", "params", "tags", "gate", "actor")
    return {
        **brief(row, names),
        "package": row["package"],
        "manifest": row["manifest"],
        "signature": row["signature"],
        "registrations": [{**{field: call[field] for field in fields}, "at": iso(call["at"])} for call in calls],
    }


def list_versions(connection: Connection, model: str) -> list[dict[str, Any]]:
    """All versions, newest first."""
    require_model(connection, model)
    query = select(t.versions).where(t.versions.c.model == model).order_by(t.versions.c.version.desc())
    names = _aliases(connection, model)
    return [brief(row, names.get(row["version"], [])) for row in connection.execute(query).mappings()]


def list_models(connection: Connection, terms: tuple[Term, ...]) -> list[dict[str, Any]]:
    """Models with at least one version that satisfies the terms, and those versions, newest first."""
    query = (
        select(t.versions)
        .where(condition(terms))
        .order_by(t.versions.c.model, t.versions.c.version.desc())
        .limit(_PAGE)
    )
    found: dict[str, list[Any]] = {}
    for row in connection.execute(query).mappings():
        found.setdefault(row["model"], []).append(row)
    answer = []
    for model, rows in found.items():
        names = _aliases(connection, model)
        matching = [brief(row, names.get(row["version"], [])) for row in rows]
        pointing = {alias: version for version, aliases in names.items() for alias in aliases}
        answer.append({"name": model, "aliases": pointing, "latest": rows[0]["version"], "matching": matching})
    return answer


def tag(connection: Connection, model: str, version: int, tags: Mapping[str, str | None], actor: str) -> None:
    """Set tags; None removes one."""
    lock_model(connection, model)
    row = require(connection, model, version)
    merged = {key: value for key, value in {**row["tags"], **tags}.items() if value is not None}
    where = (t.versions.c.model == model, t.versions.c.version == version)
    connection.execute(update(t.versions).where(*where).values(tags=merged))
    index(connection, model, version, tags=merged, params=row["params"], metrics=row["metrics"])
    audit(connection, actor, "version.tag", f"{model}/{version}", tags=dict(tags))
    dirty(connection, model)


def index(
    connection: Connection,
    model: str,
    version: int,
    *,
    tags: Mapping[str, Any],
    params: Mapping[str, Any],
    metrics: Mapping[str, Any],
) -> None:
    """Write the rows that search reads, in place of those that are there."""
    connection.execute(delete(t.facts).where(t.facts.c.model == model, t.facts.c.version == version))
    rows = [
        {
            "model": model,
            "version": version,
            "kind": kind,
            "key": key,
            "text": str(value),
            # Only numbers that compare: NaN is equal to nothing here but larger than everything in PostgreSQL.
            "number": size if kind == "metric" and (size := number(value)) is not None and size - size == 0 else None,
        }
        for kind, values in (("tag", tags), ("param", params), ("metric", metrics))
        for key, value in values.items()
    ]
    if rows:
        connection.execute(insert(t.facts), rows)


def delete_version(connection: Connection, model: str, version: int, actor: str) -> None:
    """Forget a version that nobody refers to; its number is never given out again."""
    lock_model(connection, model)
    row = require(connection, model, version)
    users = [f"alias {name}" for name in _aliases(connection, model).get(version, [])]
    pinned = select(t.endpoints.c.name).where(t.endpoints.c.model == model, t.endpoints.c.version == version)
    users += [f"endpoint {name}" for name in connection.execute(pinned).scalars()]
    users += users_of_version(connection, model, version)
    if users:
        raise Conflict(
            f"{model}/{version} is in use by {', '.join(users)}",
            hint="move the alias to another version, or undeploy the endpoint, and delete it then",
            details={"used_by": users},
        )
    where = (t.versions.c.model == model, t.versions.c.version == version)
    connection.execute(delete(t.facts).where(t.facts.c.model == model, t.facts.c.version == version))
    connection.execute(delete(t.versions).where(*where))
    known = set(connection.execute(select(t.released_blobs.c.digest)).scalars())
    digests = {entry["sha256"] for entry in row["manifest"].values()} - known
    if digests:
        connection.execute(insert(t.released_blobs), [{"digest": digest, "at": now()} for digest in sorted(digests)])
    audit(connection, actor, "version.delete", f"{model}/{version}", digest=row["digest"])
    # It may have been what an endpoint would roll back to: agents and doors must not keep what can no longer be fetched.
    bump(connection, "snapshot", "desired")
    dirty(connection, model)


def _aliases(connection: Connection, model: str) -> dict[int, list[str]]:
    query = select(t.aliases).where(t.aliases.c.model == model).order_by(t.aliases.c.alias)
    found: dict[int, list[str]] = {}
    for row in connection.execute(query).mappings():
        found.setdefault(row["version"], []).append(row["alias"])
    return found
