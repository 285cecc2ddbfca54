"""Endpoints: a stable name for clients, pointing at a model's alias (and following it) or at one version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from roblox_ml_core.errors import Conflict, Invalid, NotFound
from roblox_ml_core.names import check_alias, check_name
from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from . import aliases
from . import tables as t
from .database import bump, now
from .preprocess import clients_signature, preprocess_of
from .records import audit, iso
from .rollback import stack_of, target
from .rollout.uses import forget_endpoint, refuse_if_used, users_of_endpoint
from .versions import lock_model, require

__all__ = [
    "POLICY",
    "Target",
    "delete_endpoint",
    "describe",
    "list_endpoints",
    "model_of",
    "needed_versions",
    "put",
    "rollback",
    "withdraw",
]

#: The policy of an endpoint of which nobody said anything: nothing is kept, lines are short.
POLICY: Mapping[str, Mapping[str, Any]] = {
    "cache": {"entries": 0, "bytes": 0},
    "queue": {"max_wait_ms": 200, "max_rows": 10_000},
    # Who is assigned to arms and canaries, unless a layer says otherwise.
    "assignment": {"unit": "user_id"},
    # What doors keep of its requests; `rate` in 10,000ths.
    "log": {"rate": 10_000, "data_class": "internal", "retention_days": 30, "bodies": False},
    # Requests under way at one version on one server; 0: no limit but the door's own.
    "limits": {"concurrency": 0},
}


@dataclass(frozen=True, slots=True)
class Target:
    """Where an endpoint points: a model, and either an alias to follow or a version to stay at."""

    model: str
    alias: str | None
    version: int | None


def put(
    connection: Connection,
    name: str,
    to: Target,
    actor: str,
    *,
    kind: str = "put",
    policy: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Create the endpoint or point it elsewhere; its target must exist. The parts of `policy` replace those there are."""
    check_name(name, "endpoint name")
    if (to.alias is None) == (to.version is None):
        raise Invalid(
            f"endpoint {name} needs either an alias or a version",
            hint='send {"model": "…", "alias": "champion"} to follow an alias, {"model": "…", "version": 3} to stay at one',
        )
    lock_model(connection, to.model)
    resolved = _resolve(connection, to)
    current = _row(connection, name)
    same = current is not None and _target(current) == to
    if not same:
        values = {"model": to.model, "alias": to.alias, "version": to.version}
        if current is None:
            _create(connection, name, values)
        else:
            connection.execute(update(t.endpoints).where(t.endpoints.c.name == name).values(**values))
        event = {"endpoint": name, "kind": kind, "resolved": resolved, "actor": actor, "at": now(), **values}
        connection.execute(insert(t.endpoint_events).values(**event))
        before_it = None if current is None else {part: current[part] for part in values}
        audit(connection, actor, f"endpoint.{kind}", name, **values, before=before_it)
        bump(connection, "snapshot", "desired")
    if policy is not None:
        before = dict(current["policy"] or {}) if current is not None else {}
        after = {**before, **{part: {**before.get(part, {}), **wish} for part, wish in policy.items()}}
        if after != before:
            connection.execute(update(t.endpoints).where(t.endpoints.c.name == name).values(policy=after))
            audit(connection, actor, "endpoint.policy", name, **after)
            bump(connection, "snapshot")
    # Whose deployment is refused takes back this move and no other one.
    return {**describe(connection, name), "moved": not same and current is not None}


def _create(connection: Connection, name: str, values: Mapping[str, Any]) -> None:
    try:
        with connection.begin_nested():
            connection.execute(insert(t.endpoints).values(name=name, created_at=now(), **values))
    except IntegrityError:  # the lock above is a model's: somebody pointed the name at another model in this moment
        raise Conflict(
            f"endpoint {name} was created by somebody else in this moment",
            hint=f"look where it points (GET /v1/endpoints/{name}), then move it if you still want to",
        ) from None


def describe(connection: Connection, name: str) -> dict[str, Any]:
    """The endpoint, the version it means now, and the one a rollback would lead to."""
    row = _row(connection, name)
    if row is None:
        known = sorted(connection.execute(select(t.endpoints.c.name)).scalars())
        raise NotFound(
            f"there is no endpoint {name}", hint=f"endpoints: {', '.join(known) or 'none yet'}; rml.deploy makes one"
        )
    here = _target(row)
    version = _resolve(connection, here)
    detail = require(connection, here.model, version)
    policy = {part: {**default, **(row["policy"] or {}).get(part, {})} for part, default in POLICY.items()}
    return {
        "name": name,
        "model": here.model,
        "alias": here.alias,
        "pinned": here.version,
        "version": version,
        "digest": detail["digest"],
        "previous": _previous(connection, name, here, version),
        "signature": clients_signature(detail["package"], detail["signature"]),
        "preprocess": preprocess_of(detail["package"], detail["manifest"]),
        "policy": {part: policy[part] for part in ("cache", "queue")},
        "unit": policy["assignment"]["unit"],
        "log": policy["log"],
        "limits": policy["limits"],
        "created_at": iso(row["created_at"]),
    }


def model_of(connection: Connection, name: str) -> str | None:
    """The model that the endpoint points at, or None where there is no such endpoint."""
    row = _row(connection, name)
    return None if row is None else str(row["model"])


def list_endpoints(connection: Connection) -> list[dict[str, Any]]:
    names = connection.execute(select(t.endpoints.c.name).order_by(t.endpoints.c.name)).scalars().all()
    return [describe(connection, name) for name in names]


def delete_endpoint(connection: Connection, name: str, actor: str) -> dict[str, Any]:
    """Remove the endpoint; the model and its aliases stay."""
    gone = describe(connection, name)
    refuse_if_used(f"endpoint {name}", users_of_endpoint(connection, name))
    connection.execute(delete(t.endpoints).where(t.endpoints.c.name == name))
    # A new endpoint of the same name has a past of its own.
    connection.execute(delete(t.endpoint_events).where(t.endpoint_events.c.endpoint == name))
    forget_endpoint(connection, name)
    audit(connection, actor, "endpoint.delete", name, model=gone["model"], version=gone["version"])
    bump(connection, "snapshot", "desired")
    return gone


def rollback(connection: Connection, name: str, actor: str) -> dict[str, Any]:
    """Back to the version before: of the alias the endpoint follows, else of the endpoint's own past."""
    row = _row(connection, name)
    if row is None:
        describe(connection, name)  # raises
    here = _target(row)
    lock_model(connection, here.model)
    before = _resolve(connection, here)
    if here.alias is not None and aliases.rollback_version(connection, here.model, here.alias) is not None:
        reason = f"rollback of endpoint {name}"
        aliases.rollback(connection, here.model, here.alias, actor=actor, reason=reason)
        moved: str | None = here.alias
    else:
        back = _before(connection, name)
        if back is None:
            raise Conflict(
                f"endpoint {name} has nothing to roll back to: nothing came before {here.model}/{before}",
                hint="promote another version, or deploy another reference to this endpoint",
                details={"version": before},
            )
        put(connection, name, back, actor, kind="rollback")
        moved = None
    return {**describe(connection, name), "from": before, "alias_moved": moved}


def withdraw(connection: Connection, name: str, to: Target, actor: str) -> dict[str, Any]:
    """Take the move to `to` back, exactly: the endpoint points where it pointed before, be it an alias or a version.

    For a deployment that was refused. Somebody who has moved the endpoint since is not overruled, and a rollback afterwards does
    not lead to what was refused.
    """
    row = _row(connection, name)
    back = None if row is None or _target(row) != to else _last(connection, name)
    if back is not None:
        try:
            put(connection, name, back, actor, kind="rollback")
        except NotFound:  # what was before is gone
            back = None
    return {**describe(connection, name), "withdrawn": back is not None}


def needed_versions(connection: Connection) -> list[tuple[str, int]]:
    """Every version that some endpoint serves now, would serve after a rollback, or has just left. (`rollout.state` has the others.)

    The one just left stays so that clients keep an answer until its successor is ready everywhere.
    """
    needed: set[tuple[str, int]] = set()
    for row in connection.execute(select(t.endpoints)).mappings().all():
        here = _target(row)
        current = _resolve(connection, here)
        wanted = {(here.model, current), (here.model, _previous(connection, row["name"], here, current))}
        if here.alias is not None:
            left = (
                select(t.alias_events.c.from_version)
                .where(t.alias_events.c.model == here.model, t.alias_events.c.alias == here.alias)
                .order_by(t.alias_events.c.generation.desc())
                .limit(1)
            )
            wanted.add((here.model, connection.execute(left).scalar()))
        if (back := _before(connection, row["name"])) is not None:
            wanted.add((back.model, _resolve(connection, back)))
        needed |= {(model, version) for model, version in wanted if version is not None}
    known = set(connection.execute(select(t.versions.c.model, t.versions.c.version)).tuples())
    return sorted(needed & known)


def _row(connection: Connection, name: str) -> Any:
    query = select(t.endpoints).where(t.endpoints.c.name == name).with_for_update()
    if connection.get_execution_options().get("rml_write") is None:
        query = select(t.endpoints).where(t.endpoints.c.name == name)
    return connection.execute(query).mappings().one_or_none()


def _target(row: Any) -> Target:
    return Target(row["model"], row["alias"], row["version"])


def _resolve(connection: Connection, to: Target) -> int:
    if to.version is not None:
        require(connection, to.model, to.version)
        return to.version
    return int(aliases.get(connection, to.model, check_alias(to.alias or ""))["version"])


def _previous(connection: Connection, name: str, here: Target, current: int) -> int | None:
    """The version of the same model that a rollback would lead to."""
    if here.alias is not None:
        back = aliases.rollback_version(connection, here.model, here.alias)
        if back is not None:
            return back
    before = _before(connection, name)
    if before is None or before.model != here.model:
        return None
    version = _resolve(connection, before)
    return None if version == current else version


def _stack(connection: Connection, name: str) -> list[Target]:
    query = select(t.endpoint_events).where(t.endpoint_events.c.endpoint == name).order_by(t.endpoint_events.c.id)
    return stack_of((row["kind"] == "rollback", _target(row)) for row in connection.execute(query).mappings())


def _last(connection: Connection, name: str) -> Target | None:
    """The target before the present one, whatever it means by now."""
    stack = _stack(connection, name)
    return stack[-2] if len(stack) > 1 else None


def _before(connection: Connection, name: str) -> Target | None:
    """The target before the present one that still means something else."""
    stack = _stack(connection, name)
    if not stack:
        return None
    current = _resolve(connection, stack[-1])
    gone: set[Target] = set()
    for to in set(stack[:-1]):
        try:
            if (to.model, _resolve(connection, to)) == (stack[-1].model, current):
                gone.add(to)  # another name for the same version
        except NotFound:
            gone.add(to)
    return target(stack, gone)
