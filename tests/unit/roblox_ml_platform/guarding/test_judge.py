"""The guard's judgement: healthy canaries stay however they wobble, bad ones go within seconds, and the tests are what they say."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from roblox_ml_platform.guarding.counts import BINS, Ticks
from roblox_ml_platform.guarding.judge import Limits, judge, profile
from roblox_ml_platform.guarding.proportions import log_e_value

from benchmarks.experiments.canaries import judged
from benchmarks.experiments.traffic import Traffic, simulate


def test_at_most_one_in_a_hundred_healthy_canaries_is_taken_back() -> None:
    outcome = judged(np.random.default_rng(1), 1000, 60, every=2)
    assert outcome.share <= 0.01, outcome.by


def test_a_canary_that_fails_every_twentieth_request_is_gone_within_ten_seconds() -> None:
    outcome = judged(np.random.default_rng(2), 200, 40, extra_errors=0.05)
    assert outcome.share == 1.0
    assert outcome.within(10) >= 0.8, outcome.seconds


def test_a_canary_that_takes_twice_as_long_is_gone_within_ten_seconds() -> None:
    calm = Traffic(common_sd=0.05, own_sd=0.04, other_core=0.03)
    outcome = judged(np.random.default_rng(3), 200, 40, traffic=calm, slower=2.0)
    assert outcome.share >= 0.99
    assert outcome.within(10) >= 0.8, outcome.seconds


def test_a_fault_after_a_good_minute_is_found_too() -> None:
    rng = np.random.default_rng(4)
    for fault in ({"extra_errors": 0.05}, {"slower": 2.5}):
        outcome = judged(rng, 50, 120, begin=60, every=2, **fault)
        assert outcome.share >= 0.95 and np.median(outcome.seconds) <= 30, fault


def test_an_outage_that_hits_both_takes_nobody_back() -> None:
    storm = Traffic(error_rate=0.2, burst_rate=0.05, median_us=50_000)
    assert judged(np.random.default_rng(5), 100, 60, traffic=storm, every=2).share <= 0.01


def ticks(requests: list[int], errors: list[int], bin: int | list[int] = 20) -> Ticks:
    latency = np.zeros((len(requests), BINS), dtype=np.int64)
    bins = bin if isinstance(bin, list) else [bin] * len(requests)
    for second, (count, where) in enumerate(zip(requests, bins, strict=True)):
        latency[second, where] = count
    return Ticks(np.array(requests), np.array(errors), latency)


def test_a_dead_canary_is_gone_after_a_few_seconds_and_one_bad_second_is_not_enough() -> None:
    champion = ticks([500] * 8, [0] * 8)
    dead = judge(ticks([50] * 3, [50] * 3), ticks([500] * 3, [0] * 3), Limits())
    assert dead is not None and dead.test == "errors" and dead.from_start
    assert judge(ticks([50] * 8, [0, 0, 0, 50, 0, 0, 0, 0]), champion, Limits()) is None
    stalled = ticks([50] * 8, [0] * 8, [20, 20, 20, 40, 20, 20, 20, 20])
    assert judge(stalled, champion, Limits()) is None


def test_too_little_traffic_is_no_verdict() -> None:
    champion = ticks([500] * 4, [0] * 4)
    assert judge(ticks([10] * 4, [10] * 4), champion, Limits()) is None
    assert judge(ticks([50] * 4, [50] * 4), ticks([1] * 4, [0] * 4), Limits()) is None


def test_a_difference_within_the_margin_is_none() -> None:
    champion = ticks([5000] * 60, [5] * 60)
    assert (
        judge(ticks([5000] * 60, [50] * 60), champion, Limits()) is None
    )  # nine tenths of a point, with all certainty
    assert judge(ticks([5000] * 60, [75] * 60), champion, Limits()) is not None
    assert judge(ticks([5000] * 60, [5] * 60, 22), champion, Limits()) is None  # two bins: 1.4 times as long
    slower = judge(ticks([5000] * 60, [5] * 60, 24), champion, Limits())  # four bins: twice
    assert slower is not None and slower.test == "median latency"


@pytest.mark.parametrize("margin", [0.0, 0.05])
def test_the_test_keeps_its_level_when_looked_at_all_the_time(margin: float) -> None:
    rng, runs, looks, alpha = np.random.default_rng(6), 2000, 200, 0.05
    n = np.full((runs, looks), 10)
    xb, xc = rng.binomial(n, 0.1).cumsum(axis=1), rng.binomial(n, 0.1 + margin).cumsum(axis=1)
    total = n.cumsum(axis=1)
    alarms = (log_e_value(xc, total, xb, total, margin) >= np.log(1 / alpha)).any(axis=1).mean()
    assert alarms <= alpha + 3 * np.sqrt(alpha / runs)
    worse = rng.binomial(n, 0.25 + margin).cumsum(axis=1)
    assert (log_e_value(worse, total, xb, total, margin) >= np.log(1 / alpha)).any(axis=1).mean() > 0.99


def test_it_is_an_e_value_its_mean_within_the_hypothesis_is_at_most_one() -> None:
    """Exactly: over every outcome of eight requests each."""
    x = np.arange(9)
    for p, margin in ((0.3, 0.0), (0.05, 0.1), (0.5, 0.2)):
        weights_b = np.array([comb(8, k) * p**k * (1 - p) ** (8 - k) for k in x])
        q = p + margin
        weights_c = np.array([comb(8, k) * q**k * (1 - q) ** (8 - k) for k in x])
        e = np.exp(log_e_value(x[:, None], 8.0, x[None, :], 8.0, margin))
        assert float((weights_c[:, None] * weights_b[None, :] * e).sum()) <= 1.0


def test_the_same_counts_in_one_piece_or_many_runs_are_judged_alike() -> None:
    """What the simulations look at, arrays of many canaries, is what the guard looks at, one canary."""
    rng, limits = np.random.default_rng(7), Limits()
    canary, champion = simulate(rng, 5, 40, Traffic(), extra_errors=0.05)
    like = profile(champion, limits)
    for run in range(5):
        one, other = (Ticks(part.requests[run], part.errors[run], part.latency[run]) for part in (canary, champion))
        alone = profile(other, limits)
        for test in like.edges:
            assert like.edges[test][run] == alone.edges[test]
            assert like.correlation[test][run] == pytest.approx(float(alone.correlation[test]))
        assert judge(one, other, limits) is not None
