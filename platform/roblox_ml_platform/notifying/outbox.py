"""The outbox's transactions: claim by lease, settle, list, try again. A row is sent by whoever holds its lease.

At least once: the lease is taken before anything is sent and the outcome is written after. Whoever is killed in between lets
the lease run out, and the next sender sends again, under the same event id. For one address the oldest goes first and one is in
hand at a time, so a failure is not told after its recovery; a delivery that keeps failing is put behind the others.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from roblox_ml_core.errors import NotFound
from roblox_ml_core.settings import NotifySettings
from sqlalchemy import Connection, and_, case, delete, exists, func, or_, select, update

from ..database import now
from ..records import iso
from . import tables as t
from .outcome import Again, Delivered, Outcome, pause
from .sending import Sending

__all__ = ["STATES", "again", "again_dead", "claim", "counts", "due", "listing", "prune", "settle"]

STATES = ("pending", "delivered", "dead")
_BEHIND = 8  # after so many failures a delivery no longer holds up those after it
_FEWEST = 10  # attempts before anything is given up


def due(connection: Connection) -> bool:
    """Whether there is anything to claim now; a look that locks nothing."""
    return connection.execute(select(exists().where(_claimable(now())))).scalar_one() is True


def claim(connection: Connection, holder: str, limit: int, settings: NotifySettings) -> list[Sending]:
    """Take the lease of up to `limit` due deliveries, one per address, oldest first."""
    moment, d = now(), t.deliveries.c
    behind = case((d.attempts >= _BEHIND, 1), else_=0)
    held = select(d.address).where(d.state == "pending", d.lease_until > moment)
    # Chosen among the first of each address, so that however much waits for one that is slow, the others have their turn.
    place = func.row_number().over(partition_by=d.address, order_by=(behind, d.id)).label("place")
    queues = select(d.id, place).where(_claimable(moment), d.address.not_in(held)).subquery()
    query = (
        select(t.deliveries)
        .where(d.id.in_(select(queues.c.id).where(queues.c.place == 1)), _claimable(moment))
        .order_by(behind, d.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    taken: list[Any] = list(connection.execute(query).mappings())
    if not taken:
        return []
    connection.execute(
        update(t.deliveries)
        .where(d.id.in_([row["id"] for row in taken]))
        .values(holder=holder, lease_until=moment + settings.lease_s)
    )
    found = select(t.events).where(t.events.c.id.in_([row["event"] for row in taken]))
    events = {row["id"]: dict(row) for row in connection.execute(found).mappings()}
    return [
        Sending(
            row["id"], row["address"], row["kind"], row["channel"], row["target"], row["attempts"], row["created_at"],
            events[row["event"]],
        )
        for row in taken
    ]  # fmt: skip


def settle(connection: Connection, one: Sending, holder: str, outcome: Outcome, settings: NotifySettings) -> str:
    """Write down what became of an attempt; returns the delivery's state now."""
    moment, d = now(), t.deliveries.c
    attempts = one.attempts + 1
    values: dict[str, Any] = {"attempts": attempts, "holder": None, "lease_until": None}
    if isinstance(outcome, Delivered):
        values |= {"state": "delivered", "finished_at": moment, "error": ""}
    else:
        wait = pause(attempts, outcome, base=settings.base_s, cap=settings.cap_s, draw=random.random())  # noqa: S311
        # Both: after a week in which nobody here could send, the first failure is no reason to give up.
        dead = moment - one.created_at >= settings.dead_after_s and attempts >= _FEWEST
        values |= {"state": "dead" if dead else "pending", "error": outcome.reason[:500], "next_at": moment + wait}
        values |= {"finished_at": moment} if dead else {}
        if isinstance(outcome, Again):
            # Nobody there, or too many at once: knocking with the next message would be the same again.
            connection.execute(
                update(t.deliveries)
                .where(d.address == one.address, d.state == "pending", d.id != one.id, d.next_at < moment + wait)
                .values(next_at=moment + wait)
            )
    # Delivered is delivered, whoever says it. Any other word counts only from the holder: a lease that ran out has a
    # successor, whose word is newer.
    mine = d.id == one.id if isinstance(outcome, Delivered) else and_(d.id == one.id, d.holder == holder)
    connection.execute(update(t.deliveries).where(mine, d.state == "pending").values(values))
    return str(values["state"])


def listing(
    connection: Connection, *, state: str | None = None, limit: int = 100, event: str | None = None
) -> list[dict[str, Any]]:
    """Deliveries, newest first, with what they tell."""
    d, e = t.deliveries.c, t.events.c
    query = (
        select(t.deliveries, e.type, e.at, e.pipeline, e.subject)
        .join_from(t.deliveries, t.events, d.event == e.id)
        .order_by(d.id.desc())
        .limit(limit)
    )
    if state is not None:
        query = query.where(d.state == state)
    if event is not None:
        query = query.where(d.event == event)
    return [_shown(dict(row)) for row in connection.execute(query).mappings()]


def counts(connection: Connection) -> dict[str, int]:
    """How many deliveries there are in each state."""
    query = select(t.deliveries.c.state, func.count()).group_by(t.deliveries.c.state)
    return {**dict.fromkeys(STATES, 0), **{state: int(n) for state, n in connection.execute(query)}}


def again(connection: Connection, identity: int) -> dict[str, Any]:
    """Try a delivery now, also one that was given up; what was delivered stays so."""
    d = t.deliveries.c
    row = connection.execute(select(d.state).where(d.id == identity)).scalar()
    if row is None:
        raise NotFound(f"there is no notification {identity}", hint="`rml notifications` lists them")
    _revive(connection, d.id == identity)
    return {"id": identity, "was": row}


def again_dead(connection: Connection) -> int:
    """Try everything that was given up once more; returns how many."""
    return _revive(connection, t.deliveries.c.state == "dead")


def prune(connection: Connection, settings: NotifySettings) -> int:
    """Forget events of long ago that nothing waits for. What is that old is told to nobody any more, also if it comes again."""
    d, e = t.deliveries.c, t.events.c
    old = e.recorded_at < now() - settings.keep_s
    waiting = exists().where(d.event == e.id, or_(d.state == "pending", d.finished_at > now() - settings.keep_s))
    gone = connection.execute(select(e.id).where(old, e.routed.is_(True), ~waiting).limit(500)).scalars().all()
    if gone:
        connection.execute(delete(t.deliveries).where(d.event.in_(gone)))
        connection.execute(delete(t.events).where(e.id.in_(gone)))
    return len(gone)


def _revive(connection: Connection, where: Any) -> int:
    d = t.deliveries.c
    values = {"state": "pending", "attempts": 0, "next_at": now(), "created_at": now(), "finished_at": None}
    done = connection.execute(
        update(t.deliveries)
        .where(where, d.state != "delivered", or_(d.holder.is_(None), d.lease_until <= now()))
        .values({**values, "holder": None, "lease_until": None})
    )
    return int(done.rowcount)


def _claimable(moment: float) -> Any:
    d = t.deliveries.c
    return and_(d.state == "pending", d.next_at <= moment, or_(d.lease_until.is_(None), d.lease_until <= moment))


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    finished = row["finished_at"]
    return {
        "id": row["id"], "event": row["event"], "type": row["type"], "pipeline": row["pipeline"], "subject": row["subject"],
        "kind": row["kind"], "channel": row["channel"], "target": row["target"], "state": row["state"],
        "attempts": row["attempts"], "error": row["error"], "at": iso(row["at"]), "next_at": iso(row["next_at"]),
        "finished_at": iso(finished) if finished else None,
    }  # fmt: skip
