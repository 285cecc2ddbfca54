"""What doors and agents read: the policy snapshot, the desired models, and the servers' own reports that complete it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from roblox_ml_core.policy import digest_of
from sqlalchemy import Connection, delete, insert, select, update

from . import tables as t
from .database import Database, bump, counter, now
from .endpoints import needed_versions
from .records import iso
from .rollout import state as rollouts

__all__ = ["desired", "expire", "list_servers", "report", "snapshot"]

SCHEMA = 2
_FORGET_S = 24 * 3600.0


def snapshot(connection: Connection) -> dict[str, Any]:
    """The policy snapshot: who answers whom, and which server holds which version ready.

    The digest covers the policy alone: it stays while servers come and go.
    """
    policy = rollouts.policy(connection)
    return {
        "schema": SCHEMA,
        "generation": counter(connection, "snapshot"),
        "digest": digest_of(policy),
        "policy": policy,
        "servers": _servers(connection),
    }


def desired(connection: Connection, role: str = "general") -> dict[str, Any]:
    """The versions that must be resident on servers of a role, each with its manifest.

    A challenger that wants a server of its own is resident on servers of the role `challenger` and on no other.
    """
    wanted = dict.fromkeys(needed_versions(connection), False)
    for key, isolated in rollouts.challengers(connection).items():
        wanted.setdefault(key, isolated)
    models = []
    for model, version in sorted(key for key, isolated in wanted.items() if isolated == (role == "challenger")):
        query = select(t.versions.c.digest, t.versions.c.manifest).where(
            t.versions.c.model == model, t.versions.c.version == version
        )
        row = connection.execute(query).mappings().one()
        models.append({"model": model, "version": version, "digest": row["digest"], "manifest": row["manifest"]})
    return {"generation": counter(connection, "desired"), "models": models}


def report(
    connection: Connection, server: str, http: str, grpc: str, models: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Keep a server's report. Only a change raises the snapshot's generation: a heartbeat must not wake every door."""
    states = sorted((dict(model) for model in models), key=lambda state: (state["model"], state["version"]))
    row = (
        connection.execute(select(t.servers).where(t.servers.c.name == server).with_for_update())
        .mappings()
        .one_or_none()
    )
    values = {"http": http, "grpc": grpc, "models": states, "alive": True}
    changed = row is None or any(row[key] != value for key, value in values.items())
    if row is None:
        connection.execute(insert(t.servers).values(name=server, seen_at=now(), **values))
    else:
        connection.execute(update(t.servers).where(t.servers.c.name == server).values(seen_at=now(), **values))
    if changed:
        bump(connection, "snapshot")
    return {"server": server, "changed": changed}


def expire(database: Database, silence_s: float, listening_since: float = 0.0) -> bool:
    """Declare servers that have been silent for too long not ready; cheap when there is none.

    Silence counts from the moment this process listens: after an outage of the control plane itself every report is old,
    and calling the servers dead for it would take all endpoints down while they work.
    """
    limit = now() - silence_s
    if listening_since > limit:
        return False
    silent = (t.servers.c.alive, t.servers.c.seen_at < limit)
    with database.read() as connection:
        if connection.execute(select(t.servers.c.name).where(*silent).limit(1)).first() is None:
            return False
    with database.write() as connection:
        # Asked again inside the transaction: the server may have spoken meanwhile.
        changed = connection.execute(update(t.servers).where(*silent).values(alive=False)).rowcount > 0
        connection.execute(delete(t.servers).where(t.servers.c.seen_at < now() - _FORGET_S))
        if changed:
            bump(connection, "snapshot")
        return changed


def list_servers(connection: Connection) -> list[dict[str, Any]]:
    """Every known server with its last report, the silent ones included: for people."""
    rows = connection.execute(select(t.servers).order_by(t.servers.c.name)).mappings()
    return [{**row, "seen_at": iso(row["seen_at"])} for row in rows]


def _servers(connection: Connection) -> dict[str, Any]:
    digests = {
        (model, version): digest
        for model, version, digest in connection.execute(
            select(t.versions.c.model, t.versions.c.version, t.versions.c.digest)
        ).tuples()
    }
    found = {}
    query = select(t.servers).where(t.servers.c.alive).order_by(t.servers.c.name)
    for row in connection.execute(query).mappings():
        ready = {
            f"{state['model']}/{state['version']}": state["digest"]
            for state in row["models"]
            # A server that holds other bytes under a version's name must not answer for it.
            if state["state"] == "ready" and digests.get((state["model"], state["version"])) == state["digest"]
        }
        found[row["name"]] = {"http": row["http"], "grpc": row["grpc"], "ready": ready}
    return found
