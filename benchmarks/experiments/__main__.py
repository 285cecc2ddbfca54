"""`python -m benchmarks.experiments`: what is promised of experiments and canaries, by simulation; the last line is JSON.

Nothing here depends on how fast the machine is, but for `report_…`, which times a report of millions of exposures.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
from roblox_ml_platform.analysis import power, sequences
from roblox_ml_platform.analysis.report import build
from roblox_ml_platform.analysis.sample_ratio import log_e_value

from .assignments import assigned, open_bandit
from .canaries import judged
from .traffic import Traffic

__all__ = ["main"]

_ALPHA = 0.05


def main() -> None:
    """Simulate, print the table, print the line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.experiments", description=main.__doc__)
    parser.add_argument("--runs", type=int, default=10_000, help="simulated experiments of each kind")
    parser.add_argument("--canaries", type=int, default=1000, help="simulated canaries of each kind")
    parser.add_argument("--exposures", type=int, default=5_000_000, help="exposures of the timed report")
    parser.add_argument("--units", type=int, default=1_000_000, help="units that are assigned")
    options = parser.parse_args()
    rng = np.random.default_rng(2026)
    figures: dict[str, float] = {}
    for name, figure in chain(
        _peeking(rng, options.runs), _power(rng, options.runs), _ratios(rng, options.runs), _canaries(rng, options.canaries),
        _report(rng, options.exposures), assigned(options.units), open_bandit(),
    ):  # fmt: skip
        figures[name] = figure
        print(f"{name:52} {figure:12.5g}", flush=True)
    print(json.dumps({name: float(f"{value:.4g}") for name, value in figures.items()}))


def _walk(rng: np.random.Generator, runs: int, every: int, peeks: int, lift: float) -> tuple[Any, Any, Any]:
    """Differences of means at each peek with their variance and units, of normal outcomes (mean 1, sd 1) by their sufficient sums."""
    steps = rng.binomial(every, 0.5, (runs, peeks)).astype(float)
    n = np.stack([every - steps, steps], axis=-1).cumsum(axis=1)
    each = np.stack([every - steps, steps], axis=-1)
    sums = (each * np.array([1.0, 1.0 + lift]) + np.sqrt(each) * rng.standard_normal(each.shape)).cumsum(axis=1)
    spread = np.maximum(n - 1 + np.sqrt(2 * n) * rng.standard_normal(n.shape), 1) / np.maximum(n - 1, 1)
    means = sums / np.maximum(n, 1)
    return means[..., 1] - means[..., 0], (spread / np.maximum(n, 1)).sum(axis=-1), n.sum(axis=-1)


def _peeking(rng: np.random.Generator, runs: int) -> Any:
    estimate, variance, units = _walk(rng, runs, 100, 100, 0.0)
    width = sequences.half_width(units, variance, _ALPHA, sequences.rho_for(5000, _ALPHA))
    yield "aa_false_positives", float((np.abs(estimate) > width).any(axis=1).mean())
    yield "aa_false_positives_fixed_interval", float((np.abs(estimate) > 1.96 * np.sqrt(variance)).any(axis=1).mean())


def _power(rng: np.random.Generator, runs: int) -> Any:
    fixed = power.fixed_horizon(0.02, 1.0, alpha=_ALPHA, power=0.8)
    estimate, variance, units = _walk(rng, runs, 2 * fixed // 200, 200, 0.02)
    width = sequences.half_width(units, variance, _ALPHA, sequences.rho_for(2 * fixed, _ALPHA))
    found = estimate > width
    yield "fixed_horizon_units", float(fixed)
    yield "power_at_twice_fixed", float(found.any(axis=1).mean())
    first = np.where(found.any(axis=1), found.argmax(axis=1) + 1, 200) * (2 * fixed // 200)
    yield "ratio_mean_units_vs_fixed", float(first.mean() / fixed)


def _ratios(rng: np.random.Generator, runs: int) -> Any:
    for name, share in (("srm_false_alarms", 0.5), ("srm_found_half_a_point_by_150000", 0.505)):
        left = rng.binomial(1000, share, (runs, 150)).cumsum(axis=1)
        total: Any = 1000 * np.arange(1, 151)
        values = log_e_value(np.stack([left, total - left], axis=-1), [0.5, 0.5])
        yield name, float((values >= np.log(1 / _ALPHA)).any(axis=1).mean())


def _canaries(rng: np.random.Generator, runs: int) -> Any:
    healthy = np.concatenate([judged(rng, min(200, runs), 600).seconds for _ in range(max(1, runs // 200))])
    yield "canary_healthy_taken_back_in_10_min", float((healthy < 10**9).mean())
    quiet = Traffic(common_sd=0.05, own_sd=0.04, other_core=0.03)
    faults: tuple[tuple[str, dict[str, Any]], ...] = (
        ("errors_5_percent", {"extra_errors": 0.05}),
        ("latency_twice", {"slower": 2.0, "traffic": quiet}),
        ("latency_twice_noisy", {"slower": 2.0}),
        ("errors_5_percent_after_a_good_minute", {"extra_errors": 0.05, "begin": 60}),
    )
    for name, fault in faults:
        seconds = judged(rng, min(runs, 500), 40 + fault.get("begin", 0), **fault).seconds
        yield f"canary_{name}_median_s", float(np.median(seconds))
        yield f"canary_{name}_within_10_s", float((seconds <= 10).mean())
    # What stands in the way at 50 requests a second is their number.
    for rps in (200, 500):
        busy = judged(rng, min(runs, 500), 40, extra_errors=0.05, traffic=Traffic(canary_rps=rps))
        slow = judged(rng, min(runs, 500), 40, slower=2.0, traffic=replace(quiet, canary_rps=rps))
        yield f"canary_errors_5_percent_at_{rps}_rps_within_10_s", busy.within(10)
        yield f"canary_latency_twice_at_{rps}_rps_within_10_s", slow.within(10)


def _report(rng: np.random.Generator, n: int) -> Any:
    since, day = 1_795_000_000_000_000, 86_400_000_000
    at = since + rng.integers(0, 7 * day, n)
    names = pa.array(np.char.add("user-", np.arange(n).astype(str)))
    exposures = pa.table({"at_us": at, "arm": np.where(rng.random(n) < 0.5, "new", "control"), "unit": names})
    who = rng.integers(0, n, n)
    events = pa.table({
        "at_us": at[who] + rng.integers(1, day, n), "event_id": pa.array(np.char.add("e-", np.arange(n).astype(str))),
        "unit": names.take(pa.array(who)), "event": np.where(rng.random(n) < 0.3, "click", "view"), "value": np.ones(n),
    })  # fmt: skip
    metric = {
        "name": "ctr",
        "kind": "ratio",
        "event": "click",
        "per": "view",
        "direction": "up",
        "cuped_days": 0,
        "primary": True,
    }
    arms = [{"name": name, "weight": 5000} for name in ("control", "new")]
    experiment = {"name": "e", "endpoint": "f", "layer": "l", "arms": arms, "metrics": [metric], "guardrails": []}
    began = time.process_time()
    build(experiment, exposures, events, since_us=since, until_us=since + 9 * day)
    yield "report_cpu_s", time.process_time() - began


if __name__ == "__main__":
    main()
