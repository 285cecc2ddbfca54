"""The sequential sample-ratio test: healthy splits are left alone however often one looks, a half-point fault is found."""

from __future__ import annotations

import numpy as np
import pytest
from roblox_ml_platform.analysis.sample_ratio import log_e_value

ALPHA = 0.05


def counts(seed: int, runs: int, share: float, until: int, every: int = 1000) -> np.ndarray:
    steps = np.random.default_rng(seed).binomial(every, share, (runs, until // every)).cumsum(axis=1)
    total = every * np.arange(1, until // every + 1)
    return np.stack([steps, total - steps], axis=-1)


def test_healthy_splits_are_not_flagged_beyond_alpha() -> None:
    flagged = (log_e_value(counts(1, 1000, 0.5, 150_000), [0.5, 0.5]) >= np.log(1 / ALPHA)).any(axis=1)
    assert flagged.sum() <= ALPHA * 1000 + 3 * np.sqrt(ALPHA * (1 - ALPHA) * 1000)


def test_half_a_point_is_found_by_150_000_exposures() -> None:
    faults = counts(2, 1000, 0.505, 150_000)
    found = (log_e_value(faults, [0.5, 0.5]) >= np.log(1 / ALPHA)).any(axis=1)
    assert found.mean() >= 0.8
    # The expected counts themselves: the evidence of the fault without any luck.
    assert log_e_value([75_750, 74_250], [0.5, 0.5]) >= np.log(1 / ALPHA)


def test_many_arms_and_unequal_shares() -> None:
    shares = np.array([0.7, 0.2, 0.1])
    rng = np.random.default_rng(3)
    healthy = rng.multinomial(1000, shares, (300, 100)).cumsum(axis=1)
    assert (log_e_value(healthy, shares) >= np.log(1 / ALPHA)).any(axis=1).mean() <= ALPHA + 0.04
    faulty = rng.multinomial(1000, [0.69, 0.2, 0.11], (300, 100)).cumsum(axis=1)
    assert (log_e_value(faulty, shares) >= np.log(1 / ALPHA)).any(axis=1).mean() > 0.95
    with pytest.raises(ValueError, match="nobody"):
        log_e_value([10, 10], [1.0, 0.0])


def test_it_is_an_e_value_its_mean_under_the_null_is_one() -> None:
    """Exactly: summed over every outcome of twelve units, weighted with its probability."""
    from math import comb

    shares = np.array([0.3, 0.7])
    outcomes = np.array([[k, 12 - k] for k in range(13)])
    weights = np.array([comb(12, k) * 0.3**k * 0.7 ** (12 - k) for k in range(13)])
    assert float((weights * np.exp(log_e_value(outcomes, shares, 5.0))).sum()) == pytest.approx(1.0, abs=1e-9)
