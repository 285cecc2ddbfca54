"""Delta method and CUPED against simulation; e-BH; the moments' algebra."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from roblox_ml_platform.analysis import estimates
from roblox_ml_platform.analysis.moments import Moments
from roblox_ml_platform.analysis.multiplicity import bonferroni, e_bh

_VALUES = arrays(float, 40, elements=st.floats(-1e3, 1e3, allow_nan=False, width=32))


@given(_VALUES, _VALUES, arrays(int, 40, elements=st.integers(0, 2)), st.integers(0, 40))
@settings(max_examples=60, deadline=None)
def test_moments_of_parts_add_up_to_the_moments_of_the_whole(a, b, arm, cut) -> None:
    whole = Moments.of(arm, 3, a, b)
    parts = Moments.of(arm[:cut], 3, a[:cut], b[:cut]) + Moments.of(arm[cut:], 3, a[cut:], b[cut:])
    for name in ("n", "a", "aa", "b", "bb", "ab"):
        assert np.allclose(getattr(whole, name), getattr(parts, name), rtol=1e-9, atol=1e-6)
    for number in range(3):
        mine = a[arm == number]
        if len(mine) > 1:
            assert np.isclose(whole.var_a[number], mine.var(ddof=1), rtol=1e-6, atol=1e-4)
            assert np.isclose(whole.cov[number], np.cov(mine, b[arm == number])[0, 1], rtol=1e-6, atol=1e-3)


def simulated(seed: int, runs: int, units: int, rate: float) -> Moments:
    """Clicks over views, where views differ between units and clicks hang on them: (runs,) moments of one arm."""
    rng = np.random.default_rng(seed)
    views = rng.poisson(rng.gamma(2.0, 3.0, (runs, units)))
    own = np.clip(rng.normal(rate, 0.08, (runs, units)), 0.01, 0.99)
    clicks = rng.binomial(views, own).astype(float)
    views = views.astype(float)
    total = [part.sum(axis=1) for part in (clicks, clicks**2, views, views**2, clicks * views)]
    return Moments(np.full(runs, float(units)), *total)


def test_the_delta_method_s_variance_of_a_ratio_is_the_simulated_one() -> None:
    found = estimates.ratio(simulated(1, 3000, 400, 0.2))
    assert found.value.mean() == pytest.approx(0.2, abs=0.002)
    assert np.sqrt(found.variance.mean()) == pytest.approx(found.value.std(ddof=1), rel=0.06)
    naive = 0.2 * 0.8 / (400 * 6)  # as if every view were independent
    assert found.variance.mean() > 1.2 * naive


def test_the_relative_lift_s_interval_covers() -> None:
    control, treatment = estimates.ratio(simulated(2, 3000, 400, 0.2)), estimates.ratio(simulated(3, 3000, 400, 0.23))
    lift = estimates.relative(treatment, control)
    truth = treatment.value.mean() / control.value.mean() - 1
    inside = np.abs(lift.value - truth) <= 1.96 * np.sqrt(lift.variance)
    assert inside.mean() == pytest.approx(0.95, abs=0.015)


def test_a_lift_over_nothing_is_no_number() -> None:
    control, treatment = estimates.Estimate(0.001, 1.0, 100), estimates.Estimate(2.0, 1.0, 100)
    assert np.isnan(estimates.relative(treatment, control).value)


def test_cuped_narrows_by_what_the_covariate_explains_and_stays_unbiased() -> None:
    rng, runs, units, r = np.random.default_rng(4), 2000, 300, 0.8
    estimated, plain, variances, reductions = [], [], [], []
    for _ in range(runs):
        before = rng.standard_normal((2, units))
        value = r * before + np.sqrt(1 - r**2) * rng.standard_normal((2, units)) + np.array([[1.0], [1.1]])
        sums = Moments.of(np.repeat([0, 1], units), 2, value.ravel(), before.ravel())
        coefficient, centre = estimates.theta(sums), sums.b.sum() / sums.n.sum()
        both = [estimates.adjusted(sums[arm], coefficient, centre) for arm in (1, 0)]
        found = estimates.difference(*both)
        estimated.append(found.value)
        variances.append(found.variance)
        plain.append(value[1].mean() - value[0].mean())
        reductions.append(estimates.variance_reduction(sums))
    assert np.mean(estimated) == pytest.approx(0.1, abs=0.005)
    assert np.var(estimated) / np.var(plain) == pytest.approx(1 - r**2, abs=0.06)
    assert np.mean(variances) == pytest.approx(np.var(estimated), rel=0.1)
    assert np.mean(reductions) == pytest.approx(r**2, abs=0.02)


def test_a_covariate_that_says_nothing_changes_nothing() -> None:
    sums = Moments.of(np.array([0, 0, 1, 1]), 2, np.array([1.0, 2.0, 3.0, 4.0]))
    assert (float(estimates.theta(sums)), float(estimates.variance_reduction(sums))) == (0.0, 0.0)


def test_e_bh_keeps_the_false_discovery_rate_under_dependence() -> None:
    assert bonferroni(0.05, 4) == 0.0125
    assert e_bh([100.0, 1.0, 30.0, 0.2], 0.05) == [True, False, False, False]
    assert e_bh([100.0, 45.0, 30.0, 0.2], 0.05) == [True, True, True, False]
    assert e_bh([], 0.05) == []
    rng, shares = np.random.default_rng(5), []
    for _ in range(2000):  # eight nulls that move together, two effects
        z = 0.7 * rng.standard_normal() + 0.714 * rng.standard_normal(10)
        z[:2] += 6
        chosen = e_bh(list(np.exp(2 * z - 2)), 0.05)
        shares.append(sum(chosen[2:]) / max(1, sum(chosen)))
    assert np.mean(shares) <= 0.05
