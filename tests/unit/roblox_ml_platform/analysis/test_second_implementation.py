"""The formulas once more, from their definitions and by other means: integrals, enumeration, plain loops."""

from __future__ import annotations

from math import comb, exp, lgamma, log, sqrt

import numpy as np
import pytest
from roblox_ml_platform.analysis import estimates, sample_ratio, sequences
from roblox_ml_platform.analysis.moments import Moments
from roblox_ml_platform.analysis.off_policy import snips
from roblox_ml_platform.guarding.proportions import log_e_value


def mixed(total: float, units: float, rho: float, *, one_sided: bool = False) -> float:
    """The mixture martingale ∫ exp(λ S − t λ²/2) dN(0, ρ²)(λ), S the sum of standardised units; or over the half of λ > 0."""
    reach = 12 * max(rho, 1 / sqrt(units))
    slope = np.linspace(0.0 if one_sided else -reach, reach, 400_001)
    density = np.exp(-0.5 * (slope / rho) ** 2) / (rho * sqrt(2 * np.pi)) * (2 if one_sided else 1)
    return float(np.trapezoid(np.exp(slope * total - units * slope**2 / 2) * density, slope))


@pytest.mark.parametrize("units", [50, 2_000, 300_000])
@pytest.mark.parametrize("alpha", [0.05, 0.004])
def test_the_interval_ends_where_the_mixture_is_one_over_alpha(units: int, alpha: float) -> None:
    rho, sigma = sequences.rho_for(5_000, alpha), 3.0
    # Theorem 2.2 with σ²/t for the sampling variance: the sum of standardised units at the interval's end.
    paper = sigma * sqrt(2 * (units * rho**2 + 1) / (units**2 * rho**2) * log(sqrt(units * rho**2 + 1) / alpha))
    width = float(sequences.half_width(units, sigma**2 / units, alpha, rho))
    assert width == pytest.approx(paper, rel=1e-12)
    assert mixed(width * units / sigma, units, rho) == pytest.approx(1 / alpha, rel=1e-6)
    e = float(sequences.e_value(width, units, sigma**2 / units, rho))
    assert e == pytest.approx(1 / alpha, rel=1e-9)
    # One-sided: the paper's bound is never narrower than the half-normal mixture it is made from, and close to it.
    reach = float(sequences.half_width_one_sided(units, sigma**2 / units, alpha, rho))
    level = mixed(reach * units / sigma, units, rho, one_sided=True) * alpha
    assert 1 <= level < 1.2 and reach < width


def test_rho_is_close_to_the_best_there_is() -> None:
    for alpha, planned in ((0.05, 1_000.0), (0.01, 100_000.0)):
        grid = sequences.rho_for(planned, alpha) * np.geomspace(0.1, 10, 2_001)
        widths = [float(sequences.half_width(planned, 1 / planned, alpha, rho)) for rho in grid]
        chosen = float(sequences.half_width(planned, 1 / planned, alpha, sequences.rho_for(planned, alpha)))
        assert chosen <= min(widths) * 1.001


def test_the_delta_method_is_the_variance_of_its_influence_function() -> None:
    rng = np.random.default_rng(1)
    below = rng.gamma(2.0, 3.0, 500)
    above = 0.3 * below + rng.normal(0, 1, 500)
    for sign in (1, -1):  # a denominator may be negative
        arm = Moments.of(np.zeros(500, int), 1, above, sign * below)
        found = estimates.ratio(arm)
        ratio = above.sum() / (sign * below).sum()
        influence = (above - ratio * sign * below) / (sign * below).mean()
        assert float(found.value[0]) == pytest.approx(ratio)
        assert float(found.variance[0]) == pytest.approx(influence.var(ddof=1) / 500)
    other = estimates.Estimate(2.0, 0.01, 100)
    lift, step = estimates.relative(estimates.Estimate(2.5, 0.02, 100), other), 1e-6
    by_treatment = (2.5 + step) / 2.0 - 2.5 / 2.0
    by_control = 2.5 / (2.0 + step) - 2.5 / 2.0
    assert float(lift.variance) == pytest.approx((0.02 * by_treatment**2 + 0.01 * by_control**2) / step**2, rel=1e-4)


def test_cuped_is_the_regression_of_what_was_measured_on_what_was_before() -> None:
    rng = np.random.default_rng(2)
    arm, before = np.repeat([0, 1], 300), rng.normal(5, 2, 600)
    value = 0.7 * before + 0.4 * arm + rng.normal(0, 1, 600)
    design = np.column_stack([np.ones(600), arm, before])
    fitted = np.linalg.lstsq(design, value, rcond=None)[0]
    sums = Moments.of(arm, 2, value, before)
    assert float(estimates.theta(sums)) == pytest.approx(fitted[2])
    each = [estimates.adjusted(sums[one], estimates.theta(sums), before.mean()) for one in (1, 0)]
    found = estimates.difference(*each)
    assert float(found.value) == pytest.approx(fitted[1])
    residual = [(value - fitted[2] * before)[arm == one].var(ddof=1) / 300 for one in (0, 1)]
    assert float(found.variance) == pytest.approx(sum(residual))


def test_the_sample_ratio_s_e_value_is_a_product_of_predictions() -> None:
    shares, strength = np.array([0.5, 0.3, 0.2]), 40.0
    counts, value = np.zeros(3), 0.0
    for arm in np.random.default_rng(3).integers(0, 3, 400):  # Pólya's urn against the intended share, unit by unit
        value += log((strength * shares[arm] + counts[arm]) / (strength + counts.sum()) / shares[arm])
        counts[arm] += 1
        assert float(sample_ratio.log_e_value(counts, shares, strength)) == pytest.approx(value, abs=1e-9)
    with pytest.raises(ValueError, match="nobody"):
        sample_ratio.log_e_value([1, 2], [1.0, 0.0])


def test_the_guard_s_e_value_is_the_smallest_over_its_hypothesis() -> None:
    def plain(x: float, n: float, p: float) -> float:
        mixture = lgamma(0.5 + x) + lgamma(0.5 + n - x) - lgamma(1 + n) - 2 * lgamma(0.5) + lgamma(1.0)
        return mixture - x * log(p) - (n - x) * log(1 - p)

    for margin in (0.0, 0.01, 0.2):
        for xc, nc, xb, nb in ((30, 60, 5, 100), (12.5, 20.25, 3.5, 80.75), (9, 9, 0, 50)):
            grid = [
                plain(xc, nc, c) + plain(xb, nb, b)
                for b in np.linspace(1e-4, 0.999, 500)
                for c in np.minimum(b + margin, 1 - 1e-4) * np.array([0.2, 0.5, 0.8, 0.95, 1.0])
            ]
            found = float(log_e_value(xc, nc, xb, nb, margin))
            assert found <= min(grid) + 1e-9 and found == pytest.approx(min(grid), abs=0.05)
    assert float(log_e_value(5, 50, 5, 50, 0.0)) == -np.inf == float(log_e_value(5, 0, 5, 50))


def test_the_guard_s_e_value_has_a_mean_of_at_most_one_by_enumeration() -> None:
    n, b, margin = 12, 0.2, 0.1
    mean = 0.0
    for xc in range(n + 1):
        for xb in range(n + 1):
            chance = comb(n, xc) * (b + margin) ** xc * (1 - b - margin) ** (n - xc)
            chance *= comb(n, xb) * b**xb * (1 - b) ** (n - xb)
            mean += chance * exp(float(log_e_value(xc, n, xb, n, margin)))
    assert 0 < mean <= 1


def test_snips_and_the_ratio_of_sums_agree() -> None:
    rng = np.random.default_rng(4)
    weight, reward = rng.gamma(1.0, 1.0, 400), rng.random(400)
    found = snips(reward, weight)
    ratio = estimates.ratio(Moments.of(np.zeros(400, int), 1, weight * reward, weight))
    assert found.estimate == pytest.approx(float(ratio.value[0]))
    assert found.standard_error**2 == pytest.approx(float(ratio.variance[0]), rel=0.01)


def test_units_that_all_came_at_once_and_go_on_bringing_events_raise_few_alarms() -> None:
    """Not what the theorem is about: the number of units stands still, and their sums wander."""
    rng, runs, looks, planned = np.random.default_rng(5), 4000, 40, 10_000
    walk = np.cumsum(rng.standard_normal((runs, looks)), axis=1) / np.sqrt(np.arange(1, looks + 1))
    for units in (planned // 10, planned, 10 * planned):
        reach = float(sequences.half_width(units, 1.0, 0.05, sequences.rho_for(planned, 0.05)))
        assert (np.abs(walk) > reach).any(axis=1).mean() <= 0.05
