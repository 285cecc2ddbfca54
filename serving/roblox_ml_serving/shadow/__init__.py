"""How far a shadow's answer is from the primary's: pure, from two v2 answers to a few numbers per tensor."""

from __future__ import annotations

from .compare import Comparison, TensorDifference, compare_answers, compare_tensors
from .tensors import Tensor, Unreadable, read_answer
from .worst import Worst

__all__ = [
    "Comparison",
    "Tensor",
    "TensorDifference",
    "Unreadable",
    "Worst",
    "compare_answers",
    "compare_tensors",
    "read_answer",
]
