"""What a principal may do: grants of roles over scopes, and one pure decision over them.

A grant only ever adds. There is no "deny": the answer is whether some grant covers the action, so it cannot depend on the order
of grants, and giving a role can never take a permission away. What narrows is a `Limit`, which a service token carries: it may do
what its limit allows *and* its owner may do at that moment.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from ..errors import Invalid
from ..names import check_name

__all__ = ["EVERYTHING", "ROLES", "Action", "Decision", "Grant", "Limit", "Resource", "Scope", "decide", "parse_grant"]


class Action(StrEnum):
    """What can be done to a thing."""

    INFER = "infer"  # ask a live model: what a game server's token is for
    VIEW = "view"
    RUN = "run"
    REGISTER = "register"
    PROMOTE = "promote"
    SERVE = "serve"  # say what a model server holds: agents only, since doors believe it
    ADMIN = "admin"


_LADDER = (Action.VIEW, Action.RUN, Action.REGISTER, Action.PROMOTE)
# Each rung holds the rungs below it, so a role is named by the most that it allows.
ROLES: dict[str, frozenset[Action]] = {
    "infer": frozenset({Action.INFER}),
    "view": frozenset({Action.VIEW}),
    **{action.value: frozenset({*_LADDER[: rung + 1], Action.INFER}) for rung, action in enumerate(_LADDER) if rung},
    "serve": frozenset({Action.VIEW, Action.SERVE}),
    "admin": frozenset(Action),
}


@dataclass(frozen=True, slots=True, order=True)
class Scope:
    """Where a role counts: everywhere (`*`), in a team's things (`team:safety`), or for one model (`model:toxicity`)."""

    kind: str
    name: str = ""

    def __post_init__(self) -> None:
        if self.kind not in ("all", "team", "model") or (self.kind == "all") != (self.name == ""):
            raise Invalid(f"{self.kind}:{self.name} is no scope", hint="write *, team:NAME or model:NAME")
        if self.name:
            check_name(self.name, f"{self.kind} name")

    def __str__(self) -> str:
        return "*" if self.kind == "all" else f"{self.kind}:{self.name}"

    @classmethod
    def parse(cls, text: str) -> Scope:
        """Read ``*``, ``team:NAME`` or ``model:NAME``."""
        if text == "*":
            return EVERYTHING
        kind, colon, name = text.partition(":")
        if not colon or kind not in ("team", "model"):
            raise Invalid(f"{text[:80]!r} is no scope", hint="write *, team:NAME or model:NAME")
        return cls(kind, name)

    def covers(self, resource: Resource) -> bool:
        """Whether the thing lies in this scope."""
        if self.kind == "all":
            return True
        return self.name == (resource.team if self.kind == "team" else resource.model)


EVERYTHING = Scope("all")


@dataclass(frozen=True, slots=True)
class Resource:
    """The thing acted on: a team's, a model (with the team that owns it, if any does), or neither: the platform itself."""

    team: str | None = None
    model: str | None = None

    def __str__(self) -> str:
        if self.model is not None:
            return f"model {self.model}" + (f" of team {self.team}" if self.team else "")
        return f"team {self.team}" if self.team else "the whole platform"


@dataclass(frozen=True, slots=True, order=True)
class Grant:
    """A role over a scope."""

    role: str
    scope: Scope

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise Invalid(f"{self.role[:80]!r} is no role", hint=f"roles: {', '.join(ROLES)}")

    def __str__(self) -> str:
        return f"{self.role} on {self.scope}"

    def allows(self, action: Action, resource: Resource) -> bool:
        return action in ROLES[self.role] and self.scope.covers(resource)


@dataclass(frozen=True, slots=True)
class Limit:
    """The most that a token may do, whatever its owner may."""

    role: str = "admin"
    scope: Scope = EVERYTHING

    def allows(self, action: Action, resource: Resource) -> bool:
        return Grant(self.role, self.scope).allows(action, resource)


@dataclass(frozen=True, slots=True)
class Decision:
    """Yes or no, and why: the reason is shown to who asked and kept in the audit trail."""

    allowed: bool
    reason: str


def decide(
    action: Action, resource: Resource, grants: Iterable[Grant], limit: Limit | None = None, *, who: str = "you"
) -> Decision:
    """Whether the grants (and the limit, if there is one) allow the action."""
    held = sorted(set(grants))
    by = next((grant for grant in held if grant.allows(action, resource)), None)
    if by is None:
        has = "; ".join(map(str, held[:5])) + (" …" if len(held) > 5 else "") if held else "no role at all"
        return Decision(False, f"{who} may not {action} {resource}: holds {has}")
    if limit is not None and not limit.allows(action, resource):
        narrow = f"{limit.role} on {limit.scope}"
        return Decision(False, f"{who} may not {action} {resource}: the token is limited to {narrow}")
    return Decision(True, str(by))


def parse_grant(text: str) -> Grant:
    """Read ``team:safety=register``, ``model:toxicity=promote`` or ``*=view``."""
    scope, equals, role = text.rpartition("=")
    if not equals:
        raise Invalid(f"{text[:80]!r} is no grant", hint="write SCOPE=ROLE, for example team:safety=register")
    return Grant(role, Scope.parse(scope))
