"""Who may register, whose the model becomes, and whether the alias may move with it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from roblox_ml_core.auth.principal import LOCAL, Principal
from roblox_ml_core.errors import Conflict
from sqlalchemy import Connection, insert, select

from .. import tables as t
from . import access, blobs

__all__ = ["BY_LOCAL", "Registrant"]


@dataclass(frozen=True, slots=True)
class Registrant:
    """Who registers, and the team they name for a model that is new."""

    who: Principal
    team: str | None = None

    def check_blobs(self, connection: Connection, digests: Iterable[str]) -> None:
        """Only bytes that they may read: a version makes its blobs readable to all who may see the model."""
        blobs.require_readable(connection, self.who, digests)

    def owner(self, connection: Connection, model: str) -> str | None:
        """The team of the model: the one it has, or the one it gets by being registered now."""
        row = connection.execute(select(t.models.c.team).where(t.models.c.name == model)).one_or_none()
        if row is None:
            return access.team_for_new(connection, self.who, model, self.team)
        access.require(connection, self.who, "register", model=model)
        if self.team is not None and row.team != self.team:
            raise Conflict(
                f"{model} belongs to {f'team {row.team}' if row.team else 'no team'}, not to team {self.team}",
                hint=f"its administrator can move it: rml teams take-model {self.team} {model}",
                details={"team": row.team},
            )
        return str(row.team) if row.team else None

    def admit(self, connection: Connection, model: str, digests: Iterable[str]) -> None:
        """Refuse, or note that the blobs belong to the model. The model's row is there, and locked: two teams that
        register the same new name at once are told apart here."""
        access.require(connection, self.who, "register", model=model)
        blobs.claim(connection, digests, [f"model:{model}"])

    def may_move(self, connection: Connection, model: str, alias: str, actor: str) -> str:
        """Empty if the alias may move with the registration, else why not; that is kept in the audit trail.

        The version is stored all the same: registering is a role of its own, and a promotion can follow by who has that one.
        """
        decision = access.judge(connection, self.who, "promote", access.resource_of(connection, model))
        if decision.allowed:
            return ""
        row = {"actor": actor, "principal": self.who.id, "action": "refused", "outcome": "refused", "at": time.time()}
        detail = {"reason": decision.reason, "action": "promote"}
        connection.execute(insert(t.audit).values(**row, subject=f"{model}@{alias}", detail=detail))
        return decision.reason


BY_LOCAL = Registrant(LOCAL)
