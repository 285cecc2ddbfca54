"""Simulated traffic of a champion and a canary, second by second, with the noise that real ones have.

Latency is lognormal around a level that wanders (an autoregressive process that both share, and one of each: other
cores, another neighbour),
with stalls of a second or two in which everything is several times slower; errors come at a small rate, with bursts
that hit both and hiccups of
one. Nothing of it makes a healthy canary worse than its champion for good.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from roblox_ml_platform.guarding.counts import BINS, Ticks

__all__ = ["Traffic", "simulate"]


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests a second and what the noise is like; latency in microseconds."""

    champion_rps: float = 500.0
    canary_rps: float = 50.0
    median_us: float = 3000.0
    spread: float = 0.5
    common_sd: float = 0.12
    own_sd: float = 0.08
    memory: float = 0.9
    other_core: float = 0.06
    stall_rate: float = 0.01
    stall_factor: float = 4.0
    error_rate: float = 0.002
    burst_rate: float = 0.003
    burst_errors: float = 0.15
    hiccup_rate: float = 0.001
    hiccup_errors: float = 0.1


def simulate(
    rng: np.random.Generator,
    runs: int,
    seconds: int,
    traffic: Traffic,
    *,
    extra_errors: float = 0.0,
    slower: float = 1.0,
    begin: int = 0,
) -> tuple[Ticks, Ticks]:
    """Canary and champion of many runs at once. From second `begin` on the canary has more errors, or takes `slower` times as long."""
    common = _wandering(rng, runs, seconds, traffic.common_sd, traffic.memory)
    bursts = rng.random((runs, seconds)) < traffic.burst_rate
    bursts[:, 1:] |= bursts[:, :-1] & (rng.random((runs, seconds - 1)) < 0.5)
    faulty = np.arange(seconds) >= begin
    found = []
    for rps, is_canary in ((traffic.canary_rps, True), (traffic.champion_rps, False)):
        level = common + _wandering(rng, runs, seconds, traffic.own_sd, traffic.memory)
        stalled = rng.random((runs, seconds)) < traffic.stall_rate
        level = level + np.log(traffic.stall_factor) * stalled
        errors = np.full((runs, seconds), traffic.error_rate) + traffic.burst_errors * bursts
        errors = errors + traffic.hiccup_errors * (rng.random((runs, seconds)) < traffic.hiccup_rate)
        if is_canary:
            level = level + rng.normal(0, traffic.other_core, (runs, 1)) + np.log(slower) * faulty
            errors = errors + extra_errors * faulty
        # Arrivals that crowd a little: a Poisson number around a rate that itself varies.
        requests = rng.poisson(rps * rng.gamma(20, 1 / 20, (runs, seconds)))
        latency = _binned(rng, requests, np.log(traffic.median_us) + level, traffic.spread)
        found.append(Ticks(requests, rng.binomial(requests, np.clip(errors, 0, 1)), latency))
    return found[0], found[1]


def _wandering(rng: np.random.Generator, runs: int, seconds: int, sd: float, memory: float) -> Any:
    steps = rng.normal(0, sd * np.sqrt(1 - memory**2), (runs, seconds))
    steps[:, 0] = rng.normal(0, sd, runs)
    for second in range(1, seconds):
        steps[:, second] += memory * steps[:, second - 1]
    return steps


def _binned(rng: np.random.Generator, requests: Any, centre: Any, spread: float) -> Any:
    """Latency bins of so many lognormal requests each second, drawn bin by bin as conditional binomials."""
    edges = np.log(100.0) + np.log(2.0) / 4 * np.arange(1, BINS)
    found = np.zeros((*requests.shape, BINS), dtype=np.int32)
    left, mass = requests.copy(), np.ones_like(centre)
    before = np.zeros_like(centre)
    for bin in range(BINS - 1):
        below = _normal_cdf((edges[bin] - centre) / spread)
        share = below - before
        if share.max() > 1e-9:
            chance = np.clip(share / np.maximum(mass, 1e-12), 0, 1)
            found[..., bin] = rng.binomial(left, chance)
            left = left - found[..., bin]
            mass = mass - share
        before = below
    found[..., BINS - 1] = left
    return found


def _normal_cdf(z: Any) -> Any:
    """Φ to 1e-4 or so, without another library: plenty for drawing latencies."""
    return 1 / (1 + np.exp(-np.clip(z * (1.5957691216 + 0.0713548163 * z * z), -60, 60)))
