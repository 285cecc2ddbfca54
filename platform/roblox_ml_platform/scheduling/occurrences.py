"""Triggers: what happens (a data set's new version, an alias that moved, a run that ended) and the runs it starts.

Whoever makes it happen notes it in its own transaction (`alias_moved`, `run_ended`, `note`); the scheduler turns notes into runs,
each once by its key. Loops end: pipelines that start one another are refused when they are published, and what cannot be seen
then (a pipeline that moves the alias it waits for) is bounded by the length of a chain and by the hour.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from .. import tables as registry
from . import tables as t
from .rows import add, lock, newest_version, row_of

__all__ = [
    "MAX_CHAIN",
    "MAX_PER_HOUR",
    "alias_moved",
    "dataset_grew",
    "from_event",
    "note",
    "run_ended",
    "start_triggered",
]

MAX_CHAIN = 8
MAX_PER_HOUR = 60
_BATCH = 100
_HOUR_S = 3600.0
_LATE_AFTER_S = 900.0
_STATES = {"run.succeeded": "SUCCEEDED", "run.failed": "FAILED"}


def note(
    connection: Connection, kind: str, subject: str, key: str, at: float, *, state: str = "", cause: str = ""
) -> bool:
    """Write down that something happened, if anybody waits for it. `key` tells it from every other time it happens."""
    w = t.triggers.c
    waits = select(w.pipeline).where(w.kind == kind, w.subject == subject, w.state == state).limit(1)
    if connection.execute(waits).scalar() is None:
        return False
    values = {"kind": kind, "subject": subject, "key": key[:255], "state": state, "cause": cause, "at": at}
    connection.execute(insert(t.occurrences).values(**values))
    return True


def alias_moved(connection: Connection, model: str, alias: str, version: int, generation: int, at: float) -> None:
    """For the registry: an alias points elsewhere. The run that registered the version, if one did, is the cause."""
    v, subject = registry.versions.c, f"{model}@{alias}"
    lineage = connection.execute(select(v.lineage).where(v.model == model, v.version == version)).scalar()
    cause = str((lineage or {}).get("run") or "")
    note(connection, "alias", subject, f"{subject}#{generation}", at, cause=cause)


def run_ended(connection: Connection, pipeline: str, run: str, state: str, at: float) -> None:
    """A run is over: scheduled, triggered or started by hand."""
    note(connection, "run", pipeline, f"{run}:{state}", at, state=state, cause=run)


def from_event(connection: Connection, event: Mapping[str, Any]) -> None:
    """For the intake of events: runs that somebody started by hand end as well."""
    state = _STATES.get(str(event.get("type")))
    run = (event.get("subject") or {}).get("run")
    if state and run and event.get("pipeline"):
        run_ended(connection, str(event["pipeline"]), str(run), state, float(event["at"]))


def dataset_grew(connection: Connection, name: str, version: int, at: float) -> int:
    """Note the versions of a data set that came since its triggers last looked; returns how many."""
    lock(connection)
    w = t.triggers.c
    mine = (w.kind == "dataset", w.subject == name, w.seen < version)
    seen = connection.execute(select(func.min(w.seen)).where(*mine)).scalar()
    if seen is None:
        return 0
    for number in range(max(seen + 1, version - _BATCH), version + 1):
        note(connection, "dataset", name, f"{name}/{number}", at)
    connection.execute(update(t.triggers).where(*mine).values(seen=version))
    return version - int(seen)


def start_triggered(connection: Connection, at: float) -> int:
    """Turn what was noted into runs; returns how many notes were worked off."""
    lock(connection)
    o, w = t.occurrences.c, t.triggers.c
    noted = connection.execute(select(t.occurrences).order_by(o.id).limit(_BATCH)).mappings().all()
    if not noted:
        return 0
    newest_note = {(n["kind"], n["subject"]): n["key"] for n in noted}
    versions = newest_version(connection, _triggered(connection))
    for one in noted:
        mine = (w.kind == one["kind"], w.subject == one["subject"], w.state == one["state"])
        for pipeline in connection.execute(select(w.pipeline).where(*mine)).scalars().all():
            # A run reads the newest version there is: of several that came at once, one is enough.
            last = newest_note[one["kind"], one["subject"]]
            passed = f"{last} came right after" if one["kind"] == "dataset" and one["key"] != last else ""
            _start(connection, one, pipeline, versions[pipeline], at, passed)
    connection.execute(delete(t.occurrences).where(o.id.in_([n["id"] for n in noted])))
    return len(noted)


def _triggered(connection: Connection) -> list[str]:
    """The pipelines that have triggers."""
    return list(connection.execute(select(t.triggers.c.pipeline).distinct()).scalars())


def _start(connection: Connection, one: Any, pipeline: str, version: int, at: float, passed: str) -> None:
    source, r = f"trigger:{pipeline}", t.scheduled_runs.c
    key = f"{source}@{one['kind']}:{one['key']}"
    if connection.execute(select(r.id).where(r.key == key)).scalar() is not None:
        return
    chain = 1 + (connection.execute(select(r.chain).where(r.run == one["cause"])).scalar() or 0 if one["cause"] else 0)
    reason = passed or _bounded(connection, source, chain, at)
    row = row_of(
        key=key,
        source=source,
        pipeline=pipeline,
        version=version,
        due=one["at"],
        at=at,
        state="SKIPPED" if reason else "WAITING",
        reason=reason or f"{one['kind']} {one['subject']}",
        chain=chain,
        late_at=one["at"] + _LATE_AFTER_S,
    )
    add(connection, [row])


def _bounded(connection: Connection, source: str, chain: int, at: float) -> str:
    """Why this one must not run, if it looks like a loop."""
    if chain > MAX_CHAIN:
        return f"trigger loop: {MAX_CHAIN} triggered runs led to this one, each started by the one before"
    r = t.scheduled_runs.c
    recent = select(func.count()).where(r.source == source, r.recorded_at > at - _HOUR_S, r.state != "SKIPPED")
    if int(connection.execute(recent).scalar_one()) >= MAX_PER_HOUR:
        return f"trigger loop: {MAX_PER_HOUR} runs within the hour"
    return ""
