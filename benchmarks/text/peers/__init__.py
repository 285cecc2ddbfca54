"""Other servers of text classifiers, with the same weights and the same texts, through the same load generator."""

from __future__ import annotations

from .compare import compare, measure

__all__ = ["compare", "measure"]
