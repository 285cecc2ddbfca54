"""Registering a version: the one transaction in which it gets its number, its record, its gate's verdict and perhaps the alias.

Everything that can be wrong is found before the transaction begins; inside it there is no I/O but the database's. A process
killed at any point leaves either nothing or the whole version.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from roblox_ml_core.digests import FileEntry
from roblox_ml_core.errors import Conflict, Invalid, PackageError
from roblox_ml_core.names import MAX_VERSION, check_alias, check_name
from roblox_ml_core.package import EXAMPLES, METRICS, PACKAGE, SIGNATURE, Examples, Signature, check_manifest
from roblox_ml_core.package.layout import package_digest, package_findings
from roblox_ml_core.storage import BlobStore
from sqlalchemy import Connection, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from . import aliases, gates
from . import tables as t
from .database import Database, counter, now
from .identity.registering import BY_LOCAL, Registrant
from .notifying.events import event, record
from .records import audit, dirty
from .versions import index, lock_model

__all__ = ["Registration", "prepare", "register"]

_SMALL = 16 << 20  # the package's JSON files are read; more than this is not one of them
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Registration:
    """A checked request: nothing in it can fail any more but the store losing a blob."""

    name: str
    digest: str
    package: Mapping[str, Any]
    manifest: Mapping[str, FileEntry]
    signature: Mapping[str, Any]
    metrics: Mapping[str, Any]
    params: Mapping[str, Any]
    tags: Mapping[str, str]
    lineage: Mapping[str, Any]
    gate: Mapping[str, Mapping[str, float]]
    alias: str | None


def prepare(name: str, body: Mapping[str, Any], store: BlobStore) -> Registration:
    """Check a request against itself and against the blobs it names; every finding in one error."""
    check_name(name)
    if body.get("alias") is not None:
        check_alias(body["alias"])
    gate = gates.normalise(body.get("gate"))
    package, manifest = body["package"], body["manifest"]
    found = package_findings(package)
    found += check_manifest(manifest, package)
    if found:
        raise PackageError(
            "the package cannot be registered: " + "; ".join(found), hint="see docs/formats/model-package.md"
        )
    require_blobs(manifest, store)
    if _json(store, manifest, PACKAGE) != package:
        raise PackageError(
            f"the request's package differs from the stored {PACKAGE}", hint="send the file's own content"
        )
    described = Signature.from_json(_json(store, manifest, SIGNATURE))
    signature = described.to_json()
    given = body.get("signature")
    if given is not None and Signature.from_json(given).to_json() != signature:
        raise PackageError(
            f"the request's signature differs from the stored {SIGNATURE}", hint="send the file's content"
        )
    if EXAMPLES in manifest:
        examples = Examples.from_json(_json(store, manifest, EXAMPLES))
        if found := examples.findings(described):
            raise PackageError(
                f"{EXAMPLES} does not fit {SIGNATURE}: " + "; ".join(found), hint="see docs/formats/model-package.md"
            )
    metrics = body.get("metrics")
    if metrics is None:
        metrics = _json(store, manifest, METRICS) if METRICS in manifest else {}
    if not isinstance(metrics, Mapping):
        raise PackageError(f"{METRICS} is not an object", hint='write {"f1": 0.8}')
    return Registration(
        name=name,
        digest=package_digest(package),
        package=package,
        manifest=manifest,
        signature=signature,
        metrics=dict(metrics),
        params=body.get("params") or {},
        tags=body.get("tags") or {},
        lineage=body.get("lineage") or {"kind": "external", "origin": "not stated"},
        gate=gate,
        alias=body.get("alias"),
    )


def require_blobs(manifest: Mapping[str, FileEntry], store: BlobStore) -> None:
    """`Conflict` with the list of blobs that the store lacks or that have another length."""
    missing = {}
    for path, entry in manifest.items():
        size = store.size(entry["sha256"])
        if size is None:
            missing[path] = entry["sha256"]
        elif size != entry["size"]:
            raise PackageError(
                f"{path} has {entry['size']} bytes in the manifest, its blob {entry['sha256']} has {size}",
                hint="build the manifest from the files that were uploaded; if the blob is damaged, upload it again",
            )
    if missing:
        raise Conflict(
            f"{len(missing)} blobs are not in the store: {', '.join(sorted(missing))}"[:1000],
            hint="PUT /v1/store/sha256/<first two>/<digest> each of them, then register again",
            details={"missing": sorted(set(missing.values()))},
        )


def register(
    database: Database, store: BlobStore, request: Registration, actor: str, by: Registrant = BY_LOCAL
) -> dict[str, Any]:
    """Store the version (or find the identical one), judge the gate, perhaps move the alias; all or nothing."""
    for _ in range(_ATTEMPTS):
        with database.read() as connection:
            collections = counter(connection, "collections")
        require_blobs(request.manifest, store)
        with database.write() as connection:
            # A collection that ran between looking at the blobs and here may have removed one: look again.
            lock = select(t.counters.c.value).where(t.counters.c.name == "collections").with_for_update(read=True)
            if connection.execute(lock).scalar_one() == collections:
                return _store(connection, request, actor, by)
    raise Conflict("garbage collection kept running while the version was registered", hint="register again")


def _store(connection: Connection, request: Registration, actor: str, by: Registrant) -> dict[str, Any]:
    _ensure_model(connection, request.name, by.owner(connection, request.name))
    lock_model(connection, request.name)
    by.admit(connection, request.name, (entry["sha256"] for entry in request.manifest.values()))
    version, created, merged = _number(connection, request, actor)
    verdict = gates.evaluate(request.gate, merged["metrics"])
    registered = connection.execute(
        insert(t.registrations).values(
            model=request.name,
            version=version,
            created=created,
            lineage=request.lineage,
            metrics=request.metrics,
            params=request.params,
            tags=request.tags,
            gate={"conditions": request.gate, **verdict.to_json()},
            actor=actor,
            at=now(),
        )
    )
    index(connection, request.name, version, **merged)
    audit(
        connection, actor, "version.register", f"{request.name}/{version}",
        digest=request.digest, created=created, gate=verdict.to_json(),
    )  # fmt: skip
    if not verdict.passed:
        assert registered.inserted_primary_key is not None
        _refused(connection, request, version, registered.inserted_primary_key[0], verdict, actor)
    dirty(connection, request.name)
    return {
        "name": request.name,
        "version": version,
        "digest": request.digest,
        "created": created,
        "gate": verdict.to_json(),
        "alias": _alias(connection, request, version, verdict.passed, actor, by),
    }


def _refused(
    connection: Connection,
    request: Registration,
    version: int,
    registration: int,
    verdict: gates.GateResult,
    actor: str,
) -> None:
    """Say that the gate did not open, to those who hear of the pipeline the version came from."""
    lineage = request.lineage
    subject = {"model": request.name, "version": version, "registration": registration}
    facts: dict[str, Any] = {"alias": request.alias, "findings": [dict(one) for one in verdict.findings], "by": actor}
    facts |= {key: lineage[key] for key in ("run", "step") if lineage.get(key)}
    pipeline = str(lineage["pipeline"])[:255] if lineage.get("pipeline") else None
    record(connection, event("gate.refused", subject, pipeline=pipeline, **facts))


def _number(connection: Connection, request: Registration, actor: str) -> tuple[int, bool, dict[str, Any]]:
    """The version's number, whether it is new, and its tags, params and metrics as they are now."""
    row = lock_model(connection, request.name)
    same = select(t.versions).where(t.versions.c.model == request.name, t.versions.c.digest == request.digest)
    known = connection.execute(same).mappings().one_or_none()
    fields = {"tags": dict(request.tags), "params": dict(request.params), "metrics": dict(request.metrics)}
    if known is not None:
        # What the new call says is added to what is known, and wins where both speak.
        merged = {field: {**known[field], **values} for field, values in fields.items()}
        where = (t.versions.c.model == request.name, t.versions.c.version == known["version"])
        connection.execute(update(t.versions).where(*where).values(**merged))
        return known["version"], False, merged
    version = int(row["next_version"])
    if version > MAX_VERSION:
        raise Conflict(f"{request.name} has no version number left", hint="register under another name")
    connection.execute(update(t.models).where(t.models.c.name == request.name).values(next_version=version + 1))
    connection.execute(
        insert(t.versions).values(
            model=request.name,
            version=version,
            digest=request.digest,
            package=request.package,
            manifest=request.manifest,
            signature=request.signature,
            lineage=request.lineage,
            created_at=now(),
            created_by=actor,
            **fields,
        )
    )
    return version, True, fields


def _alias(
    connection: Connection, request: Registration, version: int, passed: bool, actor: str, by: Registrant
) -> dict[str, Any] | None:
    if request.alias is None:
        return None
    refused = by.may_move(connection, request.name, request.alias, actor) if passed else ""
    if passed and not refused:
        moved = aliases.move(
            connection, request.name, request.alias, version, actor=actor, reason="registered, gate passed"
        )
        return {"name": request.alias, "moved": moved["moved"], "version": version}
    query = select(t.aliases.c.version).where(t.aliases.c.model == request.name, t.aliases.c.alias == request.alias)
    stays = {"name": request.alias, "moved": False, "version": connection.execute(query).scalar()}
    return {**stays, "reason": refused} if refused else stays


def _ensure_model(connection: Connection, name: str, team: str | None) -> None:
    """Insert the model unless it is there; two first registrations at once must not collide."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    row = dialect.insert(t.models).values(name=name, next_version=1, created_at=now(), team=team)
    connection.execute(row.on_conflict_do_nothing())


def _json(store: BlobStore, manifest: Mapping[str, FileEntry], path: str) -> Any:
    entry = manifest[path]
    if entry["size"] > _SMALL:
        raise PackageError(f"{path} has {entry['size']} bytes", hint=f"it may have {_SMALL} at most")
    try:
        return json.loads(store.get(entry["sha256"]))
    except ValueError as error:
        raise Invalid(f"{path} is not JSON: {error}", hint="build the package again") from error
