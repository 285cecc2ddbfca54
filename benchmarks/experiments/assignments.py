"""Who gets what, asked of `decide` itself over a million units: growth moves nobody, layers know nothing of each other.

And a real log: what the uniform policy's impressions of the Open Bandit sample say that the other policy earned.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from math import erfc, exp, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from roblox_ml_core.policy import Policy, decide_frame, read_policy
from roblox_ml_core.policy.allocation import Range, allocate
from roblox_ml_platform.analysis.off_policy import ips, snips

__all__ = ["assigned", "open_bandit"]

_ARMS = [{"name": "control", "weight": 5000}, {"name": "new", "weight": 5000}]
_FOLDER = Path(os.environ.get("RML_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "data"


def assigned(units: int) -> Iterator[tuple[str, float]]:
    """Of so many units: moved by a growth from 1 % to 50 %, and how likely two independent layers look less independent than these."""
    ids = [f"user-{number}" for number in range(units)]
    small = allocate((), (), 100)
    before, after = _arms(_policy(small), ids), _arms(_policy(allocate((), small, 5000)), ids)
    was, now = before["arm.one"], after["arm.one"]
    yield "growth_moved_units", float(((was >= 0) & (was != now)).sum() + (before["arm.two"] != after["arm.two"]).sum())
    yield "growth_share_before", float((was >= 0).mean())
    yield "growth_share_after", float((now >= 0).mean())
    table = np.zeros((3, 3))
    np.add.at(table, (now + 1, after["arm.two"] + 1), 1)
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / units
    # Four degrees of freedom: the tail has a closed form.
    half = float((np.square(table - expected) / expected).sum()) / 2
    yield "layers_chi_square_p", exp(-half) * (1 + half)
    control, new = (int((now == arm).sum()) for arm in (0, 1))
    yield "arms_split_p", erfc(abs(new - control) / sqrt(2 * (new + control)))


def _policy(ranges: tuple[Range, ...]) -> Policy:
    """Two experiments of two layers; the first one has these ranges of its layer, the other one half."""

    def one(layer: str, held: tuple[Range, ...]) -> dict[str, Any]:
        ranges = [list(part) for part in held]
        return {"layer": layer, "endpoint": "feed", "salt": f"{layer}/1", "ranges": ranges, "arms": _ARMS}

    return read_policy({
        "endpoints": {"feed": {"model": "m", "version": 1, "digest": "1"}},
        "layers": {name: {"unit": "user_id", "salt": name} for name in ("ranking", "pages")},
        "experiments": {"one": one("ranking", ranges), "two": one("pages", ((0, 5000),))},
    })  # fmt: skip


def _arms(policy: Policy, ids: list[str]) -> dict[str, Any]:
    """By experiment: −1 (not in), 0 (control) or 1 (new) of each unit."""
    number = {None: -1, "control": 0, "new": 1}
    columns = decide_frame(policy, "feed", ids)
    return {name: np.array([number[arm] for arm in columns[name]]) for name in ("arm.one", "arm.two")}


def open_bandit() -> Iterator[tuple[str, float]]:
    """Nothing where the sample is not there. Covered: the interval of one log's estimate and the other's own clicks agree."""
    path = _FOLDER / "obd_small.parquet"
    if not path.is_file():
        print(f"no {path.name} in {_FOLDER}: put it beside the clone or set RML_SHARED", flush=True)
        return
    table, covered = pq.read_table(path), []
    for campaign in ("all", "men", "women"):
        uniform, thompson = (_rows(table, campaign, policy) for policy in ("random", "bts"))
        items = int(max(uniform["item_id"].max(), thompson["item_id"].max())) + 1
        shown = np.zeros((items, 4))
        np.add.at(shown, (thompson["item_id"], thompson["position"]), 1)
        # The mean propensity of an impression is Σp²/Σp: what the policy does on the whole is how often it did it.
        usual = (shown / shown.sum(axis=0).clip(1))[uniform["item_id"], uniform["position"]]
        there = np.full(len(thompson["click"]), 1 / items)
        for log, probability, other in ((uniform, usual, thompson), (thompson, there, uniform)):
            earned, weight = other["click"].mean(), probability / log["propensity_score"]
            for estimator in (ips, snips):
                found = estimator(log["click"], weight)
                noise = earned * (1 - earned) / len(other["click"])
                covered.append(abs(found.estimate - earned) <= 1.96 * sqrt(found.standard_error**2 + noise))
                if campaign == "all" and log is uniform and estimator is snips:
                    yield "off_policy_estimate", found.estimate
                    yield "off_policy_low", found.low
                    yield "off_policy_high", found.high
                    yield "off_policy_earned", float(earned)
    yield "off_policy_covered_of_12", float(sum(covered))


def _rows(table: Any, campaign: str, policy: str) -> dict[str, Any]:
    part = table.filter(pc.and_(pc.equal(table["campaign"], campaign), pc.equal(table["policy"], policy)))
    return {name: part[name].to_numpy() for name in ("item_id", "position", "click", "propensity_score")}
