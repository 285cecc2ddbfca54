"""Off-policy estimates: against simulation with known truth, and on the Open Bandit sample against what the other policy really earned."""

from __future__ import annotations

from math import sqrt
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from roblox_ml_platform.analysis.off_policy import doubly_robust, effective_size, ips, snips


def logged(seed: int, rows: int) -> tuple[np.ndarray, ...]:
    """One log of three actions in two contexts: reward, weight towards a policy that is better, and model's values."""
    rng = np.random.default_rng(seed)
    context, behaviour = rng.integers(0, 2, rows), np.array([[0.6, 0.3, 0.1], [0.2, 0.3, 0.5]])
    target = np.array([[0.1, 0.2, 0.7], [0.7, 0.2, 0.1]])
    truth = np.array([[0.1, 0.3, 0.6], [0.5, 0.3, 0.1]])
    action = (rng.random((rows, 1)) > behaviour[context].cumsum(axis=1)).sum(axis=1)
    reward = (rng.random(rows) < truth[context, action]).astype(float)
    weight = target[context, action] / behaviour[context, action]
    model = truth + np.array([[0.1, -0.1, 0.05], [-0.1, 0.05, 0.1]])  # not quite right
    return reward, weight, model[context, action], (model[context] * target[context]).sum(axis=1)


def test_each_estimator_covers_the_truth_as_often_as_it_says() -> None:
    truth = 0.5 * (0.1 * 0.1 + 0.2 * 0.3 + 0.7 * 0.6) + 0.5 * (0.7 * 0.5 + 0.2 * 0.3 + 0.1 * 0.1)
    covered, errors = np.zeros(3), np.zeros(3)
    for seed in range(600):
        reward, weight, taken, expected = logged(seed, 500)
        found = (ips(reward, weight), snips(reward, weight), doubly_robust(reward, weight, taken, expected))
        covered += [one.covers(truth) for one in found]
        errors += [(one.estimate - truth) ** 2 for one in found]
    assert (np.abs(covered / 600 - 0.95) <= 0.03).all()
    assert errors[2] < errors[0], "a model that is nearly right helps"
    assert 0 < effective_size(logged(0, 500)[1]) < 500


def test_a_policy_that_does_the_same_earns_the_same() -> None:
    reward = np.array([0.0, 1.0, 1.0, 0.0])
    for estimate in (ips, snips):
        assert estimate(reward, np.ones(4)).estimate == 0.5
    assert effective_size(np.ones(4)) == 4


@pytest.mark.parametrize("weight", [[1.0, np.inf], [1.0, -1.0], [np.nan, 1.0]])
def test_a_missing_propensity_is_refused(weight: list[float]) -> None:
    with pytest.raises(ValueError, match="propensity"):
        ips([0.0, 1.0], weight)
    with pytest.raises(ValueError, match="zero"):
        snips([0.0, 1.0], [0.0, 0.0])


@pytest.mark.needs_shared
@pytest.mark.parametrize("campaign", ["all", "men", "women"])
@pytest.mark.parametrize(("log", "other"), [("bts", "random"), ("random", "bts")])
def test_open_bandit_estimates_cover_what_the_other_policy_really_earned(
    shared: Path, campaign: str, log: str, other: str
) -> None:
    """Each policy's log says what the other would have earned; the other's own clicks say what it did earn.

    The uniform policy's probabilities are known. Thompson sampling's are taken from its log: the mean propensity at (item, position)
    of an impression is Σp²/Σp, so its frequencies are counted instead.
    """
    columns = ["policy", "campaign", "item_id", "position", "click", "propensity_score"]
    table = pq.read_table(shared / "data" / "obd_small.parquet", columns=columns)
    table = table.filter(pc.equal(table["campaign"], campaign))

    def rows(policy: str) -> dict[str, np.ndarray]:
        part = table.filter(pc.equal(table["policy"], policy))
        return {name: part[name].to_numpy() for name in columns[2:]}

    here, there = rows(log), rows(other)
    items = int(table["item_id"].to_numpy().max()) + 1
    if other == "random":
        probability = np.full(len(here["click"]), 1.0 / items)
        assert np.allclose(there["propensity_score"], 1.0 / items, atol=1e-6)
    else:
        shown = np.zeros((items, 4))
        np.add.at(shown, (there["item_id"], there["position"]), 1)
        shown /= shown.sum(axis=0).clip(1)
        probability = shown[here["item_id"], here["position"]]
    weight = probability / here["propensity_score"]
    earned = there["click"].mean()
    noise = earned * (1 - earned) / len(there["click"])  # what it earned is a sample too
    for estimate in (ips(here["click"], weight), snips(here["click"], weight)):
        reach = 1.96 * sqrt(estimate.standard_error**2 + noise)
        assert abs(estimate.estimate - earned) <= reach, (campaign, estimate, earned)


def test_columns_that_do_not_fit_are_refused_and_a_policy_that_never_does_what_was_logged_is_worth_no_row() -> None:
    for reward, weight in (([], []), ([1.0], [1.0]), ([1.0, 0.0], [1.0, 2.0, 3.0]), ([[1.0], [0.0]], [1.0, 2.0])):
        for estimate in (ips, snips):
            with pytest.raises(ValueError, match="one number for each"):
                estimate(reward, weight)
    with pytest.raises(ValueError, match="one number for each"):
        doubly_robust([1.0, 0.0], [1.0, 1.0], [0.5], [0.5, 0.5])
    assert effective_size([0.0, 0.0]) == 0.0
    assert effective_size([1.0, 1.0, 0.0]) == 2.0
