"""Taking back, in one transaction with its evidence: what was judged must still be what runs, or nothing is done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from roblox_ml_core.errors import RmlError
from sqlalchemy import Connection, insert, select

from .. import endpoints
from ..database import now
from ..notifying.events import event, record
from ..records import audit, iso
from ..rollout import canaries, experiments
from .tables import rollbacks
from .watches import Watch

__all__ = ["ACTOR", "list_rollbacks", "take_back", "write_down"]

ACTOR = "guard"


def take_back(
    connection: Connection, watch: Watch, reason: str, evidence: Mapping[str, Any], *, warn_only: bool = False
) -> dict[str, Any] | None:
    """End the canary, stop the experiment, or return the endpoint to what was before; None when it is no longer what runs."""
    if not _still(connection, watch):
        return None
    if warn_only:
        return write_down(connection, watch, "warned", reason, evidence)
    # A nested transaction: half a rollback must not stay when the other half is refused.
    try:
        with connection.begin_nested():
            if watch.kind == "canary":
                canaries.end(connection, watch.endpoint, ACTOR, reason)
            elif watch.kind == "promotion":
                endpoints.rollback(connection, watch.endpoint, ACTOR)
            else:
                experiments.stop(connection, watch.subject, ACTOR, reason)
    except RmlError as error:
        return write_down(
            connection, watch, "refused", f"{reason}; it could not be taken back: {error.message}", evidence
        )
    return write_down(connection, watch, "rolled_back", reason, evidence)


def write_down(
    connection: Connection, watch: Watch, action: str, reason: str, evidence: Mapping[str, Any]
) -> dict[str, Any]:
    """The record, the audit's row and the event people hear of."""
    row: dict[str, Any] = {
        "at": now(), "endpoint": watch.endpoint, "kind": watch.kind, "subject": watch.subject, "version": watch.version,
        "back_to": watch.back_to, "action": action, "reason": reason, "evidence": dict(evidence),
    }  # fmt: skip
    number = connection.execute(insert(rollbacks).values(row).returning(rollbacks.c.id)).scalar_one()
    audit(connection, ACTOR, f"guard.{action}", watch.endpoint, kind=watch.kind, experiment=watch.subject, version=watch.version,
          back_to=watch.back_to, reason=reason, rollback=number)  # fmt: skip
    subject = {"endpoint": watch.endpoint, "model": watch.version.rpartition("/")[0], "rollback": number}
    facts: dict[str, Any] = {
        "kind": watch.kind,
        "action": action,
        "from": watch.version,
        "to": watch.back_to,
        "reason": reason,
        "by": ACTOR,
    }
    record(connection, event("rollout.guarded", subject, **facts))
    return {"id": number, **row, "at": iso(row["at"])}


def list_rollbacks(connection: Connection, endpoint: str, limit: int = 50) -> list[dict[str, Any]]:
    """The latest first. Of an endpoint that is gone too: what it was rolled back for is worth knowing."""
    query = select(rollbacks).where(rollbacks.c.endpoint == endpoint).order_by(rollbacks.c.id.desc()).limit(limit)
    return [{**row, "at": iso(row["at"])} for row in connection.execute(query).mappings()]


def _still(connection: Connection, watch: Watch) -> bool:
    try:
        if watch.kind == "canary":
            found = canaries.describe(connection, watch.endpoint)
            return found is not None and f"{found['model']}/{found['version']}" == watch.version
        if watch.kind == "promotion":
            here = endpoints.describe(connection, watch.endpoint)
            return f"{here['model']}/{here['version']}" == watch.version
        return bool(experiments.describe(connection, watch.subject)["running"])
    except RmlError:
        return False
