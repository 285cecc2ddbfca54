"""A report in plain sentences: what may be said of a comparison, and what a reader must know before believing any of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["comparison", "warnings"]


def comparison(
    metric: Mapping[str, Any], arm: str, decision: str, relative: Mapping[str, Any], absolute: Mapping[str, Any]
) -> str:
    """One sentence of one arm in one metric."""
    name = metric["name"]
    if decision == "too early":
        return f"{name}: too early to say anything of {arm}"
    if relative["low"] is not None:
        by, between = (
            _signed(relative["estimate"]),
            f"between {_signed(relative['low'])} and {_signed(relative['high'])}",
        )
    else:
        by, between = f"{absolute['estimate']:+.4g}", f"between {absolute['low']:+.4g} and {absolute['high']:+.4g}"
    if decision == "undecided":
        return f"{name}: no difference between {arm} and control is shown so far ({by}, {between})"
    return f"{name}: {arm} is {decision} than control by {by} ({between})"


def warnings(document: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is wrong or to be kept in mind, the worst first."""
    found = []
    srm, quality, total = document["srm"], document["quality"], sum(one["units"] for one in document["units"])
    shares = ", ".join(f"{one['arm']} {one['share']:.2%} instead of {one['expected']:.2%}" for one in document["units"])
    if srm["verdict"] == "broken":
        found.append(
            f"The arms do not get the units they should ({shares}; e-value {srm['e_value']:.3g}): "
            "do not believe the results below. Look for an arm that fails before it logs its exposure, or for units that are dropped."
        )
    elif srm["verdict"] == "suspect":
        found.append(f"The arms may not get the units they should ({shares}; e-value {srm['e_value']:.3g}).")
    for one in document["guardrails"]:
        found += [f"Guardrail {one['name']} is breached by {arm['arm']}." for arm in one["arms"] if arm["breached"]]
    if not total:
        found.append("Nobody has been exposed yet.")
    if crossed := quality["units_in_two_arms"]:
        share = crossed / max(1, crossed + total)
        found.append(
            f"{crossed} units ({share:.2%}) were exposed to two arms and are left out: was the unit id the same thing everywhere?"
        )
    if other := quality["exposures_of_unknown_arms"]:
        found.append(f"{other} exposures name an arm that the experiment does not have.")
    if late := quality["late_events"]:
        found.append(
            f"{late} events came after the end of the experiment, or from a clock that is ahead, and are not counted."
        )
    if repeated := quality["repeated_events"]:
        found.append(f"{repeated} events were sent more than once and are counted once.")
    for one in document["interactions"]:
        if one["found"]:
            found.append(
                f"The effect of {one['arm']} on {one['metric']} depends on arm {one['other_arm']} of {one['experiment']} "
                f"(layer {one['layer']}): it changes by {one['estimate']:+.4g}. Read both experiments together."
            )
    found += [
        f"{one['name']} is a ratio: the time before the experiment (cuped_days) is not used for it."
        for one in metrics
        if one["kind"] == "ratio" and one.get("cuped_days")
    ]
    for metric in document["metrics"]:
        if total and not metric["arms"][0]["mean"] and all(not arm["mean"] for arm in metric["arms"]):
            found.append(f"No event of {metric['name']} ({metric['event']}) has come from a unit of this experiment.")
        if any(arm["mean"] is not None and arm["sd"] is None for arm in metric["arms"]):
            found.append(
                f"Values of {metric['name']} are too large to calculate with: look at what logs {metric['event']}."
            )
    if sum(1 for one in document["metrics"] if one["primary"]) * (len(document["units"]) - 1) > 1:
        found.append(
            f"Primary comparisons share the error budget: each is made at {document['alpha_each']:.3g} instead of {document['alpha']:g}."
        )
    return found


def _signed(share: float) -> str:
    percent = 100 * share
    return f"{percent:+,.0f} %" if abs(percent) >= 999.5 else f"{percent:+.3g} %"
