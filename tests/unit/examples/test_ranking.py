"""The recommender: its data is what it says, its graph is its model, its estimates are the control plane's."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from roblox_ml_platform.analysis import off_policy
from roblox_ml_serving.ranking.spec import FILE, RankingSpec
from roblox_ml_serving.ranking.stub import FeatureView

import roblox_ml as rml

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "ranking"
MODULES = ("features", "scorer", "evaluation", "recommender")
ROW = st.tuples(st.booleans(), st.floats(0, 30), st.floats(0, 1), st.floats(0, 1))


@pytest.fixture(scope="module")
def example() -> Iterator[Any]:
    """The modules under the names they have beside each other, for as long as this file runs."""
    sys.path.insert(0, str(EXAMPLE))
    try:
        yield SimpleNamespace(**{name: import_module(name) for name in MODULES})
    finally:
        sys.path.remove(str(EXAMPLE))
        for name in MODULES:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def log() -> pd.DataFrame:
    return pd.read_parquet(EXAMPLE / "data" / "log.parquet")


@pytest.fixture(scope="module")
def items() -> pd.DataFrame:
    return pd.read_parquet(EXAMPLE / "data" / "items.parquet")


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(ROW, min_size=2, max_size=30))
def test_the_estimates_are_those_of_the_control_plane(example: Any, rows: list[tuple[float, ...]]) -> None:
    reward, weight, taken, expected = np.array(rows, float).T
    weight[0] += 0.1
    ours, theirs = example.evaluation, off_policy
    for mine, other in (
        (ours.ips(reward, weight), theirs.ips(reward, weight)),
        (ours.snips(reward, weight), theirs.snips(reward, weight)),
        (
            ours.doubly_robust(reward, weight, taken, expected),
            theirs.doubly_robust(reward, weight, taken, expected),
        ),
    ):
        assert (mine.estimate, mine.low, mine.high) == pytest.approx((other.estimate, other.low, other.high), abs=1e-5)


def test_a_policy_shows_one_of_the_best_and_the_earlier_of_equal_ones(example: Any) -> None:
    chance = example.evaluation.best(np.array([[1.0, 3.0, 3.0, 2.0], [0.0, 0.0, 0.0, 0.0]]), 2)
    assert chance.tolist() == [[0, 0.5, 0.5, 0], [0.5, 0.5, 0, 0]]


def test_the_served_graph_is_the_model_that_was_judged(example: Any, log: pd.DataFrame, items: pd.DataFrame) -> None:
    import onnxruntime

    part = log.iloc[::7].reset_index(drop=True)
    rows = example.features.training_rows(part, items)
    model = example.scorer.fit(rows, part["click"])
    graph = onnxruntime.InferenceSession(example.scorer.to_onnx(model).SerializeToString())
    features, few, about = example.features, part.head(50), example.features.item_table(part, items)
    users, slots = features.user_table(few), features.slot_table(few)
    judged = example.scorer.chances(model, users, slots, about)
    every = [np.concatenate([users[u], about[i], slots[u]]) for u in range(len(few)) for i in range(features.ITEMS)]
    (scores,) = graph.run(None, {"X": np.array(every, np.float32)})
    assert np.abs(scores.reshape(judged.shape) - judged).max() < 1e-6
    assert len({tuple(order) for order in np.argsort(-judged, axis=1)[:, :5]}) > 1  # users do not all see the same


def test_an_impression_s_own_day_is_not_in_its_item_s_rate(
    example: Any, log: pd.DataFrame, items: pd.DataFrame
) -> None:
    changed = log.assign(click=np.where(log["day"] == 3, 1, log["click"]))
    before, after = (example.features.training_rows(one, items)[(log["day"] == 3).to_numpy()] for one in (log, changed))
    assert np.array_equal(before, after)


def test_the_steps_fit_each_other(example: Any, log: pd.DataFrame, items: pd.DataFrame) -> None:
    """Called outside a pipeline, a step is its function."""
    data = rml.Dataset()
    log.iloc[::5].reset_index(drop=True).to_parquet(data.path / "log.parquet")
    items.to_parquet(data.path / "items.parquet")
    served, ranker, judged = (
        step(data) for step in (example.recommender.tables, example.recommender.train, example.recommender.judge)
    )
    spec = RankingSpec.read((ranker.path / FILE).read_bytes())
    for view in spec.views:
        held = FeatureView.read(getattr(served, view.name).path / f"{view.name}.parquet")
        assert held.unknown(view.features) == []
    table = judged.table.to_pandas().set_index(["log", "policy"])
    # A policy judged from its own log is what it earned.
    assert table.loc[("random", "one of all (uniform)"), "IPS"] == table.loc[("random", "random, as it was"), "IPS"]
    assert judged.metrics["lift_low"] < judged.metrics["lift"] < judged.metrics["lift_high"]


@pytest.mark.needs_shared
def test_the_data_is_the_sample_s(shared: Path, log: pd.DataFrame, items: pd.DataFrame) -> None:
    sample = pd.read_parquet(shared / "data" / "obd_small.parquet")
    sample = sample[sample["campaign"] == "men"].reset_index(drop=True)
    for ours, theirs in {"item": "item_id", "slot": "position", "click": "click"}.items():
        assert np.array_equal(log[ours], sample[theirs])
    assert np.allclose(log["propensity"], sample["propensity_score"])
    assert list(log["policy"].astype(str)) == list(sample["policy"])
    assert np.array_equal(log["day"], sample["timestamp"].dt.dayofyear - sample["timestamp"].dt.dayofyear.min())
    context = pd.read_csv(shared / "data" / "obd_item_context_men.csv.gz")
    pairs = [(log[f"user_{n}"], sample[f"user_feature_{n}"]) for n in range(4)]
    pairs += [(items[f"kind_{n}"], context[f"item_feature_{n}"]) for n in range(1, 4)]
    for codes, values in pairs:
        assert len(set(zip(codes, values, strict=True))) == codes.nunique() == values.nunique()
    assert np.allclose(items["size"], context["item_feature_0"])
