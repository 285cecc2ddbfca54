"""A/B experiments: begun, grown, read and ended in a line each.

exp = rml.experiment("new-ranker", arms={"control": "feed@champion", "new": "feed/7"}, share=0.1, metrics=["clicks"])
exp.report()            # a table and plots; looking at it every hour costs nothing: its intervals stay true
exp.stop(winner="new")  # the champion moves in the same act
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from .._addresses import control
from .reports import Report
from .showing import day_of
from .waiting import wait_for
from .wishes import SCALE, Metric, WishError, in_parts, read_metric, shown_share

__all__ = ["Experiment", "experiment", "experiments", "get_experiment"]

_LAYER = "default"


class Experiment:
    """One experiment, as it stands at the control plane."""

    def __init__(self, known: Mapping[str, Any]) -> None:
        self._known = dict(known)

    @property
    def name(self) -> str:
        return str(self._known["name"])

    @property
    def running(self) -> bool:
        return bool(self._known["running"])

    @property
    def share(self) -> float:
        """Of the layer's units, between 0 and 1."""
        return float(self._known["share"]) / SCALE

    @property
    def arms(self) -> dict[str, str | None]:
        """The version or alias that each arm answers with; None: the arm leaves the model alone."""
        return {arm["name"]: arm["ref"] for arm in self._known["arms"]}

    @property
    def endpoint(self) -> str:
        return str(self._known["endpoint"])

    def refresh(self) -> Experiment:
        """Read it again."""
        with control() as plane:
            self._known = plane.experiment(self.name)
        return self

    def grow(self, share: float) -> Experiment:
        """Take more units. Who is in stays in, in the same arm.

        Raises:
            WishError: that would be fewer: units that leave have been measured for nothing.
            Conflict: the layer has no room, or somebody changed the experiment meanwhile.
        """
        with control() as plane:
            known = plane.experiment(self.name)
            if in_parts(share) < known["share"]:
                raise WishError(
                    f"{shown_share(in_parts(share))} is less than the {shown_share(known['share'])} that experiment {self.name!r} has",
                    why="units that leave have been measured for nothing",
                    fix="exp.stop(reason=…) and begin it again, or say rml.experiment(…) as before with the smaller share",
                )
            self._known = plane.put_experiment(
                self.name, {**_body(known), "share": in_parts(share), "expect": known["revision"]}
            )
        return self

    def stop(self, winner: str | None = None, reason: str = "") -> Experiment:
        """End it. With a winner its version answers everybody from now on; without, the champion does.

        Raises:
            NotFound: there is no such arm.
            Conflict: it has ended already.
        """
        with control() as plane:
            self._known = plane.stop_experiment(self.name, reason or (f"{winner} won" if winner else "stopped"), winner)
        return self

    def report(self) -> Report:
        """What is known so far. May be read as often as one likes: the intervals hold for all times together."""
        with control() as plane:
            return Report(plane.experiment_report(self.name))

    def __repr__(self) -> str:
        state = "running" if self.running else f"ended: {self._known['reason']}"
        return f"<rml.Experiment {self.name} on {self.endpoint}, {shown_share(self._known['share'])}, {state}>"

    def _repr_html_(self) -> str:
        known = self._known
        rows = [("endpoint", self.endpoint), ("layer", known["layer"]), ("share", shown_share(known["share"]))]
        rows += [
            ("state", "running" if self.running else f"ended: {known['reason']}"),
            ("since", day_of(known["started_at"])),
        ]
        rows += [
            (f"arm {arm['name']}", f"{arm['ref'] or 'same model'}, {shown_share(arm['weight'])} {arm['params'] or ''}")
            for arm in known["arms"]
        ]
        cells = "".join(f"<tr><th>{escape(str(key))}</th><td>{escape(str(value))}</td></tr>" for key, value in rows)
        return f"<table><caption>experiment {escape(self.name)}</caption>{cells}</table>"


def experiment(
    name: str,
    arms: Mapping[str, str | Mapping[str, Any] | None],
    *,
    endpoint: str | None = None,
    unit: str = "user_id",
    layer: str | None = None,
    share: float = 1.0,
    metrics: Sequence[str | Metric | Mapping[str, Any]] = (),
    guardrails: Sequence[Metric | Mapping[str, Any]] = (),
    targeting: Mapping[str, Mapping[str, Any]] | None = None,
    hypothesis: str = "",
    isolated: bool = False,
    wait: bool = True,
    timeout: float = 120.0,
    say: Callable[[str], None] | None = None,
) -> Experiment:
    """Begin an experiment.

    Args:
        name: lower-case letters, digits, hyphens.
        arms: arm → `"model@alias"`, `"model/3"`, None (the arm leaves the model alone), or a dict with `ref`, `weight` and `params`.
            Others are compared with the arm called `control`, else with the first. Weights are equal unless given.
        endpoint: whose requests are split; left out, the endpoint called as the first arm's model.
        unit: what stays in one arm: a user, a session, a place. A new layer is made with it.
        layer: experiments of one layer never meet in one unit; those of different layers are independent. Left out: the layer
            `default`. One layer only may choose an endpoint's model.
        share: of the layer's units.
        metrics, guardrails: what to measure (`rml.metric`, or the name of an event), and what ends it (`rml.guardrail`).
        targeting: conditions on the request's context: `{"country": {"in": ["DE", "FR"]}}`.
        isolated: hold the arms' versions in model servers of their own (agents with the role `challenger`).
        wait: return when a model server has every arm's version ready.

    Raises:
        WishError: arms, weights or share cannot be meant.
        NotFound, Conflict, RemoteError: the control plane's refusal, in its words.
        NotRunning: an arm's version was not ready in time.
    """
    speak = say or (lambda line: print(line, flush=True))
    wished = _arms(name, arms)
    named = endpoint or _endpoint_of(name, wished)
    body: dict[str, Any] = {
        "endpoint": named, "layer": layer or _LAYER, "share": in_parts(share), "arms": wished,
        "targeting": {key: dict(value) for key, value in (targeting or {}).items()},
        "metrics": [read_metric(one) for one in metrics], "guardrails": [read_metric(one) for one in guardrails],
        "hypothesis": hypothesis, "isolated": isolated,
    }  # fmt: skip
    with control() as plane:
        _make_layer(plane, body["layer"], unit)
        made = Experiment(plane.put_experiment(name, body))
        if wait:
            refs = [arm["ref"] for arm in wished.values() if arm["ref"] is not None]
            speak(f"experiment {name}: {shown_share(body['share'])} of {unit} in layer {body['layer']} …")
            wait_for(plane, refs, timeout, speak)
    return made


def experiments(*, running: bool | None = None) -> list[Experiment]:
    """The latest round of every experiment, by name."""
    with control() as plane:
        return [Experiment(one) for one in plane.experiments(running)]


def get_experiment(name: str) -> Experiment:
    """Raises `NotFound`, with the experiments there are."""
    with control() as plane:
        return Experiment(plane.experiment(name))


def _make_layer(plane: Any, layer: str, unit: str) -> None:
    """A layer is made on first use; one that assigns something else is named, not changed."""
    try:
        known = plane.layer(layer)
    except Exception as error:
        if getattr(error, "status", None) != 404:
            raise
        plane.put_layer(layer, unit)
        return
    if known["unit"] != unit:
        raise WishError(
            f"layer {layer!r} assigns by {known['unit']}, not by {unit}",
            fix=f"unit={known['unit']!r}, or another layer: layer='{layer}-{unit.removesuffix('_id')}'",
        )


def _arms(name: str, arms: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    if not isinstance(arms, Mapping) or len(arms) < 2:
        raise WishError(
            f"experiment {name!r} needs at least two arms", fix='arms={"control": "m@champion", "new": "m/7"}'
        )
    made: dict[str, dict[str, Any]] = {}
    for name_of_arm, wish in arms.items():
        given = dict(wish) if isinstance(wish, Mapping) else {"ref": wish}
        if unknown := sorted(set(given) - {"ref", "weight", "params"}):
            raise WishError(f"arm {name_of_arm!r} has {', '.join(unknown)}", fix="an arm has ref, weight and params")
        if not isinstance(given.get("params") or {}, Mapping):
            raise WishError(f"arm {name_of_arm!r} has the params {given['params']!r}", fix='"params": {"k": 20}')
        made[name_of_arm] = {
            "ref": given.get("ref"),
            "params": dict(given.get("params") or {}),
            "weight": given.get("weight"),
        }
    given_weights = [arm["weight"] for arm in made.values() if arm["weight"] is not None]
    if given_weights and len(given_weights) < len(made):
        raise WishError(
            f"experiment {name!r}: some arms have a weight and some have none", fix="give all of them, or none"
        )
    weights = [arm["weight"] if given_weights else 1 for arm in made.values()]
    numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in weights)
    total = sum(weights) if numbers else 0
    if not 0 < total < math.inf or min(weights) < 0:
        raise WishError(
            f"experiment {name!r}: the weights {weights} cannot be shared out", fix="positive numbers, such as 9 and 1"
        )
    at, done = 0.0, 0
    for arm, weight in zip(made.values(), weights, strict=True):  # cumulative rounding: they sum to exactly 10,000
        at += weight
        upto = round(at / total * SCALE)
        arm["weight"], done = upto - done, upto
    return made


def _endpoint_of(name: str, arms: Mapping[str, Mapping[str, Any]]) -> str:
    ref = next((arm["ref"] for arm in arms.values() if arm["ref"] is not None), None)
    if ref is None:
        raise WishError(
            f"experiment {name!r}: no arm names a model, so say whose requests it splits", fix='endpoint="feed"'
        )
    return str(ref).partition("@")[0].partition("/")[0]


def _body(known: Mapping[str, Any]) -> dict[str, Any]:
    """What the control plane said of an experiment, as it takes it."""
    kept = ("endpoint", "layer", "share", "targeting", "metrics", "guardrails", "hypothesis", "isolated")
    arms = {arm["name"]: {key: arm[key] for key in ("ref", "weight", "params")} for arm in known["arms"]}
    return {**{key: known[key] for key in kept}, "arms": arms}
