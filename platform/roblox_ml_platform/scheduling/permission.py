"""Who may do what to a pipeline: it belongs to a team, and its schedules, backfills and triggers with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import yaml
from roblox_ml_core.auth.grants import Action, Resource
from roblox_ml_core.auth.principal import Principal
from roblox_ml_core.errors import Invalid
from roblox_ml_core.storage import BlobStore
from sqlalchemy import Connection, select

from ..identity import access
from ..identity.secrets import require_secrets
from . import tables as t

__all__ = ["require", "require_schedule", "seer", "team_of_new"]


def require(connection: Connection, who: Principal, action: str, pipeline: str) -> None:
    """Return if the principal may do this to the pipeline's team's things."""
    if not who.is_local:
        p = t.pipelines.c
        access.require(
            connection, who, action, team=connection.execute(select(p.team).where(p.name == pipeline)).scalar()
        )


def require_schedule(connection: Connection, who: Principal, action: str, name: str) -> None:
    """The same for a schedule; one that was deleted is as its runs were."""
    if who.is_local:
        return
    s, r = t.schedules.c, t.scheduled_runs.c
    pipeline = connection.execute(select(s.pipeline).where(s.name == name)).scalar()
    if pipeline is None:
        pipeline = connection.execute(select(r.pipeline).where(r.source == f"schedule:{name}").limit(1)).scalar()
    require(connection, who, action, pipeline or "")


def seer(connection: Connection, who: Principal) -> Callable[[str], bool]:
    """A function that says of each pipeline whether the principal may see it."""
    if who.is_local:
        return lambda _pipeline: True
    teams = dict(connection.execute(select(t.pipelines.c.name, t.pipelines.c.team)).tuples().all())
    known: dict[Any, bool] = {}

    def may(pipeline: str) -> bool:
        team = teams.get(pipeline)
        if team not in known:
            known[team] = access.judge(connection, who, Action.VIEW, Resource(team)).allowed
        return known[team]

    return may


def team_of_new(
    connection: Connection, who: Principal, name: str, asked: str | None, store: BlobStore, ir: str
) -> str | None:
    """The team of a pipeline that is published: the one it has, the one asked for, or the publisher's only one.

    Refuses a publisher who may not run things for that team, and a pipeline that names another team's secrets.
    """
    p = t.pipelines.c
    row = connection.execute(select(p.team).where(p.name == name)).one_or_none()
    team: str | None = asked if row is None or row[0] is None else row[0]
    if who.is_local:
        return team
    if row is not None:
        require(connection, who, "run", name)
    elif team is None:
        mine = access.teams_with(connection, who, Action.RUN)
        if len(mine) > 1:
            hint = 'say whose it is: "team" in the request, RML_TEAM in the environment'
            raise Invalid(
                f"{name} is new and you may run pipelines for {len(mine)} teams: {', '.join(mine)}", hint=hint
            )
        team = mine[0] if mine else None
    access.require(connection, who, "run", team=team)
    require_secrets(connection, who, _secrets(store.get(ir)), team)
    return team


def _secrets(ir: bytes) -> set[str]:
    """The names of the secrets that an IR refers to."""
    try:
        documents = list(yaml.safe_load_all(ir))
    except yaml.YAMLError as error:
        raise Invalid(f"the IR is no YAML: {error}"[:500], hint="publish with the SDK: pipeline.publish()") from error
    return {name for place in _named(documents, ("secretAsEnv", "secretAsVolume")) for name in _texts(place)}


def _named(value: Any, names: tuple[str, ...]) -> Iterator[Any]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key in names:
                yield item
            else:
                yield from _named(item, names)
    elif isinstance(value, list):
        for item in value:
            yield from _named(item, names)


def _texts(value: Any) -> Iterator[str]:
    """Of a list of references, the secrets' names: `secretName`, or the constant of `secretNameParameter`."""
    for one in _named(value, ("secretName", "secretNameParameter")):
        if isinstance(one, str):
            yield one
        else:
            yield from (text for text in _named(one, ("constant",)) if isinstance(text, str))
