"""The example's own statistics against scikit-learn's, and the laws a paired bootstrap obeys."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

LABELS = ["negative", "neutral", "positive"]
ROW = st.tuples(*[st.sampled_from(LABELS)] * 3, st.sampled_from("abcdef"))


@pytest.fixture(scope="module")
def scoring() -> Any:
    import importlib.util

    file = Path(__file__).resolve().parents[3] / "examples" / "comment_sentiment" / "scoring.py"
    spec = importlib.util.spec_from_file_location("example_scoring", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(ROW, min_size=1, max_size=40))
def test_macro_f1_is_scikit_learns(scoring: Any, rows: list[tuple[str, str, str, str]]) -> None:
    from sklearn.metrics import f1_score

    truth, answers = [row[0] for row in rows], [row[1] for row in rows]
    want = f1_score(truth, answers, labels=LABELS, average="macro", zero_division=0)
    assert scoring.macro_f1(truth, answers, LABELS) == pytest.approx(want)


@settings(max_examples=30, deadline=None)
@given(rows=st.lists(ROW, min_size=2, max_size=30))
def test_the_bootstrap_is_antisymmetric_and_nothing_beats_itself(scoring: Any, rows: list[Any]) -> None:
    truth, ours, theirs, documents = (list(column) for column in zip(*rows, strict=True))
    one = scoring.paired_bootstrap(truth, ours, theirs, documents, LABELS, rounds=60)
    other = scoring.paired_bootstrap(truth, theirs, ours, documents, LABELS, rounds=60)
    assert one.gain == pytest.approx(-other.gain)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
    same = scoring.paired_bootstrap(truth, ours, ours, documents, LABELS, rounds=10)
    assert (same.gain, same.low, same.high) == (0, 0, 0)


def test_documents_are_drawn_not_texts(scoring: Any) -> None:
    """A hundred copies of one text are one piece of evidence when they come from one document."""
    truth = ["positive", "negative"] * 100
    ours = ["positive", "negative"] * 90 + ["neutral"] * 20
    theirs = ["positive"] * 200
    alone = scoring.paired_bootstrap(truth, ours, theirs, [str(i) for i in range(200)], LABELS, rounds=300)
    grouped = scoring.paired_bootstrap(truth, ours, theirs, [str(i // 50) for i in range(200)], LABELS, rounds=300)
    assert grouped.gain == pytest.approx(alone.gain)
    assert grouped.high - grouped.low > alone.high - alone.low


def test_the_interval_covers_the_truth_about_as_often_as_it_says(scoring: Any) -> None:
    """Two classifiers equally good by construction: 0 lies inside 95 % intervals in about 95 of 100 draws."""
    draw = np.random.default_rng(0)
    inside = 0
    for _ in range(100):
        truth = draw.choice(LABELS, 300)
        ours, theirs = (np.where(draw.random(300) < 0.7, truth, draw.choice(LABELS, 300)) for _ in range(2))
        found = scoring.paired_bootstrap(truth, ours, theirs, np.arange(300), LABELS, rounds=200)
        inside += found.low <= 0 <= found.high
    assert inside >= 87, "four standard errors below 95"
