"""Experiments: made and begun in one call, grown, stopped, perhaps won. A running one never changes what its arms are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from roblox_ml_core.errors import Conflict, Invalid, NotFound
from roblox_ml_core.names import check_name
from roblox_ml_core.policy import NoRoom, allocate
from roblox_ml_core.policy.targeting import read_targeting
from sqlalchemy import Connection, func, insert, select, update

from .. import aliases, endpoints
from ..database import bump, now
from ..records import audit, iso
from . import layers
from . import tables as t
from .refs import Challenger, check_fit

__all__ = ["Arm", "Wish", "describe", "list_experiments", "model_of_arm", "put", "stop"]

MOST_IN_A_LAYER = 64


@dataclass(frozen=True, slots=True)
class Arm:
    """What one arm does: another model (or not), and parameters for whoever reads them."""

    name: str
    weight: int
    ref: Challenger | None
    params: Mapping[str, Any]

    def row(self) -> dict[str, Any]:
        ref = self.ref
        return {
            "name": self.name,
            "weight": self.weight,
            "model": None if ref is None else ref.model,
            "alias": None if ref is None else ref.alias,
            "version": None if ref is None else ref.version,
            "params": dict(self.params),
        }


@dataclass(frozen=True, slots=True)
class Wish:
    """An experiment as somebody wants it. `share` in 10,000ths of the layer's units."""

    endpoint: str
    layer: str
    share: int
    arms: tuple[Arm, ...]
    targeting: Mapping[str, Any] = field(default_factory=dict)
    metrics: Sequence[Mapping[str, Any]] = ()
    guardrails: Sequence[Mapping[str, Any]] = ()
    hypothesis: str = ""
    isolated: bool = False


def put(connection: Connection, name: str, wish: Wish, actor: str, *, expect: int | None = None) -> dict[str, Any]:
    """Begin the experiment, or change the share, metrics and guardrails of the one that runs.

    Raises:
        Conflict: arms, targeting or layer of a running experiment would change, the layer has no room, or another layer
            chooses the endpoint's model.
        Invalid: an arm does not fit the endpoint, or targeting cannot be read.
    """
    check_name(name, "experiment name")
    layers.lock(connection, wish.layer)
    here = endpoints.describe(connection, wish.endpoint)
    try:
        read_targeting(wish.targeting)
    except ValueError as error:
        raise Invalid(str(error), hint="operators: eq ne in not_in lt lte gt gte exists prefix") from None
    for arm in wish.arms:
        if arm.ref is not None:
            check_fit(connection, here, arm.ref)
    row = _current(connection, name)
    _expect(name, row, expect)
    running = row is not None and row["running"]
    if running:
        _refuse_other_arms(name, row, wish)
    else:
        _refuse_second_owner(connection, name, wish)
    others = [r for r in _running(connection, layer=wish.layer) if r["name"] != name]
    if not running and len(others) >= MOST_IN_A_LAYER:
        raise Conflict(f"layer {wish.layer} has {MOST_IN_A_LAYER} experiments", hint="stop one, or use another layer")
    own = [(low, high) for low, high in row["ranges"]] if running else []
    try:
        ranges = allocate([(low, high) for r in others for low, high in r["ranges"]], own, wish.share)
    except NoRoom as full:
        have = ", ".join(f"{r['name']} {r['share'] / 100:g} %" for r in others)
        raise Conflict(
            f"layer {wish.layer} has no room for {name}: {full}",
            hint=f"running there: {have}; take a smaller share, stop one of them, or use another layer",
            details={"free": full.free},
        ) from None
    values: dict[str, Any] = {
        "share": wish.share,
        "ranges": [list(stretch) for stretch in ranges],
        "metrics": [dict(metric) for metric in wish.metrics],
        "guardrails": [dict(guardrail) for guardrail in wish.guardrails],
        "hypothesis": wish.hypothesis,
        "isolated": wish.isolated,
        "actor": actor,
    }
    if running:
        where = (t.experiments.c.name == name, t.experiments.c.round == row["round"])
        connection.execute(update(t.experiments).where(*where).values(revision=row["revision"] + 1, **values))
    else:
        connection.execute(
            insert(t.experiments).values(
                name=name, round=1 if row is None else row["round"] + 1, endpoint=wish.endpoint, layer=wish.layer,
                arms=[arm.row() for arm in wish.arms], targeting=dict(wish.targeting), running=True,
                revision=1 if row is None else row["revision"] + 1, started_at=now(), reason="", **values,
            )
        )  # fmt: skip
    after = describe(connection, name)
    before = _audited(_described(row)) if running else None
    audit(connection, actor, "experiment.put", name, before=before, after=_audited(after))
    bump(connection, "snapshot", "desired")
    return after


def stop(connection: Connection, name: str, actor: str, reason: str, winner: str | None = None) -> dict[str, Any]:
    """End it: its units get the champion again, or, with a winner, the champion becomes the winner's version.

    Raises:
        Conflict: it does not run.
        NotFound: there is no such experiment, or no such arm.
    """
    row = _current(connection, name)
    if row is None:
        describe(connection, name)  # raises
    if not row["running"]:
        raise Conflict(
            f"experiment {name} has ended already: {row['reason']}", hint="rml.experiment(…) begins a new round"
        )
    if winner is not None:
        _crown(connection, row, winner, actor)
    where = (t.experiments.c.name == name, t.experiments.c.round == row["round"])
    values = {
        "running": False,
        "stopped_at": now(),
        "reason": reason,
        "winner": winner,
        "revision": row["revision"] + 1,
    }
    connection.execute(update(t.experiments).where(*where).values(**values))
    before = _audited(_described(row))
    audit(connection, actor, "experiment.stop", name, before=before, after=None, reason=reason, winner=winner)
    bump(connection, "snapshot", "desired")
    return describe(connection, name)


def describe(connection: Connection, name: str) -> dict[str, Any]:
    """The latest round of the experiment.

    Raises:
        NotFound: there was none.
    """
    row = _current(connection, name)
    if row is None:
        known = sorted(set(connection.execute(select(t.experiments.c.name)).scalars()))
        raise NotFound(f"there is no experiment {name}", hint=f"experiments: {', '.join(known) or 'none yet'}")
    return _described(row)


def list_experiments(connection: Connection, *, running: bool | None = None) -> list[dict[str, Any]]:
    """The latest round of each, by name."""
    newest = select(t.experiments.c.name, func.max(t.experiments.c.round).label("round")).group_by(t.experiments.c.name)
    last = newest.subquery()
    query = select(t.experiments).join(
        last, (t.experiments.c.name == last.c.name) & (t.experiments.c.round == last.c.round)
    )
    rows = connection.execute(query.order_by(t.experiments.c.name)).mappings()
    return [_described(row) for row in rows if running is None or row["running"] is running]


def _described(row: Any) -> dict[str, Any]:
    fields = (
        "name",
        "round",
        "endpoint",
        "layer",
        "share",
        "ranges",
        "targeting",
        "metrics",
        "guardrails",
        "hypothesis",
    )
    arms = [
        {
            "name": arm["name"],
            "weight": arm["weight"],
            "ref": None if arm["model"] is None else str(Challenger(arm["model"], arm["alias"], arm["version"])),
            "params": arm["params"],
        }
        for arm in row["arms"]
    ]
    return {
        **{field: row[field] for field in fields},
        "arms": arms,
        "isolated": row["isolated"],
        "running": row["running"],
        "revision": row["revision"],
        "actor": row["actor"],
        "started_at": iso(row["started_at"]),
        "stopped_at": None if row["stopped_at"] is None else iso(row["stopped_at"]),
        "reason": row["reason"],
        "winner": row["winner"],
    }


def _current(connection: Connection, name: str) -> Any:
    query = select(t.experiments).where(t.experiments.c.name == name).order_by(t.experiments.c.round.desc()).limit(1)
    if connection.get_execution_options().get("rml_write") is not None:
        query = query.with_for_update()
    return connection.execute(query).mappings().one_or_none()


def _running(connection: Connection, *, layer: str | None = None, endpoint: str | None = None) -> list[Any]:
    query = select(t.experiments).where(t.experiments.c.running).order_by(t.experiments.c.name)
    if layer is not None:
        query = query.where(t.experiments.c.layer == layer)
    if endpoint is not None:
        query = query.where(t.experiments.c.endpoint == endpoint)
    return list(connection.execute(query).mappings())


def _refuse_other_arms(name: str, row: Any, wish: Wish) -> None:
    wanted = {
        "endpoint": wish.endpoint,
        "layer": wish.layer,
        "arms": _by_name([arm.row() for arm in wish.arms]),  # in whatever order: JSON objects have none
        "targeting": dict(wish.targeting),
    }
    have = {**row, "arms": _by_name(row["arms"])}
    changed = [what for what, value in wanted.items() if have[what] != value]
    if changed:
        raise Conflict(
            f"experiment {name} runs, and its {', '.join(changed)} cannot change: what was measured so far would mean "
            "something else",
            hint=f"rml experiment stop {name}, then begin it again: it gets a fresh assignment",
            details={"changed": changed},
        )


def _by_name(arms: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(arms, key=lambda arm: str(arm["name"]))


def _audited(described: Mapping[str, Any]) -> dict[str, Any]:
    """What of an experiment somebody decided."""
    parts = ("endpoint", "layer", "share", "targeting", "metrics", "guardrails", "hypothesis", "isolated", "round")
    arms = {arm["name"]: {"ref": arm["ref"], "weight": arm["weight"]} for arm in described["arms"]}
    return {**{part: described[part] for part in parts}, "arms": arms}


def _refuse_second_owner(connection: Connection, name: str, wish: Wish) -> None:
    """Two layers that both choose one endpoint's model would overrule each other for the units that are in both."""
    if all(arm.ref is None for arm in wish.arms):
        return
    for other in _running(connection, endpoint=wish.endpoint):
        if other["layer"] != wish.layer and any(arm["model"] is not None for arm in other["arms"]):
            raise Conflict(
                f"the model of endpoint {wish.endpoint} is chosen in layer {other['layer']} (experiment {other['name']})",
                hint=f"put {name} into layer {other['layer']}, or let its arms change parameters only",
                details={"layer": other["layer"], "experiment": other["name"]},
            )


def model_of_arm(connection: Connection, name: str, winner: str) -> str | None:
    """The model that the arm chooses; None: it leaves the model alone.

    Raises:
        NotFound: there is no such experiment, or no such arm.
    """
    row = _current(connection, name)
    if row is None:
        describe(connection, name)  # raises
    found: str | None = _arm(row, winner)["model"]
    return found


def _arm(row: Any, winner: str) -> Any:
    arm = next((arm for arm in row["arms"] if arm["name"] == winner), None)
    if arm is None:
        names = ", ".join(arm["name"] for arm in row["arms"])
        raise NotFound(f"experiment {row['name']} has no arm {winner}", hint=f"its arms: {names}")
    return arm


def _crown(connection: Connection, row: Any, winner: str, actor: str) -> None:
    arm = _arm(row, winner)
    if arm["model"] is None:
        return  # it leaves the model alone: what won is its parameters
    here = endpoints.describe(connection, row["endpoint"])
    version = check_fit(connection, here, Challenger(arm["model"], arm["alias"], arm["version"]))
    if (arm["model"], version) == (here["model"], here["version"]):
        return
    reason = f"arm {winner} won experiment {row['name']}"
    if here["alias"] is not None and arm["model"] == here["model"]:
        aliases.move(connection, here["model"], here["alias"], version, actor=actor, reason=reason)
    else:
        endpoints.put(connection, row["endpoint"], endpoints.Target(arm["model"], None, version), actor)


def _expect(name: str, row: Any, expect: int | None) -> None:
    have = 0 if row is None else int(row["revision"])
    if expect is not None and expect != have:
        raise Conflict(
            f"experiment {name} was changed meanwhile: it is at revision {have}, you expected {expect}",
            hint="look at it, then send your change again with its revision",
            details={"revision": have},
        )
