"""Published pipelines: their versions, by digest; what of the blob store they need; what triggers them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from roblox_ml_core.digests import canonical_json
from roblox_ml_core.errors import Conflict, Invalid, NotFound
from roblox_ml_core.storage import BlobStore
from sqlalchemy import Connection, delete, insert, select, update

from ..database import now
from ..records import audit, iso
from ..tables import released_blobs
from . import tables as t
from .rows import OPEN, lock

__all__ = ["delete_pipeline", "describe", "list_pipelines", "publish", "require_pipeline", "roots"]

_PARTS = ("ir", "blobs", "arguments", "newest", "notify")


def publish(
    connection: Connection,
    store: BlobStore,
    name: str,
    *,
    ir: str,
    blobs: Sequence[str],
    arguments: Mapping[str, Any],
    newest: Mapping[str, str],
    notify: Sequence[Any],
    provenance: Mapping[str, Any],
    triggers: Sequence[Mapping[str, Any]],
    actor: str,
    team: str | None = None,
) -> dict[str, Any]:
    """Store a version, unless it is the latest one already; its triggers replace those before in any case."""
    lock(connection)
    if missing := [digest for digest in dict.fromkeys([ir, *blobs]) if not store.has(digest)]:
        raise Conflict(
            f"{len(missing)} blobs of {name} are not in the store, {missing[0]} for one",
            hint="upload them to /v1/store first; `publish()` does",
            details={"missing": missing[:1000]},
        )
    _refuse_circle(connection, name, triggers)
    values = {
        "ir": ir,
        "blobs": sorted(set(blobs)),
        "arguments": dict(arguments),
        "newest": dict(newest),
        "notify": list(notify),
    }
    digest = hashlib.sha256(canonical_json({key: values[key] for key in _PARTS})).hexdigest()
    latest = connection.execute(select(t.pipelines.c.latest).where(t.pipelines.c.name == name)).scalar()
    v = t.pipeline_versions.c
    same = select(v.digest).where(v.pipeline == name, v.version == latest)
    created = latest is None or connection.execute(same).scalar() != digest
    version = (latest or 0) + created
    if latest is None:
        connection.execute(insert(t.pipelines).values(name=name, latest=version, team=team, created_at=now()))
    else:
        connection.execute(update(t.pipelines).where(t.pipelines.c.name == name).values(latest=version, team=team))
    if created:
        row = {
            "pipeline": name,
            "version": version,
            "digest": digest,
            "provenance": dict(provenance),
            "created_at": now(),
        }
        connection.execute(insert(t.pipeline_versions).values(**row, **values, created_by=actor))
        audit(connection, actor, "pipeline.publish", name, version=version, ir=ir)
    _replace_triggers(connection, name, triggers)
    return {"pipeline": name, "version": version, "digest": digest, "created": created}


def describe(connection: Connection, name: str) -> dict[str, Any]:
    """A pipeline with its latest version, its triggers and its schedules."""
    version = require_pipeline(connection, name)
    v, w = t.pipeline_versions.c, t.triggers.c
    row = (
        connection.execute(select(t.pipeline_versions).where(v.pipeline == name, v.version == version)).mappings().one()
    )
    rows = connection.execute(select(w.kind, w.subject, w.state).where(w.pipeline == name).order_by(w.kind, w.subject))
    names = connection.execute(select(t.schedules.c.name).where(t.schedules.c.pipeline == name)).scalars()
    return {
        "pipeline": name,
        "version": version,
        **{key: row[key] for key in (*_PARTS, "provenance")},
        "triggers": [
            {"kind": kind, "subject": subject, "state": state or None} for kind, subject, state in rows.tuples()
        ],
        "schedules": sorted(names),
        "published": iso(row["created_at"]),
        "by": row["created_by"],
    }


def list_pipelines(connection: Connection) -> list[dict[str, Any]]:
    names = connection.execute(select(t.pipelines.c.name).order_by(t.pipelines.c.name)).scalars().all()
    return [describe(connection, name) for name in names]


def delete_pipeline(connection: Connection, name: str, *, actor: str) -> dict[str, Any]:
    """Forget a pipeline, its schedules and triggers. The record of its runs stays; what waits is skipped.

    Refused while one of its runs goes on.
    """
    lock(connection)
    require_pipeline(connection, name)
    r = t.scheduled_runs.c
    running = select(r.run).where(r.pipeline == name, r.state == "RUNNING").limit(10)
    if runs := list(connection.execute(running).scalars()):
        raise Conflict(f"{name} is running: {', '.join(runs)}", hint="pause its schedules and wait, or cancel the runs")
    waiting = update(t.scheduled_runs).where(r.pipeline == name, r.state.in_(OPEN))
    connection.execute(
        waiting.values(state="SKIPPED", reason="the pipeline was deleted", late_at=None, finished_at=now())
    )
    blobs = {digest for row in _versions(connection, name) for digest in (row["ir"], *row["blobs"])}
    known = set(connection.execute(select(released_blobs.c.digest)).scalars())
    if fresh := [{"digest": digest, "at": now()} for digest in sorted(blobs - known)]:
        connection.execute(insert(released_blobs), fresh)
    for table, column in (
        (t.triggers, t.triggers.c.pipeline),
        (t.schedules, t.schedules.c.pipeline),
        (t.pipeline_versions, t.pipeline_versions.c.pipeline),
        (t.pipelines, t.pipelines.c.name),
    ):
        connection.execute(delete(table).where(column == name))
    audit(connection, actor, "pipeline.delete", name)
    return {"deleted": name}


def require_pipeline(connection: Connection, name: str) -> int:
    """The latest version of a pipeline that is published."""
    version = connection.execute(select(t.pipelines.c.latest).where(t.pipelines.c.name == name)).scalar()
    if version is None:
        raise NotFound(
            f"no pipeline {name} is published", hint=f"publish it: rml publish FILE:{name.replace('-', '_')}"
        )
    return int(version)


def roots(connection: Connection) -> set[str]:
    """Blobs that published pipelines need: their IR, bundles, locks and data. (Older versions too: their runs can be resumed.)"""
    rows = connection.execute(select(t.pipeline_versions.c.ir, t.pipeline_versions.c.blobs)).tuples()
    return {digest for ir, blobs in rows for digest in (ir, *blobs)}


def _versions(connection: Connection, name: str) -> list[Any]:
    return list(
        connection.execute(select(t.pipeline_versions).where(t.pipeline_versions.c.pipeline == name)).mappings()
    )


def _replace_triggers(connection: Connection, name: str, triggers: Sequence[Mapping[str, Any]]) -> None:
    w = t.triggers.c
    seen = dict(
        connection.execute(select(w.subject, w.seen).where(w.pipeline == name, w.kind == "dataset")).tuples().all()
    )
    connection.execute(delete(t.triggers).where(w.pipeline == name))
    rows = {
        (item["kind"], item["subject"], item.get("state") or ""): {
            "pipeline": name,
            "kind": item["kind"],
            "subject": item["subject"],
            "state": item.get("state") or "",
            # What was there when it was first published is no news; publishing again must not lose what came since.
            "seen": seen.get(item["subject"], int(item.get("seen") or 0)),
        }
        for item in triggers
    }
    if rows:
        connection.execute(insert(t.triggers), list(rows.values()))


def _refuse_circle(connection: Connection, name: str, triggers: Sequence[Mapping[str, Any]]) -> None:
    """Pipelines whose runs start one another without end."""
    w = t.triggers.c
    starts: dict[str, set[str]] = {}
    others = connection.execute(select(w.subject, w.pipeline).where(w.kind == "run", w.pipeline != name)).tuples()
    for before, after in [*others, *((i["subject"], name) for i in triggers if i["kind"] == "run")]:
        starts.setdefault(before, set()).add(after)
    paths = [[name]]
    reached: set[str] = set()
    while paths:
        path = paths.pop()
        for follower in sorted(starts.get(path[-1], ())):
            if follower == name:
                raise Invalid(
                    f"{' → '.join([*path, name])}: runs of these pipelines would start one another without end",
                    hint="leave out one of the triggers, or give one of them a schedule instead",
                )
            if follower not in reached:
                reached.add(follower)
                paths.append([*path, follower])
