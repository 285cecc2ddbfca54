"""The report of an experiment: from its definition, its exposures and the events of its units to one JSON document. Pure.

The document is specified in docs/design/experiment-statistics.md. It may be made as often as one likes: intervals,
p-values and warnings hold at
every look (up to what "asymptotic" means with few units: below a hundred per arm nothing is said).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import exp, log, sqrt
from typing import Any

import numpy as np
import pyarrow as pa

from . import sentences
from .comparing import Comparison, arm_estimates, compare, guard
from .estimates import variance_reduction
from .interactions import interaction
from .joining import Quality, Units, join, units_of
from .metrics import DAY_US, Measured, measure, peeks_of
from .multiplicity import bonferroni, e_bh
from .sample_ratio import log_e_value
from .sequences import rho_for

__all__ = ["BROKEN", "SUSPECT", "Neighbour", "build"]

#: e-values of the sample-ratio test: from here on something may be wrong, from there on something is.
SUSPECT, BROKEN = 20.0, 1000.0


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Another experiment on the same units in another layer."""

    name: str
    layer: str
    arms: Sequence[str]
    exposures: pa.Table


def build(
    experiment: Mapping[str, Any],
    exposures: pa.Table,
    events: pa.Table,
    *,
    since_us: int,
    until_us: int,
    alpha: float = 0.05,
    planned_units: float = 100_000,
    peeks: int = 40,
    neighbours: Sequence[Neighbour] = (),
) -> dict[str, Any]:
    """`experiment` as the control plane describes it; `events` from `cuped_days` before `since_us` on."""
    metrics, guardrails = list(experiment["metrics"]), list(experiment["guardrails"])
    arms = _in_order(experiment["arms"])
    names, weights = [arm["name"] for arm in arms], np.array([arm["weight"] for arm in arms], dtype=float)
    quality = Quality()
    units = units_of(exposures, names, quality)
    wanted = list(dict.fromkeys(n for one in (*metrics, *guardrails) for n in (one["event"], one.get("per")) if n))
    before = {
        one["event"]: one.get("cuped_days", 0) * DAY_US for one in sorted(metrics, key=lambda m: m.get("cuped_days", 0))
    }
    found = join(events, units, wanted, quality, until_us=until_us, before_us=before)
    looks = peeks_of(units, until_us, peeks)
    primary = [one for one in metrics if one.get("primary", True)]
    each = bonferroni(alpha, len(primary) * (len(names) - 1))
    rho = rho_for(planned_units, each)
    measured = {one["name"]: measure(one, found, units, len(names), looks) for one in (*metrics, *guardrails)}
    documents = [
        _metric(one, measured[one["name"]], names, looks, each if one in primary else alpha, rho, one in primary)
        for one in metrics
    ]
    _discoveries(documents, alpha)
    guarded = [_guardrail(one, measured[one["name"]], names, alpha / max(1, len(guardrails) * (len(names) - 1)), planned_units)
               for one in guardrails]  # fmt: skip
    srm = _sample_ratio(units, names, weights, looks)
    crossing = _interactions(primary, measured, units, names, neighbours, alpha, planned_units)
    counts = np.bincount(units.arm, minlength=len(names))
    document = {
        "schema": 1,
        "experiment": experiment["name"], "endpoint": experiment["endpoint"], "layer": experiment["layer"],
        "running": experiment.get("running", True), "since": since_us / 1e6, "until": until_us / 1e6,
        "alpha": alpha, "alpha_each": each, "planned_units": planned_units,
        "control": names[0],
        "units": [
            {"arm": name, "units": int(n), "share": float(n / max(1, counts.sum())), "expected": float(w / weights.sum())}
            for name, n, w in zip(names, counts, weights, strict=True)
        ],
        "srm": srm, "metrics": documents, "guardrails": guarded, "interactions": crossing, "quality": asdict(quality),
    }  # fmt: skip
    document["warnings"] = sentences.warnings(document, metrics)
    return document


def _in_order(arms: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Control first: the arm called so, else the one that came first."""
    return sorted(arms, key=lambda arm: arm["name"] != "control")


def _metric(
    metric: Mapping[str, Any],
    measured: Measured,
    names: Sequence[str],
    looks: Any,
    alpha: float,
    rho: float,
    primary: bool,
) -> dict[str, Any]:
    plain = arm_estimates(metric, measured, adjust=False)
    comparisons = []
    for arm in range(1, len(names)):
        one = compare(metric, measured, arm, alpha, rho)
        comparisons.append(_comparison(metric, one, names[arm], looks, measured))
    fields = ("name", "kind", "event", "per", "direction")
    return {
        **{field: metric.get(field) for field in fields},
        "primary": primary,
        "alpha": alpha,
        "arms": [
            {
                "arm": name, "units": int(one.units[-1]), "mean": _number(one.value[-1]),
                "sd": _number(sqrt(max(0.0, one.variance[-1] * one.units[-1]))) if np.isfinite(one.variance[-1]) else None,
            }
            for name, one in zip(names, plain, strict=True)
        ],
        "comparisons": comparisons,
    }  # fmt: skip


def _comparison(metric: Mapping[str, Any], one: Comparison, arm: str, looks: Any, measured: Measured) -> dict[str, Any]:
    decision = one.decision(metric["direction"])
    e_value = exp(min(690.0, float(one.log_e[-1])))
    absolute = _interval(one.absolute.value[-1], one.width[-1], one.ready[-1])
    relative = _interval(one.relative.value[-1], one.relative_width[-1], one.ready[-1])
    cuped = None
    if measured.has_covariate:
        reduction = float(variance_reduction(measured.moments[-1]))
        cuped = {"days": metric["cuped_days"], "variance_reduction": reduction}
    series = [
        {
            "at": float(at) / 1e6, "units": int(units), **_interval(value, width, ready),
            "relative": _interval(lift, reach, ready),
        }
        for at, units, value, width, ready, lift, reach in zip(
            looks, one.absolute.units, one.absolute.value, one.width, one.ready, one.relative.value, one.relative_width, strict=True
        )
    ]  # fmt: skip
    return {
        "arm": arm, "lift": relative["estimate"], "relative": relative, "absolute": absolute, "e_value": e_value,
        "p_value": min(1.0, 1 / e_value), "decision": decision,
        "words": sentences.comparison(metric, arm, decision, relative, absolute), "cuped": cuped, "series": series,
    }  # fmt: skip


def _discoveries(documents: list[dict[str, Any]], alpha: float) -> None:
    """Metrics that are not primary: which of them survive the e-BH procedure, all together."""
    others = [one for metric in documents if not metric["primary"] for one in metric["comparisons"]]
    for one, found in zip(others, e_bh([one["e_value"] for one in others], alpha), strict=True):
        one["discovery"] = found


def _guardrail(
    guardrail: Mapping[str, Any], measured: Measured, names: Sequence[str], alpha: float, planned: float
) -> dict[str, Any]:
    rho = rho_for(planned, alpha, one_sided=True)
    plain = arm_estimates(guardrail, measured, adjust=False)
    found = []
    for arm in range(1, len(names)):
        one = guard(guardrail, measured, arm, alpha, rho)
        found.append(
            {
                "arm": names[arm], "mean": _number(plain[arm].value[-1]), "control": _number(plain[0].value[-1]),
                "excess": _number(one.excess[-1]), "bound": _number(one.bound[-1]), "breached": one.breached,
            }
        )  # fmt: skip
    fields = ("name", "kind", "event", "per", "direction", "margin")
    return {**{field: guardrail.get(field) for field in fields}, "alpha": alpha, "arms": found,
            "breached": any(one["breached"] for one in found)}  # fmt: skip


def _sample_ratio(units: Units, names: Sequence[str], weights: Any, looks: Any) -> dict[str, Any]:
    """On first exposures, at every peek, also of the units that are left out elsewhere."""
    counts = np.zeros((len(looks), len(names)))
    for arms, at in ((units.arm, units.at), (units.crossed, units.crossed_at)):
        upto = np.searchsorted(at, looks, side="right")
        for arm in range(len(names)):
            counts[:, arm] += np.concatenate([[0], np.cumsum(arms == arm)])[upto]
    some = weights > 0
    nobody = bool(counts[-1][~some].any())
    logs = log_e_value(counts[:, some], weights[some]) if some.sum() > 1 else np.zeros(len(looks))
    highest = float(logs.max())
    verdict = "broken" if highest >= log(BROKEN) or nobody else "suspect" if highest >= log(SUSPECT) else "fine"
    return {"e_value": exp(min(690.0, highest)), "p_value": min(1.0, exp(-highest)), "verdict": verdict,
            "counts": [int(n) for n in counts[-1]]}  # fmt: skip


def _interactions(
    metrics: Sequence[Mapping[str, Any]], measured: Mapping[str, Measured], units: Units, names: Sequence[str],
    neighbours: Sequence[Neighbour], alpha: float, planned: float,
) -> list[dict[str, Any]]:  # fmt: skip
    pairs = sum((len(one.arms) - 1) * (len(names) - 1) for one in neighbours) * len(metrics)
    if not pairs:
        return []
    level = bonferroni(alpha, pairs)
    rho = rho_for(planned, level)
    found = []
    for other in neighbours:
        theirs = _arms_there(units, other)
        for metric in metrics:
            m = measured[metric["name"]]
            below = m.b if metric["kind"] == "ratio" else None
            for mine in range(1, len(names)):
                for its in range(1, len(other.arms)):
                    one = interaction(_against(units.arm, mine), _against(theirs, its), m.a, below, level, rho)
                    if one is not None:
                        found.append(
                            {
                                "experiment": other.name, "layer": other.layer, "metric": metric["name"], "arm": names[mine],
                                "other_arm": other.arms[its], "found": one.found, **asdict(one),
                            }
                        )  # fmt: skip
    return found


def _arms_there(units: Units, other: Neighbour) -> Any:
    """The arm of each of our units in the other experiment, −1 for none."""
    import pyarrow.compute as pc

    there = units_of(other.exposures, list(other.arms), Quality())
    where = pc.index_in(there.names, value_set=units.names)
    position = where.to_numpy(zero_copy_only=False)
    found: Any = np.full(len(units), -1, dtype=np.int64)
    known = ~np.isnan(position) if position.dtype.kind == "f" else np.ones(len(position), dtype=bool)
    found[position[known].astype(np.int64)] = there.arm[known]
    return found


def _against(arm: Any, number: int) -> Any:
    return np.where(arm == number, 1, np.where(arm == 0, 0, -1))


def _interval(value: Any, width: Any, ready: Any) -> dict[str, Any]:
    known = bool(ready) and np.isfinite(value) and np.isfinite(width)
    return {
        "estimate": _number(value),
        "low": float(value - width) if known else None,
        "high": float(value + width) if known else None,
    }


def _number(value: Any) -> float | None:
    """JSON knows no NaN."""
    return float(value) if np.isfinite(value) else None
