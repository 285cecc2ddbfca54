"""What is lost: F1 as scikit-learn counts it, intervals that know what they do not know, calibration, entities."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from roblox_ml_serving.text.optimize import judge
from sklearn.metrics import f1_score

LABELS = 3


@st.composite
def answered(draw: Any) -> tuple[list[int], list[int]]:
    """Truth and answers of some texts; every class is true somewhere."""
    classes = st.integers(0, LABELS - 1)
    truth = [*range(LABELS), *draw(st.lists(classes, min_size=1, max_size=40))]
    return truth, draw(st.lists(classes, min_size=len(truth), max_size=len(truth)))


@settings(deadline=None)
@given(answered())
def test_macro_f1_is_that_of_scikit_learn(pair: tuple[list[int], list[int]]) -> None:
    truth, said = pair
    expected = f1_score(truth, said, average="macro", labels=range(LABELS), zero_division=0)
    assert judge.f1(judge.counts_of_labels(truth, said, LABELS)) == pytest.approx(expected)


SPANS = st.sets(st.tuples(st.integers(0, 3), st.integers(4, 6), st.sampled_from(["PER", "LOC"])), max_size=4)


@given(st.lists(st.tuples(SPANS, SPANS), min_size=1, max_size=10))
def test_entity_f1_is_micro_f1_of_exact_entities(rows: list[tuple[Any, Any]]) -> None:
    found = judge.f1(judge.counts_of_entities([true for true, _ in rows], [said for _, said in rows]))
    right = sum(len(true & said) for true, said in rows)
    true, said = sum(len(t) for t, _ in rows), sum(len(s) for _, s in rows)
    precision, recall = right / max(said, 1), right / max(true, 1)
    harmonic = 2 * precision * recall / (precision + recall) if right else 0.0
    assert found == pytest.approx(harmonic)


@settings(deadline=None, max_examples=6)
@given(answered(), st.integers(0, 5))
def test_a_model_loses_nothing_against_itself(pair: tuple[list[int], list[int]], seed: int) -> None:
    counts = judge.counts_of_labels(*pair, LABELS)
    lost = judge.drop(counts, counts, seed=seed)
    assert (lost.drop, lost.low, lost.high) == (0.0, 0.0, 0.0)


@settings(deadline=None, max_examples=6)
@given(answered(), st.integers(0, 5))
def test_the_order_of_the_rivals_only_turns_the_sign(pair: tuple[list[int], list[int]], seed: int) -> None:
    truth, said = pair
    one, other = judge.counts_of_labels(truth, truth, LABELS), judge.counts_of_labels(truth, said, LABELS)
    there, back = judge.drop(one, other, seed=seed), judge.drop(other, one, seed=seed)
    assert (there.drop, there.low, there.high) == pytest.approx((-back.drop, -back.high, -back.low))
    assert there.low <= there.high
    assert there.drop >= 0  # the first one knows the truth


def test_pairing_makes_the_interval_narrow() -> None:
    """Two models that err on the same texts differ surely; as much F1 lost on other texts each is uncertain."""
    draw = np.random.default_rng(7)
    truth = draw.integers(0, LABELS, 400)
    one = np.where(draw.random(400) < 0.3, (truth + 1) % LABELS, truth)
    wrong, right = np.flatnonzero(one != truth), np.flatnonzero(one == truth)
    same = one.copy()
    same[right[:4]] = (truth[right[:4]] + 1) % LABELS
    other = same.copy()  # as many mistakes, but 60 of them elsewhere
    other[wrong[:60]], other[right[10:70]] = truth[wrong[:60]], (truth[right[10:70]] + 1) % LABELS
    widths = []
    for rival in (same, other):
        lost = judge.drop(judge.counts_of_labels(truth, one, LABELS), judge.counts_of_labels(truth, rival, LABELS))
        assert lost.low <= lost.drop <= lost.high
        widths.append(lost.high - lost.low)
    assert widths[0] < widths[1] / 2


def test_calibration_error_is_the_gap_between_confidence_and_truth() -> None:
    scores = np.tile([0.8, 0.1, 0.1], (100, 1))
    assert judge.ece(scores, [0] * 80 + [1] * 20) == pytest.approx(0.0)
    assert judge.ece(scores, [0] * 50 + [1] * 50) == pytest.approx(0.3)
    assert judge.ece(np.eye(3)[[0, 1, 2]], [0, 1, 2]) == pytest.approx(0.0)  # sure and right: the last bin is closed


def test_true_entities_are_read_as_tuples_and_as_answers() -> None:
    answers = [{"entity": "PER", "start": 0, "end": 3, "text": "Ada", "score": 0.9}]
    assert judge.spans(answers) == judge.spans([(0, 3, "PER")]) == [(0, 3, "PER")]
