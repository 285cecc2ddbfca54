"""What a rollback is justified with: the counts, the test, its threshold, and what happened second by second. Pure."""

from __future__ import annotations

from math import exp
from typing import Any

import numpy as np

from .counts import BINS, Ticks, lower_edge_us
from .judge import Finding, Limits
from .watches import Watch

__all__ = ["evidence", "quantile_us", "sentence"]

_TIME_LINE_S = 60


def sentence(watch: Watch, finding: Finding, challenger: Ticks, baseline: Ticks) -> str:
    """What was found, for people: numbers of the window, unscaled."""
    here, there = challenger.last(finding.seconds), baseline.last(finding.seconds)
    what = {"canary": "canary", "experiment": f"arm {watch.challenger.arm} of {watch.subject}"}.get(
        watch.kind, "champion"
    )
    (requests, errors), (requests_b, errors_b) = here.total, there.total
    if finding.test == "errors":
        return (
            f"{what} {watch.version} failed {_percent(errors, requests)} of {requests} requests in {finding.seconds} s, "
            f"{watch.back_to} {_percent(errors_b, requests_b)} of {requests_b}; at most {100 * finding.margin:g} points more are allowed"
        )
    share = 0.5 if finding.test.startswith("median") else 0.95
    mine, its = (quantile_us(one.latency.sum(axis=0), share) / 1000 for one in (here, there))
    word = "median" if share == 0.5 else "95th percentile"
    return (
        f"{what} {watch.version} answered {requests} requests in {finding.seconds} s with a {word} of {mine:.3g} ms, "
        f"{watch.back_to} with {its:.3g} ms; at most {finding.margin:g} times as long is allowed"
    )


def evidence(
    watch: Watch, finding: Finding, challenger: Ticks, baseline: Ticks, limits: Limits, at: float
) -> dict[str, Any]:
    """The record, as JSON. `at` is the end of the counts."""
    here, there = challenger.last(finding.seconds), baseline.last(finding.seconds)
    return {
        "test": finding.test,
        "seconds": finding.seconds,
        "since_start": finding.from_start,
        "log_e_value": round(finding.log_e, 4),
        "threshold": round(finding.threshold, 4),
        "alpha": exp(-finding.threshold),
        "margin": finding.margin,
        "share_compared": {"challenger": round(finding.challenger_share, 6), "baseline": round(finding.baseline_share, 6)},
        "slower_than_us": None if finding.edge is None else round(lower_edge_us(finding.edge)),
        "challenger": {"version": watch.version, **_counts(here)},
        "baseline": {"version": watch.back_to, "contemporary": watch.kind != "promotion", **_counts(there)},
        "limits": {
            "error_points": limits.error_points, "latency_ratio": limits.latency_ratio, "alpha": limits.alpha,
            "min_requests": limits.min_requests, "min_errors": limits.min_errors,
        },
        "began_at": watch.begin,
        "time_line": _time_line(challenger, baseline, int(at)),
    }  # fmt: skip


def quantile_us(latency: Any, share: float) -> float:
    """A quantile of binned latencies, interpolated on the logarithm; 0 without any."""
    total = int(latency.sum())
    if not total:
        return 0.0
    upto = np.cumsum(latency)
    bin = int(np.searchsorted(upto, share * total))
    bin = min(bin, BINS - 1)
    before = upto[bin - 1] if bin else 0
    part = (share * total - before) / max(1, latency[bin])
    return lower_edge_us(bin + float(np.clip(part, 0, 1)))


def _counts(ticks: Ticks) -> dict[str, Any]:
    requests, errors = ticks.total
    latency = ticks.latency.sum(axis=0)
    return {
        "requests": requests, "errors": errors, "latency": [int(n) for n in latency],
        "p50_us": round(quantile_us(latency, 0.5)), "p95_us": round(quantile_us(latency, 0.95)),
    }  # fmt: skip


def _time_line(challenger: Ticks, baseline: Ticks, at: int) -> list[dict[str, Any]]:
    """The last minute, seconds without requests left out."""
    length = len(challenger.requests)
    return [
        {
            "at": at - (length - 1 - index),
            "challenger": _second(challenger, index),
            "baseline": _second(baseline, index),
        }
        for index in range(max(0, length - _TIME_LINE_S), length)
        if challenger.requests[index] or baseline.requests[index]
    ]


def _second(ticks: Ticks, index: int) -> list[int]:
    """Requests, errors, median in microseconds."""
    return [int(ticks.requests[index]), int(ticks.errors[index]), round(quantile_us(ticks.latency[index], 0.5))]


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.3g} %" if whole else "none"
