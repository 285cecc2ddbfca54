"""The door's decision for a whole frame: a batch job is split like the endpoint, by the same policy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .. import _siblings
from .._addresses import control, translated
from ..errors import NotFound

__all__ = ["decide"]


def decide(
    endpoint: str,
    units: Iterable[Any],
    context: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    *,
    snapshot: Mapping[str, Any] | None = None,
) -> Any:
    """Who would answer each unit at the endpoint: a DataFrame with `unit`, `model`, `version`, `role`, `params`, `arm.<experiment>`.

    Args:
        units: unit ids, such as a column of user ids.
        context: one for all, or one per unit, for targeting and other units.
        snapshot: a policy snapshot kept from before; left out, the current one. Its digest is in the frame's
            `attrs["policy_digest"]`: a job that is run again with it decides the same.

    Raises:
        NotFound: the snapshot has no such endpoint.
    """
    import pandas as pd

    rules = _siblings.load("roblox_ml_core.policy")
    if snapshot is None:
        with control() as plane:
            snapshot = plane.snapshot()
    with translated():
        policy = rules.read_policy(snapshot["policy"])
    rows: Any = units
    index = rows.index if hasattr(rows, "iloc") else None  # a list has an index too: a method
    listed = [str(unit) for unit in units]
    try:
        columns = rules.decide_frame(policy, endpoint, listed, context)
    except rules.UnknownEndpoint:
        known = ", ".join(sorted(policy.endpoints)) or "none yet"
        raise NotFound(f"there is no endpoint {endpoint!r}", fix=f"endpoints: {known}", status=404) from None
    frame = pd.DataFrame(columns, index=index)
    frame.attrs.update(endpoint=endpoint, policy_digest=policy.digest)
    return frame
