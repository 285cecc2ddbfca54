"""Confidence sequences: what they promise under peeking, and that they find what is there."""

from __future__ import annotations

import numpy as np
import pytest
from roblox_ml_platform.analysis import power, sequences
from roblox_ml_platform.analysis.estimates import difference, mean
from roblox_ml_platform.analysis.moments import Moments
from roblox_ml_platform.analysis.special import log_beta, log_gamma, normal_quantile

ALPHA, PEEK = 0.05, 100


def simulated(
    rng: np.random.Generator, runs: int, peeks: int, every: int, lift: float, *, skewed: bool = False
) -> Moments:
    """Running sums at each peek: users come one by one and get either arm by a coin; arrays (runs, peeks, 2)."""
    shape = (runs, peeks, 2)
    n, a, aa = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for peek in range(peeks):
        arm = rng.random((runs, every)) < 0.5
        value = rng.exponential(1.0, (runs, every)) if skewed else rng.standard_normal((runs, every)) + 1.0
        value = value + lift * arm
        for number, inside in enumerate((~arm, arm)):
            n[:, peek, number] = inside.sum(axis=1)
            a[:, peek, number] = (value * inside).sum(axis=1)
            aa[:, peek, number] = (value**2 * inside).sum(axis=1)
    n, a, aa = (np.cumsum(part, axis=1) for part in (n, a, aa))
    nothing = np.zeros(shape)
    return Moments(n, a, aa, nothing, nothing, nothing)


@pytest.mark.parametrize("skewed", [False, True])
def test_looking_after_every_hundred_users_does_not_raise_false_alarms(skewed: bool) -> None:
    runs = 2000 if not skewed else 1000
    sums = simulated(np.random.default_rng(7), runs, 60, PEEK, 0.0, skewed=skewed)
    found = difference(mean(sums[..., 1]), mean(sums[..., 0]))
    width = sequences.half_width(found.units, found.variance, ALPHA, sequences.rho_for(5000, ALPHA))
    alarms = int((np.abs(found.value) > width).any(axis=1).sum())
    tolerance = 3 * np.sqrt(ALPHA * (1 - ALPHA) * runs)
    assert alarms <= ALPHA * runs + tolerance
    # The same looks with an ordinary interval: what the sequence is there for.
    naive = int((np.abs(found.value) > 1.96 * np.sqrt(found.variance)).any(axis=1).sum())
    assert naive > 4 * ALPHA * runs


def test_a_one_sided_bound_keeps_its_promise_too() -> None:
    runs = 2000
    sums = simulated(np.random.default_rng(8), runs, 60, PEEK, 0.0)
    found = difference(mean(sums[..., 1]), mean(sums[..., 0]))
    rho = sequences.rho_for(5000, ALPHA, one_sided=True)
    reach = sequences.half_width_one_sided(found.units, found.variance, ALPHA, rho)
    alarms = int((found.value - reach > 0).any(axis=1).sum())
    assert alarms <= ALPHA * runs + 3 * np.sqrt(ALPHA * (1 - ALPHA) * runs)
    assert (reach <= sequences.half_width(found.units, found.variance, ALPHA, rho)).all()


def test_two_percent_lift_is_found_by_twice_the_fixed_sample() -> None:
    fixed = power.fixed_horizon(0.02, 1.0, alpha=ALPHA, power=0.8)
    assert fixed == pytest.approx(78_489, abs=2)
    # Sums of many users at once: by the central limit theorem they are normal, and 400 experiments fit into a second.
    rng, runs, peeks = np.random.default_rng(9), 400, 200
    every = 2 * fixed // peeks
    n = np.cumsum(rng.binomial(every, 0.5, (runs, peeks)), axis=1)
    counts = np.stack([every * np.arange(1, peeks + 1) - n, n], axis=-1).astype(float)
    steps = np.diff(counts, axis=1, prepend=0)
    truth = np.array([1.0, 1.02])
    a = np.cumsum(steps * truth + np.sqrt(steps) * rng.standard_normal(steps.shape), axis=1)
    spread = counts - 1 + np.sqrt(2 * counts) * rng.standard_normal(counts.shape)  # Σ(x − x̄)² is χ²
    sums = Moments(counts, a, spread + a**2 / counts, *(np.zeros_like(a),) * 3)
    found = difference(mean(sums[..., 1]), mean(sums[..., 0]))
    width = sequences.half_width(found.units, found.variance, ALPHA, sequences.rho_for(2 * fixed, ALPHA))
    power_now = float((found.value > width).any(axis=1).mean())
    assert power_now >= 0.8
    assert power.sequential(0.02, 1.0, alpha=ALPHA, power=0.8) <= 2 * fixed


def test_the_e_value_says_what_the_interval_says() -> None:
    rng = np.random.default_rng(10)
    rho = sequences.rho_for(2000, ALPHA)
    estimate, units = rng.normal(0, 0.2, 500), rng.integers(10, 10_000, 500)
    variance = 1.0 / units * rng.uniform(0.5, 2, 500)
    outside = np.abs(estimate) > sequences.half_width(units, variance, ALPHA, rho)
    assert (outside == (sequences.e_value(estimate, units, variance, rho) > 1 / ALPHA)).all()
    assert 0 < outside.sum() < 500


def test_rho_makes_the_interval_narrow_where_it_was_planned() -> None:
    planned = np.array([500.0, 5_000.0, 50_000.0])
    widths = [sequences.half_width(planned, 1 / planned, ALPHA, sequences.rho_for(units, ALPHA)) for units in planned]
    assert (np.argmin(widths, axis=0) == np.arange(3)).all()
    with pytest.raises(ValueError, match="planned"):
        sequences.rho_for(0, ALPHA)


def test_gamma_beta_and_quantiles_are_the_textbook_s() -> None:
    from math import lgamma

    x = np.concatenate([np.geomspace(1e-3, 900, 50), np.geomspace(1000, 1e9, 30)])
    assert np.allclose(log_gamma(x), [lgamma(one) for one in x], rtol=1e-12, atol=1e-11)
    assert float(np.exp(log_beta(2.0, 3.0))) == pytest.approx(1 / 12)
    assert normal_quantile(0.975) == pytest.approx(1.959964, abs=1e-6)


def test_planning_says_more_units_for_less_effect() -> None:
    sizes = [power.sequential(effect, 1.0) for effect in (0.05, 0.1, 0.2)]
    assert sizes == sorted(sizes, reverse=True)
    assert power.sequential(0.1, 1.0) < power.sequential(0.1, 1.0, planned=100)
    assert power.fixed_horizon(0.1, 1.0) < power.fixed_horizon(0.1, 1.0, share=0.1)
