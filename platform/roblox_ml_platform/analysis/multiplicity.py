"""Several metrics and arms at once.

Benjamini and Hochberg's procedure on p-values is not valid when somebody looks again and again and stops on what is seen. So primary
metrics share the error budget (Bonferroni: every comparison at α over their number), and the others are judged by the e-BH procedure,
which needs only e-values, at any time and under any dependence (Wang & Ramdas 2022, JRSS-B 84, "False discovery rate
control with e-values").
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["bonferroni", "e_bh"]


def bonferroni(alpha: float, comparisons: int) -> float:
    """The level of each of so many comparisons."""
    return alpha / max(1, comparisons)


def e_bh(e_values: Sequence[float], alpha: float) -> list[bool]:
    """Which hypotheses are rejected: the k largest, k the greatest number for which the k-th largest e-value is at least K/(α k)."""
    order = sorted(range(len(e_values)), key=lambda index: -e_values[index])
    largest = 0
    for rank, index in enumerate(order, start=1):
        if e_values[index] >= len(e_values) / (alpha * rank):
            largest = rank
    chosen = set(order[:largest])
    return [index in chosen for index in range(len(e_values))]
