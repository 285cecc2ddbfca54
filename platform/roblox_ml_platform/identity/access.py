"""What a principal may do, decided with the grants that the database holds at this moment.

Nothing is cached: a role that is taken away, a token that is revoked and a person who is disabled count from the next request on.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from roblox_ml_core.auth.grants import EVERYTHING, Action, Decision, Grant, Resource, Scope, decide, parse_grant
from roblox_ml_core.auth.principal import LOCAL, Principal
from roblox_ml_core.errors import Forbidden, Invalid
from sqlalchemy import Connection, select

from .. import tables as t
from . import tables as i

__all__ = ["grants_of", "judge", "require", "resource_of", "team_for_new", "teams_with", "viewer"]

_ALL = frozenset({Grant("admin", EVERYTHING)})
_DAY = 86400.0


def grants_of(connection: Connection, principal: Principal, mapped_days: float = 30.0) -> frozenset[Grant]:
    """Every grant that counts for the principal: given here, and brought by its issuer's mapping."""
    subject = principal.subject
    if subject == LOCAL.id:
        return _ALL
    query = select(i.grants.c.role, i.grants.c.scope).where(i.grants.c.principal == subject)
    held = {Grant(role, Scope.parse(scope)) for role, scope in connection.execute(query).tuples()}
    if principal.owner is not None:
        # A service token brings no groups: those its owner had when last seen count, for a while.
        since = time.time() - mapped_days * _DAY
        row = select(i.principals.c.mapped).where(i.principals.c.id == subject, i.principals.c.seen_at > since)
        held |= {parse_grant(text) for text in connection.execute(row).scalar() or ()}
    return frozenset(held) | principal.grants


def resource_of(connection: Connection, model: str) -> Resource:
    """The model with the team that owns it; a model that is not there belongs to nobody."""
    team = connection.execute(select(t.models.c.team).where(t.models.c.name == model)).scalar()
    return Resource(team, model)


def judge(connection: Connection, principal: Principal, action: str, resource: Resource) -> Decision:
    """Yes or no, and why."""
    if principal.is_local:
        return Decision(True, "the home's own token")
    who = principal.display or principal.id
    return decide(Action(action), resource, grants_of(connection, principal), principal.limit, who=who)


def require(
    connection: Connection,
    principal: Principal,
    action: str,
    *,
    model: str | None = None,
    team: str | None = None,
) -> None:
    """Return if the principal may do it to the model, to the team's things, or (with neither) to the whole platform.

    Raises:
        Forbidden: it may not. Raised out of a route it becomes a 403 with the reason, and a row of the audit trail.
    """
    if principal.is_local:
        return
    resource = resource_of(connection, model) if model is not None else Resource(team)
    decision = judge(connection, principal, action, resource)
    if decision.allowed:
        return
    raise refusal(decision.reason, action, resource)


def refusal(reason: str, action: str, resource: Resource) -> Forbidden:
    """The error for a decision that was no."""
    scope = EVERYTHING
    if resource.team is not None or resource.model is not None:
        scope = Scope("team", resource.team) if resource.team else Scope("model", resource.model or "")
    return Forbidden(
        reason,
        hint=f"an administrator of it can give the role: rml grants give PRINCIPAL {scope} {action}",
        details={"action": str(action), "resource": str(resource)},
    )


def viewer(connection: Connection, principal: Principal) -> Callable[[str], bool]:
    """A function that says of each model whether the principal may see it; grants and owners are read once."""
    if principal.is_local:
        return lambda model: True
    held = grants_of(connection, principal)
    owners = dict(connection.execute(select(t.models.c.name, t.models.c.team)).tuples().all())

    def may(model: str) -> bool:
        return decide(Action.VIEW, Resource(owners.get(model), model), held, principal.limit).allowed

    return may


def teams_with(connection: Connection, principal: Principal, action: Action) -> list[str]:
    """The teams for which the principal holds a role of the team's own that allows the action."""
    held = grants_of(connection, principal)
    named = {grant.scope.name for grant in held if grant.scope.kind == "team"}
    if principal.limit is not None and principal.limit.scope.kind == "team":
        # A token for a team speaks for the team, however widely its owner may act.
        named.add(principal.limit.scope.name)
    return [team for team in sorted(named) if decide(action, Resource(team), held, principal.limit).allowed]


def team_for_new(connection: Connection, principal: Principal, model: str, asked: str | None) -> str | None:
    """The team that a model belongs to from its first registration on: the one asked for, else the principal's only one.

    The home's administrator may leave it open: then nobody else may use the model until it is given to a team.
    """
    if asked is not None:
        if connection.execute(select(i.teams.c.name).where(i.teams.c.name == asked)).first() is None:
            # Who may not register for it learns nothing of what teams there are.
            require(connection, principal, "register", team=asked)
            raise Invalid(f"there is no team {asked}", hint=f"rml teams add {asked}")
        require(connection, principal, "register", team=asked)
        return asked
    if principal.is_local:
        return None
    mine = teams_with(connection, principal, Action.REGISTER)
    if len(mine) == 1:
        return mine[0]
    if mine:
        raise Invalid(
            f"{model} is new and you may register for {len(mine)} teams: {', '.join(mine)}",
            hint='say whose it is: "team" in the request, RML_TEAM in the environment',
        )
    require(connection, principal, "register", model=model)  # a role for this one model, or for everything
    return None
