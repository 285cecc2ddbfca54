"""Optimise a text classifier for CPUs: the quickest engine that loses nothing, and the proof.

    found = optimize(Source(checkpoint=folder, labels=labels, max_length=64), texts, truth)
    found.plan, found.folder / "model", found.report

Runs in a step's environment as well: nothing of the platform or the SDK is imported here.
"""

from __future__ import annotations

from .optimizing import Result, optimize
from .plain import write_plain
from .source import OptimizeError, Source

__all__ = ["OptimizeError", "Result", "Source", "optimize", "write_plain"]
