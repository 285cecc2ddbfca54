"""How alike two orders are: share of the top in common, and Spearman's correlation of ranks."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["overlap", "spearman"]


def spearman(a: Any, b: Any) -> float | None:
    """Spearman's rank correlation of two vectors, ties at their mean rank; None where one of them is constant."""
    x, y = _ranks(a), _ranks(b)
    x, y = x - x.mean(), y - y.mean()
    size = float(np.sqrt((x @ x) * (y @ y)))
    return None if size == 0.0 else float(np.clip((x @ y) / size, -1.0, 1.0))


def overlap(a: Any, b: Any, k: int) -> float:
    """The share of the k largest of `a` that are among the k largest of `b`; of equal ones the first counts."""
    k = min(k, len(a))
    top = np.argsort(-np.asarray(a), kind="stable")[:k]
    other = np.argsort(-np.asarray(b), kind="stable")[:k]
    return len(np.intersect1d(top, other)) / k if k else 1.0


def _ranks(values: Any) -> Any:
    _, inverse, counts = np.unique(np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2.0)[inverse]
