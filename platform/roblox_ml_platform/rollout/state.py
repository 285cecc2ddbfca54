"""The policy as the database has it at this moment, and which versions it needs on which servers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, select

from .. import endpoints
from .. import tables as core
from ..preprocess import clients_signature, preprocess_of
from . import tables as t
from .compile import Rows, compile_policy, left_out
from .salts import generations
from .uses import rows_of, running

__all__ = ["challengers", "misfits", "policy"]


def policy(connection: Connection) -> dict[str, Any]:
    """The snapshot's `policy`."""
    return compile_policy(_rows(connection))


def misfits(connection: Connection, endpoint: str) -> list[dict[str, str]]:
    """What runs at the endpoint and is left out of the policy, because its tensors are not the champion's (any more)."""
    rows = _rows(connection)
    return left_out(rows, next(row for row in rows.endpoints if row["name"] == endpoint))


def _rows(connection: Connection) -> Rows:
    every = core.versions.c
    query = select(every.model, every.version, every.digest, every.package, every.manifest, every.signature)
    versions, signatures = {}, {}
    for row in connection.execute(query.where(every.model.in_(_models(connection)))).mappings():
        key = f"{row['model']}/{row['version']}"
        preprocess = preprocess_of(row["package"], row["manifest"])
        versions[key] = {"digest": row["digest"], "preprocess": preprocess}
        signatures[key] = clients_signature(row["package"], row["signature"])
    aliases = {
        (row["model"], row["alias"]): int(row["version"]) for row in connection.execute(select(core.aliases)).mappings()
    }
    return Rows(
        endpoints.list_endpoints(connection), aliases, versions, signatures,
        rows_of(connection, t.layers), running(connection), rows_of(connection, t.canaries), rows_of(connection, t.shadows),
        rows_of(connection, t.holdouts), list(connection.execute(select(t.switches.c.name)).scalars()),
        generations(connection),
    )  # fmt: skip


def challengers(connection: Connection) -> dict[tuple[str, int], bool]:
    """Every version that a running experiment, a canary or a shadow names, and whether it wants a server of its own."""
    aliases = {
        (row["model"], row["alias"]): int(row["version"]) for row in connection.execute(select(core.aliases)).mappings()
    }
    found: dict[tuple[str, int], bool] = {}
    for row, isolated in _named(connection):
        version = row["version"] if row.get("alias") is None else aliases.get((row["model"], row["alias"]))
        if version is not None:
            key = (row["model"], int(version))
            found[key] = isolated and found.get(key, True)
    return found


def _named(connection: Connection) -> Iterable[tuple[Any, bool]]:
    for row in running(connection):
        yield from ((arm, row["isolated"]) for arm in row["arms"] if arm["model"] is not None)
    for table in (t.canaries, t.shadows):
        yield from ((row, row["isolated"]) for row in rows_of(connection, table))


def _models(connection: Connection) -> set[str]:
    named = {row["model"] for row, _ in _named(connection)}
    return named | set(connection.execute(select(core.endpoints.c.model)).scalars())
