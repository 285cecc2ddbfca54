"""How the example judges a classifier: macro-F1, and a paired bootstrap of the difference between two classifiers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Difference", "macro_f1", "paired_bootstrap"]


@dataclass(frozen=True, slots=True)
class Difference:
    """How much better one classifier is than another, in macro-F1, with a 95 % interval."""

    gain: float
    low: float
    high: float


def macro_f1(truth: Sequence[str], answers: Sequence[str], labels: Sequence[str]) -> float:
    """The mean over `labels` of F1 = 2·TP / (2·TP + FP + FN)."""
    counts = _counts(truth, answers, labels, np.zeros(len(truth), dtype=int))
    return float(_macro_f1(counts.sum(axis=0)))


def paired_bootstrap(
    truth: Sequence[str],
    ours: Sequence[str],
    theirs: Sequence[str],
    documents: Sequence[str],
    labels: Sequence[str],
    *,
    rounds: int = 2000,
    seed: int = 0,
) -> Difference:
    """macro-F1 of `ours` minus `theirs`, on the same resampled documents (Efron & Tibshirani 1993, percentile interval).

    Documents are drawn, not texts: the sentences of one review stand or fall together.
    """
    _, group = np.unique(np.asarray(documents), return_inverse=True)
    size = int(group.max()) + 1
    our_counts, their_counts = (_counts(truth, answers, labels, group) for answers in (ours, theirs))
    draw = np.random.default_rng(seed)
    differences = []
    for _ in range(rounds):
        weights = np.bincount(draw.integers(0, size, size), minlength=size)
        differences.append(
            _macro_f1(np.tensordot(weights, our_counts, 1)) - _macro_f1(np.tensordot(weights, their_counts, 1))
        )
    low, high = np.quantile(differences, [0.025, 0.975])
    gain = _macro_f1(our_counts.sum(axis=0)) - _macro_f1(their_counts.sum(axis=0))
    return Difference(float(gain), float(low), float(high))


def _counts(truth: Sequence[str], answers: Sequence[str], labels: Sequence[str], group: Any) -> Any:
    """Per group and label: true positives, and 2·TP + FP + FN (how often the label was true plus how often it was said)."""
    right, said = np.asarray(truth), np.asarray(answers)
    counts = np.zeros((int(group.max()) + 1 if len(group) else 1, 2, len(labels)))
    for column, label in enumerate(labels):
        np.add.at(counts[:, 0, column], group, (right == label) & (said == label))
        np.add.at(counts[:, 1, column], group, (right == label).astype(int) + (said == label))
    return counts


def _macro_f1(counts: Any) -> Any:
    hits, total = counts
    return (2 * hits / np.maximum(total, 1)).mean()
