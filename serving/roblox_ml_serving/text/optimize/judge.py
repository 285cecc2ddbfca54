"""How much a quantised model loses: F1, calibration, agreement, and how sure one can be of it.

Everything is counted per text first, so that one resampling of texts serves both models alike (paired bootstrap, Efron & Tibshirani
1993, percentile interval). Classifiers of texts: macro-F1. Token classifiers: micro-F1 of exact entities, as CoNLL-2003 counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...backends import rml_text_heads as heads

__all__ = ["Drop", "counts_of_entities", "counts_of_labels", "drop", "ece", "entities_of", "f1", "spans"]

_BINS = 15
_ROUNDS = 1000


@dataclass(frozen=True, slots=True)
class Drop:
    """How much F1 is lost against the reference, with a 95 % interval; negative where it is gained."""

    drop: float
    low: float
    high: float


def counts_of_labels(truth: Sequence[int], answers: Sequence[int], labels: int) -> Any:
    """[texts, 2, labels]: was it right (true positives); how often the label was true plus how often it was said."""
    right, said = np.asarray(truth), np.asarray(answers)
    classes = np.arange(labels)
    true, told = right[:, None] == classes, said[:, None] == classes
    return np.stack([true & told, true.astype(np.int64) + told], axis=1).astype(np.float64)


def counts_of_entities(truth: Sequence[Iterable[Any]], answers: Sequence[Iterable[Any]]) -> Any:
    """[texts, 2, 1]: entities found exactly, and entities there plus entities said."""
    rows = [(set(true), set(said)) for true, said in zip(truth, answers, strict=True)]
    return np.array([[[len(true & said)], [len(true) + len(said)]] for true, said in rows], dtype=np.float64)


def f1(counts: Any) -> float:
    """The mean over labels of 2·TP / (times true + times said)."""
    return float(_f1(counts.sum(axis=0)))


def drop(reference: Any, counts: Any, *, seed: int = 0) -> Drop:
    """F1 of `reference` minus that of `counts`, both [texts, 2, labels] of the same texts."""
    texts = len(reference)
    draw = np.random.default_rng(seed)
    found = []
    for _ in range(_ROUNDS):
        weights = np.bincount(draw.integers(0, texts, texts), minlength=texts)
        found.append(_f1(np.tensordot(weights, reference, 1)) - _f1(np.tensordot(weights, counts, 1)))
    low, high = np.quantile(found, [0.025, 0.975])
    return Drop(f1(reference) - f1(counts), float(low), float(high))


def ece(scores: Any, truth: Sequence[int]) -> float:
    """Expected calibration error (Guo et al. 2017): |confidence − accuracy|, 15 bins of confidence, weighted by size."""
    confidence, right = scores.max(axis=1), scores.argmax(axis=1) == np.asarray(truth)
    place = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    gaps = [
        abs(confidence[place == k].mean() - right[place == k].mean()) * (place == k).mean()
        for k in range(_BINS)
        if (place == k).any()
    ]
    return float(sum(gaps))


def entities_of(
    logits: Sequence[Any], offsets: Sequence[Any], texts: Sequence[str], labels: Sequence[str]
) -> list[list[tuple[int, int, str]]]:
    """What a server answers, as (start, end, kind)."""
    return [
        [(int(e["start"]), int(e["end"]), str(e["entity"])) for e in heads.entities(rows, places, text, labels)]
        for rows, places, text in zip(logits, offsets, texts, strict=True)
    ]


def spans(truth: Iterable[Any]) -> list[tuple[int, int, str]]:
    """True entities of one text, given as (start, end, kind) or as the server's answers."""
    return [
        (int(e["start"]), int(e["end"]), str(e["entity"]))
        if isinstance(e, Mapping)
        else (int(e[0]), int(e[1]), str(e[2]))
        for e in truth
    ]


def _f1(summed: Any) -> Any:
    hits, total = summed
    return (2 * hits / np.maximum(total, 1)).mean()
