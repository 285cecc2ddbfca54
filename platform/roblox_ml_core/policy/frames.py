"""The same decision for every unit of a batch: a batch model is split like an online one, and remembers by which policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from .deciding import decide_for
from .model import Policy, UnknownEndpoint

__all__ = ["decide_frame"]

_NOTHING: Mapping[str, Any] = MappingProxyType({})


def decide_frame(
    policy: Policy,
    endpoint: str,
    units: Sequence[str],
    contexts: Sequence[Mapping[str, Any]] | Mapping[str, Any] | None = None,
) -> dict[str, list[Any]]:
    """Columns of equal length: `unit`, `model`, `version`, `role`, `params`, and `arm.<experiment>` for each experiment met.

    Args:
        units: the endpoint's unit ids, one per row.
        contexts: one context per row, or one for all.

    Raises:
        UnknownEndpoint: the policy has none of that name.
        ValueError: there are not as many contexts as units.
    """
    entry = policy.endpoints.get(endpoint)
    if entry is None:
        raise UnknownEndpoint(endpoint)
    one = _NOTHING if contexts is None else contexts
    if not isinstance(one, Mapping) and len(one) != len(units):
        raise ValueError(f"there are {len(units)} units and {len(one)} contexts")
    names = sorted({owner.name for layer in entry.layers for owner in layer.owners if owner is not None})
    columns: dict[str, list[Any]] = {name: [] for name in ("unit", "model", "version", "role", "params")}
    arms: dict[str, list[str | None]] = {name: [] for name in names}
    for row, unit in enumerate(units):
        decision = decide_for(entry, unit, one if isinstance(one, Mapping) else one[row])
        for column, value in zip(
            columns.values(), (unit, decision.ref.model, decision.ref.version, decision.role, dict(decision.params)),
            strict=True,
        ):  # fmt: skip
            column.append(value)
        chosen = dict(decision.arms)
        for name in names:
            arms[name].append(chosen.get(name))
    return {**columns, **{f"arm.{name}": values for name, values in arms.items()}}
