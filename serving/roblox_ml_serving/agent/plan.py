"""What to do next, as a pure function: wanted versions and what is observed in, actions out.

The agent keeps no script of steps. Every round it looks at Triton again and acts on the difference, so a killed Triton, a dead
stub, a restarted agent and a changed wish are all the same case: something observed differs from something wanted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = [
    "Action", "Check", "Failure", "Key", "Limits", "Load", "Observed", "Refuse", "Reload", "Resident", "Unload", "Wanted",
    "backoff", "plan",
]  # fmt: skip


class Key(NamedTuple):
    """One version of one model."""

    model: str
    version: int

    def __str__(self) -> str:
        return f"{self.model}/{self.version}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A version that must be resident; `memory` is what it is expected to take, in bytes."""

    key: Key
    digest: str
    memory: int = 0


@dataclass(frozen=True, slots=True)
class Resident:
    """A version Triton has loaded, and what this agent knows about it."""

    digest: str
    memory: int = 0
    checked: bool = False  # it gave its known answer since it was loaded
    broken: str = ""  # why it must be loaded again, e.g. an instance's process is gone


@dataclass(frozen=True, slots=True)
class Failure:
    """The last failed attempt to make a version resident."""

    digest: str
    attempts: int
    retry_at: float
    reason: str


@dataclass(frozen=True, slots=True)
class Limits:
    """`memory` 0 means no limit."""

    memory: int = 0
    grace_s: float = 30.0
    max_attempts: int = 8


@dataclass(frozen=True, slots=True)
class Observed:
    """One look at the world. `busy` versions have an action under way, with the memory it will take."""

    now: float
    residents: Mapping[Key, Resident] = field(default_factory=dict)
    failures: Mapping[Key, Failure] = field(default_factory=dict)
    unwanted_since: Mapping[Key, float] = field(default_factory=dict)
    busy: Mapping[Key, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Load:
    key: Key
    digest: str


@dataclass(frozen=True, slots=True)
class Reload:
    """Load again what is loaded: Triton starts new instances before it stops the old ones."""

    key: Key
    reason: str


@dataclass(frozen=True, slots=True)
class Check:
    """Ask for the known answer: this agent found the version loaded and did not load it itself."""

    key: Key


@dataclass(frozen=True, slots=True)
class Unload:
    key: Key
    reason: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """Not loaded, and why; nothing to do but to say so."""

    key: Key
    reason: str


Action = Load | Reload | Check | Unload | Refuse


def plan(wanted: Sequence[Wanted], observed: Observed, limits: Limits) -> tuple[Action, ...]:
    """The actions of this round, at most one per version. Earlier wishes get memory first."""
    by_key = {wish.key: wish for wish in wanted}
    used = sum(resident.memory for key, resident in observed.residents.items() if key not in observed.busy)
    used += sum(observed.busy.values())
    spare = [key for key in observed.residents if key not in by_key and key not in observed.busy]
    actions: dict[Key, Action] = {
        key: Unload(key, "no longer wanted") for key in spare if _expired(key, observed, limits)
    }
    for wish in by_key.values():
        if wish.key in observed.busy:
            continue
        resident = observed.residents.get(wish.key)
        if resident is not None:
            actions.update((action.key, action) for action in _tend(wish, resident))
            continue
        if not _may_try(wish, observed, limits):
            continue
        if not limits.memory or used + wish.memory <= limits.memory:
            used += wish.memory
            actions[wish.key] = Load(wish.key, wish.digest)
            continue
        # A version that only waits for its grace period to end gives way to one that is wanted.
        giving_way = sum(observed.residents[key].memory for key in spare)
        if used - giving_way + wish.memory <= limits.memory:
            actions.update(
                (key, Unload(key, f"its memory is needed for {wish.key}")) for key in spare if key not in actions
            )
        else:
            actions[wish.key] = Refuse(wish.key, _over_budget(wish, used - giving_way, by_key, observed, limits))
    return tuple(actions.values())


def backoff(attempts: int) -> float:
    """Seconds until the next attempt: 1, 2, 4 … at most 60."""
    return float(min(60, 2 ** max(0, min(attempts, 7) - 1)))


def _tend(wish: Wanted, resident: Resident) -> Iterator[Action]:
    if resident.digest != wish.digest:
        yield Unload(wish.key, f"it holds package {resident.digest[:12]}, wanted is {wish.digest[:12]}")
    elif resident.broken:
        yield Reload(wish.key, resident.broken)
    elif not resident.checked:
        yield Check(wish.key)


def _expired(key: Key, observed: Observed, limits: Limits) -> bool:
    return observed.now - observed.unwanted_since.get(key, observed.now) >= limits.grace_s


def _may_try(wish: Wanted, observed: Observed, limits: Limits) -> bool:
    failure = observed.failures.get(wish.key)
    if failure is None or failure.digest != wish.digest:
        return True
    return failure.attempts < limits.max_attempts and observed.now >= failure.retry_at


def _over_budget(wish: Wanted, used: int, wanted: Mapping[Key, Wanted], observed: Observed, limits: Limits) -> str:
    holders = ", ".join(str(key) for key in [*observed.residents, *observed.busy] if key in wanted) or "nothing else"
    return (
        f"over the memory budget: {wish.key} needs about {_mb(wish.memory)} MB, {_mb(used)} of {_mb(limits.memory)} MB are "
        f"taken (resident: {holders}); raise RML_AGENT_MEMORY_BUDGET_MB or undeploy a model"
    )


def _mb(size: int) -> int:
    return -(-size // 2**20)
