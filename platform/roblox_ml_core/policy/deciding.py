"""The decision: a pure function of the policy, the endpoint, the unit and the request's context."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from xxhash import xxh64_intdigest

from .hashing import SCALE
from .model import Arm, Decision, EndpointPolicy, Policy, Ref, UnknownEndpoint
from .targeting import holds

__all__ = ["decide", "decide_for"]

_NOTHING: Mapping[str, Any] = MappingProxyType({})
_NOBODY = ("", "")


def decide(
    policy: Policy, endpoint: str, unit_id: str | None = None, context: Mapping[str, Any] = _NOTHING
) -> Decision:
    """Who answers `unit_id`'s request at `endpoint`.

    Args:
        unit_id: the value of the endpoint's own unit (a user's id, where its unit is `user_id`); None: unknown.
        context: attributes for targeting, values of other units by their name, and `inference_id`.

    Raises:
        UnknownEndpoint: the policy has none of that name. Nothing else can fail.
    """
    entry = policy.endpoints.get(endpoint)
    if entry is None:
        raise UnknownEndpoint(endpoint)
    return decide_for(entry, unit_id, context)


def decide_for(entry: EndpointPolicy, unit_id: str | None, context: Mapping[str, Any] = _NOTHING) -> Decision:
    """The same, for an endpoint that has been looked up."""
    if entry.plain:
        return entry.always
    champion = entry.ref
    unit_bytes = None if not unit_id else unit_id.encode("utf-8", "surrogatepass")
    ref, role = champion, "champion"
    reached: list[Arm] = []
    subjects: list[tuple[str, str]] = []
    own = None if not unit_id else (entry.unit, unit_id)
    chosen = _NOBODY
    out = _held_out(entry, unit_id, context) if entry.holdouts else None
    for layer in entry.layers:
        if layer.unit == entry.unit:
            subject, raw = own, unit_bytes
        else:
            value = _text(context.get(layer.unit))
            subject = None if value is None else (layer.unit, value)
            raw = None if value is None else value.encode("utf-8", "surrogatepass")
        if raw is None or subject is None:
            continue
        if out and layer.name in out:
            continue
        experiment = layer.owners[bisect_right(layer.firsts, xxh64_intdigest(raw, layer.seed)) - 1]
        if experiment is None or (experiment.targeting and not holds(experiment.targeting, context)):
            continue
        at = xxh64_intdigest(raw, experiment.seed)
        for arm in experiment.arms:
            if at < arm.below:
                break
        reached.append(arm)
        subjects.append(subject)
        if arm.ref is not None:
            ref, role, chosen = arm.ref, "arm", arm.pair
    request = _text(context.get("inference_id"))
    if entry.canary is not None and chosen is _NOBODY:
        key = unit_id or request
        if key and _bucket(entry.canary.seed, key) < entry.canary.share:
            ref, role = entry.canary.ref, "canary"
    shadows: tuple[Ref, ...] = ()
    if entry.shadows and (key := request or unit_id):
        asked = (s.ref for s in entry.shadows if s.ref != ref and _bucket(s.seed, key) < s.share)
        shadows = tuple(dict.fromkeys(asked))
    return Decision(entry.name, ref, champion, role, tuple(reached), tuple(subjects), shadows, entry.log.rate, chosen)


def _held_out(entry: EndpointPolicy, unit_id: str | None, context: Mapping[str, Any]) -> set[str]:
    """The layers whose experiments may not touch this unit."""
    out: set[str] = set()
    for holdout, covered in entry.holdouts:
        value = unit_id if holdout.unit == entry.unit else _text(context.get(holdout.unit))
        if value and _bucket(holdout.seed, value) < holdout.share:
            out |= covered
    return out


def _bucket(seed: int, unit: str) -> int:
    return (xxh64_intdigest(unit.encode("utf-8", "surrogatepass"), seed) * SCALE) >> 64


def _text(value: Any) -> str | None:
    """A unit's value from the context: a text that says something, or nothing."""
    return value if isinstance(value, str) and value else None
