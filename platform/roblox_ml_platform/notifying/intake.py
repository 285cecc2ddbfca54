"""Events that come from outside: checked, cleaned, recorded. From the home's spool, or over HTTP.

A spool file is removed after the transaction that recorded it was committed, so a kill in between reads it again, which the
event's id makes harmless. A file that is no event is put aside, and said in the log.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from roblox_ml_core.errors import Invalid
from roblox_ml_core.telemetry import log
from sqlalchemy import Connection

from ..database import Database
from ..scheduling.occurrences import from_event
from .events import event_id, record
from .text import jsonable

__all__ = ["OUTSIDE", "parse", "read_spool", "take"]

_LOG = logging.getLogger(__name__)
_BATCH = 100
_LONGEST_FILE = 256 * 1024
# What others may say. Gates, aliases and recoveries are the control plane's own findings.
OUTSIDE = ("run.started", "run.succeeded", "run.failed", "run.retry", "run.late", "schedule.paused")
_MOST = 20  # entries of `notify`


def parse(document: Any) -> dict[str, Any]:
    """An event out of a JSON document; `Invalid` with everything that is wrong with it."""
    if not isinstance(document, Mapping):
        raise Invalid("an event is a JSON object", hint="see docs/formats/event.md")
    found: list[str] = []
    kind, subject, facts = document.get("type"), document.get("subject"), document.get("facts", {})
    notify, at, pipeline = document.get("notify"), document.get("at"), document.get("pipeline")
    if document.get("schema") != 1:
        found.append(f"schema is {document.get('schema')!r}, this reads 1")
    if kind not in OUTSIDE:
        found.append(f"type {kind!r} is none of {', '.join(OUTSIDE)}")
    if not isinstance(subject, Mapping) or not subject:
        found.append("subject must be an object that says what it happened to")
    elif not found and document.get("id") != event_id(str(kind), subject):
        found.append("id is not the digest of type and subject")
    if not isinstance(facts, Mapping):
        found.append("facts must be an object")
    if notify is not None and (not isinstance(notify, list) or len(notify) > _MOST):
        found.append(f"notify must be null or a list of at most {_MOST}")
    if isinstance(at, bool) or not isinstance(at, int | float) or not 0 <= at < 32_503_680_000:
        found.append("at must be a time in seconds")
    if pipeline is not None and (not isinstance(pipeline, str) or len(pipeline) > 255):
        found.append("pipeline must be a name of at most 255 characters")
    if found:
        raise Invalid("; ".join(found), hint="see docs/formats/event.md")
    keys = ("id", "type", "at", "pipeline", "subject", "facts", "notify")
    cleaned: dict[str, Any] = jsonable({"facts": {}, "notify": None, **{k: document.get(k) for k in keys}})
    cleaned["facts"] = cleaned["facts"] or {}
    return cleaned


def take(connection: Connection, event: Mapping[str, Any]) -> bool:
    """Record an event that somebody else said; False when it is known. A run's end may be what a schedule waits for."""
    fresh = record(connection, event)
    if fresh:
        from_event(connection, event)
    return fresh


def read_spool(database: Database, folder: Path) -> int:
    """Record every event that waits in the spool, oldest first; returns how many files were read."""
    try:
        waiting = sorted(
            (entry.stat().st_mtime_ns, entry.path)
            for entry in os.scandir(folder)
            if entry.name.endswith(".json") and not entry.name.startswith(".")
        )
    except OSError:
        return 0
    for start in range(0, len(waiting), _BATCH):
        paths = [Path(path) for _, path in waiting[start : start + _BATCH]]
        events = [(path, _load(path)) for path in paths]
        with database.write() as connection:
            for _, one in events:
                if one is not None:
                    take(connection, one)
        for path, one in events:
            _remove(path, aside=one is None)
    return len(waiting)


def _load(path: Path) -> dict[str, Any] | None:
    try:
        if path.stat().st_size > _LONGEST_FILE:
            raise Invalid(f"it has more than {_LONGEST_FILE} bytes")
        return parse(json.loads(path.read_bytes()))
    except (Invalid, ValueError, RecursionError) as error:
        log(_LOG, logging.WARNING, "a spool file is no event and is put aside", file=path.name, error=str(error)[:300])
        return None
    except OSError as error:
        log(_LOG, logging.WARNING, "a spool file cannot be read", file=path.name, error=str(error)[:300])
        return None


def _remove(path: Path, *, aside: bool) -> None:
    try:
        if aside:
            beside = path.parent.with_name("refused")
            beside.mkdir(exist_ok=True)
            path.replace(beside / path.name)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:  # read again at the next look: the same id, so nothing more happens
        log(_LOG, logging.WARNING, "a spool file cannot be removed", file=path.name, error=str(error)[:300])
