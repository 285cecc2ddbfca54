"""The door's decision for a whole frame: a batch job is split like the endpoint, by the same policy."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .. import _siblings
from .._addresses import control, door_url
from ..errors import NotFound, NotRunning, RemoteError
from .sending import post_batch
from .wishes import WishError, as_contexts, as_units

__all__ = ["decide"]

_BATCH = 2_000


def decide(
    endpoint: str,
    units: Iterable[Any],
    context: Any = None,
    *,
    snapshot: Mapping[str, Any] | None = None,
    log: bool = False,
) -> Any:
    """Who would answer each unit at the endpoint: a DataFrame with `unit`, `model`, `version`, `role`, `params`, `arm.<experiment>`.

    Args:
        units: unit ids, such as a column of user ids.
        context: one for all, or one per unit (a list or a frame), for targeting and other units.
        snapshot: a policy snapshot kept from before; left out, the current one. Its digest is in the frame's
            `attrs["policy_digest"]`: a job that is run again with it decides the same.
        log: tell the door that these units see their arms, so that reports count them. Only where the job then acts on it; how many
            exposures were taken is in `attrs["exposures"]`.

    Raises:
        NotFound: the snapshot has no such endpoint.
        WishError: a row has no unit, there are not as many contexts as units, or the snapshot is none.
        NotRunning, RemoteError: exposures could not be logged.
    """
    import pandas as pd

    rules = _siblings.load("roblox_ml_core.policy")
    if snapshot is None:
        with control() as plane:
            snapshot = plane.snapshot()
    try:
        policy = rules.read_policy(snapshot["policy"])
    except (rules.PolicyInvalid, KeyError, TypeError) as error:
        raise WishError(
            f"the snapshot cannot be read: {error!r}", fix="give what GET /v1/snapshot answered, whole; or leave it out"
        ) from None
    rows: Any = units
    index = rows.index if hasattr(rows, "iloc") else None  # a list has an index too: a method
    listed, contexts = as_units(units), as_contexts(context)
    try:
        columns = rules.decide_frame(policy, endpoint, listed, contexts)
    except rules.UnknownEndpoint:
        known = ", ".join(sorted(policy.endpoints)) or "none yet"
        raise NotFound(f"there is no endpoint {endpoint!r}", fix=f"endpoints: {known}", status=404) from None
    except ValueError as error:
        raise WishError(str(error), fix="one context for all units, or one for each") from None
    frame = pd.DataFrame(columns, index=index)
    frame.attrs.update(endpoint=endpoint, policy_digest=policy.digest)
    if log:
        frame.attrs["exposures"] = _log(rules, policy, endpoint, listed, contexts)
    return frame


def _log(rules: Any, policy: Any, endpoint: str, units: Sequence[str], contexts: Any) -> int:
    """Every (experiment, arm, unit) once; how many the door took."""
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for number, unit in enumerate(units):
        one = {} if contexts is None else contexts if isinstance(contexts, Mapping) else contexts[number]
        decision = rules.decide(policy, endpoint, unit, one)
        for experiment, arm, kind, value in decision.exposures:
            rows[(experiment, arm, kind, value)] = {
                "endpoint": endpoint, "experiment": experiment, "arm": arm, "unit": value, "unit_kind": kind,
                "version": decision.ref.version,
            }  # fmt: skip
    import httpx

    url, listed, taken = f"{door_url()}/v1/exposures", list(rows.values()), 0
    with httpx.Client(timeout=30.0) as http:
        for start in range(0, len(listed), _BATCH):
            body = json.dumps({"exposures": listed[start : start + _BATCH]}, separators=(",", ":"), ensure_ascii=False)
            answer, problem = post_batch(http, url, body.encode())
            if answer is None:
                raise NotRunning(
                    f"{taken} of {len(listed)} exposures were logged: {problem}",
                    fix="start the door with `rml up`, or set RML_DOOR_URL; to log one again changes nothing",
                )
            if answer.status_code != 202:
                raise RemoteError(
                    f"the door refused the exposures after {taken}: {answer.text[:500]}", status=answer.status_code
                )
            taken += int(answer.json()["accepted"])
    return taken
