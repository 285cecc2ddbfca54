"""What to do about the due times that have come: pure, so that a year of clock changes and crashes can be tried in a second.

Every due time gets exactly one decision, in order: start, queue, or skip with the policy's reason. Who calls this writes the
decisions and the new `decided` in one transaction; then no crash can lose or double one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from .schedule import Schedule, due_times, jitter, text_of

__all__ = ["Decision", "Plan", "plan"]


@dataclass(frozen=True, slots=True)
class Decision:
    """One due time's. `cancel_older`: what still runs or waits must go first."""

    due: float
    start_at: float
    kind: Literal["start", "queue", "skip"]
    reason: str = ""
    cancel_older: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """The decisions, up to which due time everything is decided, and when to look again (None: never)."""

    decisions: tuple[Decision, ...]
    decided: float
    next_at: float | None


def plan(
    now: float, schedule: Schedule, key: str, decided: float, active: int, *, paused: bool = False, limit: int = 500
) -> Plan:
    """Decide the due times after `decided` whose start has come. `active`: how many of this schedule's runs are not over.

    At most `limit` at once; when more are due, `next_at` has passed already and the caller comes back.
    """
    pending: list[tuple[float, float]] = []
    next_at: float | None = None
    follower: float | None = None  # the first due time that has come and is left for the next round
    for due in due_times(schedule, decided):
        start = due + jitter(schedule, key, due)
        if start > now or len(pending) == limit:
            next_at, follower = start, due if start <= now else None
            break
        pending.append((due, start))
    if not pending:
        return Plan((), decided, next_at)
    choose = _paused if paused else _chooser(now, schedule, active)
    followers: list[float | None] = [after for (_, _), (after, _) in pairwise(pending)]
    followers.append(follower)
    decisions = tuple(choose(due, start, after) for (due, start), after in zip(pending, followers, strict=True))
    return Plan(decisions, pending[-1][0], next_at)


def _paused(due: float, start: float, _follower: float | None) -> Decision:
    return Decision(due, start, "skip", "paused")


def _chooser(now: float, schedule: Schedule, active: int) -> Callable[[float, float, float | None], Decision]:
    """The policies of a schedule that is not paused; it counts what it starts."""
    unfinished = active

    def choose(due: float, start: float, follower: float | None) -> Decision:
        """`follower`: the due time after this one, if that has come as well."""
        nonlocal unfinished
        missed = now - start > schedule.late_after_s
        if schedule.catchup == "none" and missed:
            return Decision(due, start, "skip", "catch-up none: nobody could start it in time")
        if follower is not None and (schedule.catchup == "latest" or schedule.overlap == "replace"):
            policy = "overlap replace" if schedule.overlap == "replace" else "catch-up latest"
            return Decision(due, start, "skip", f"{policy}: {text_of(follower, schedule.tz)} took its place")
        older, unfinished = unfinished, unfinished + 1
        if schedule.overlap == "allow" or older == 0:
            return Decision(due, start, "start")
        if schedule.overlap == "replace":
            return Decision(due, start, "queue", cancel_older=True)
        # Runs that are made up for come one after another; they are no overlap of the pipeline's own making.
        if schedule.overlap == "queue" or (schedule.catchup == "all" and (missed or follower is not None)):
            return Decision(due, start, "queue")
        unfinished = older
        return Decision(due, start, "skip", "overlap skip: the run before was not over")

    return choose
