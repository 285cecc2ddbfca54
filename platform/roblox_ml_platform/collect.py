"""Garbage collection of the blob store.

The store also holds what the control plane does not know: code bundles, data sets, artifacts of local runs. So the default
scope is what deleted versions left behind; ``scope: "all"`` looks at every blob, and then the caller lists what else is in
use (`keep`). Young blobs are always left alone: somebody may be about to register them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any

from roblox_ml_core.storage import BlobStore
from sqlalchemy import Connection, delete, select

from . import tables as t
from .database import Database, bump
from .records import audit
from .scheduling.published import roots

__all__ = ["collect", "referenced"]

_DIGEST = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


def collect(
    database: Database,
    store: BlobStore,
    *,
    dry_run: bool,
    actor: str,
    scope: str = "released",
    min_age_s: float = 24 * 3600.0,
    keep: Collection[str] = (),
) -> dict[str, Any]:
    """Remove (or only list) blobs that nobody refers to. A registration that runs meanwhile looks at its blobs again."""
    with database.read() if dry_run else database.write() as connection:
        if not dry_run:
            connection.execute(select(t.counters).where(t.counters.c.name == "collections").with_for_update())
            bump(connection, "collections")
        needed = referenced(connection, store)
        used = needed | set(keep)
        released = set(connection.execute(select(t.released_blobs.c.digest)).scalars())
        garbage, young = [], 0
        for digest, size, age in store.digests():
            if digest in used or (scope == "released" and digest not in released):
                continue
            if age < min_age_s:
                young += 1
                continue
            garbage.append((digest, size))
        if not dry_run:
            for digest, _ in garbage:
                store.delete(digest)
            gone = [digest for digest in released if digest in needed or not store.has(digest)]
            for digest in gone:
                connection.execute(delete(t.released_blobs).where(t.released_blobs.c.digest == digest))
            audit(connection, actor, "store.collect", scope, blobs=len(garbage), bytes=sum(size for _, size in garbage))
    return {
        "dry_run": dry_run,
        "scope": scope,
        "blobs": [{"sha256": digest, "size": size} for digest, size in garbage],
        "bytes": sum(size for _, size in garbage),
        "kept_young": young,
    }


def referenced(connection: Connection, store: BlobStore) -> set[str]:
    """Digests that some version needs: its files, and whatever its lineage names (code, lock, data and their files). And those
    of published pipelines: a schedule may start one years after."""
    used: set[str] = set()
    lineages = [row["lineage"] for row in connection.execute(select(t.registrations.c.lineage)).mappings()]
    for row in connection.execute(select(t.versions.c.manifest, t.versions.c.lineage)).mappings():
        used.update(entry["sha256"] for entry in row["manifest"].values())
        lineages.append(row["lineage"])
    named = {digest for lineage in lineages for digest in _digests(lineage)} | roots(connection)
    for digest in named:
        used.add(digest)
        used.update(_files_of(store, digest))
    return used


def _digests(value: Any) -> set[str]:
    """Every digest anywhere in a JSON value, also inside a reference such as ``comments/2@<digest>``."""
    if isinstance(value, dict):
        return set().union(*(_digests(item) for item in value.values())) if value else set()
    if isinstance(value, list):
        return set().union(*(_digests(item) for item in value)) if value else set()
    return set(_DIGEST.findall(value)) if isinstance(value, str) else set()


def _files_of(store: BlobStore, digest: str) -> set[str]:
    """The files of a data set whose manifest is the blob `digest`; empty for any other blob."""
    size = store.size(digest)
    if size is None or size > 64 << 20:
        return set()
    with store.open(digest) as stream:
        head = stream.read(16)
        if not head.startswith(b'{"files"'):
            return set()
        text = head + stream.read()
    try:
        return _digests(json.loads(text))
    except ValueError:
        return set()
