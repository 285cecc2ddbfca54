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

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "ranking"
MODULES = ("features", "scorer", "evaluation")
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
    about = example.features.item_table(part, items)
    few = part.head(50)
    asked = example.features.pairs(example.features.user_table(few), about, few["slot"].to_numpy())
    (scores,) = graph.run(None, {"X": asked.reshape(-1, rows.shape[1]).astype(np.float32)})
    judged = example.scorer.predict(model, asked)
    assert np.abs(scores.reshape(judged.shape) - judged).max() < 1e-6
    assert len({tuple(order) for order in np.argsort(-judged, axis=1)[:, :5]}) > 1  # users do not all see the same


def test_an_impression_s_own_day_is_not_in_its_item_s_rate(
    example: Any, log: pd.DataFrame, items: pd.DataFrame
) -> None:
    changed = log.assign(click=np.where(log["day"] == 3, 1, log["click"]))
    before, after = (example.features.training_rows(one, items)[(log["day"] == 3).to_numpy()] for one in (log, changed))
    assert np.array_equal(before, after)


def test_pairs_have_the_columns_of_the_training_rows(example: Any, log: pd.DataFrame, items: pd.DataFrame) -> None:
    day = log[log["day"] == 0].reset_index(drop=True)
    rows = example.features.training_rows(pd.concat([log[log["day"] > 0], day]), items)[-len(day) :]
    about = example.features.item_table(log[log["day"] > 0], items)
    every = example.features.pairs(example.features.user_table(day), about, day["slot"].to_numpy())
    assert np.array_equal(every[np.arange(len(day)), day["item"]], rows)


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
