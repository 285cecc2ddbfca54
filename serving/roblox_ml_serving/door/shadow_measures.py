"""What became of the questions to each shadow, and how far its answers are from the primary's, as counters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from ..shadow import Comparison

__all__ = ["Tally", "families"]


class Tally:
    """One shadow of one endpoint since the door began: `offered = sum(codes) + sum(dropped) + pending`."""

    __slots__ = (
        "codes", "distance", "dropped", "endpoint", "flips", "mismatches", "offered", "pending", "primary_us", "rows", "shadow",
        "shadow_us",
    )  # fmt: skip

    def __init__(self, endpoint: str, shadow: str) -> None:
        self.endpoint, self.shadow = endpoint, shadow
        self.offered = self.pending = 0
        self.codes: dict[str, int] = {}
        self.dropped: dict[str, int] = {}
        self.rows = self.flips = self.mismatches = self.primary_us = self.shadow_us = 0
        self.distance = 0.0

    def drop(self, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1

    def done(self, code: str, primary_us: int, shadow_us: int, comparison: Comparison) -> None:
        """One question was asked; code "ok": and its answer compared."""
        self.codes[code] = self.codes.get(code, 0) + 1
        if code == "ok":
            self.primary_us += primary_us
            self.shadow_us += shadow_us
            self.rows += comparison.rows
            self.flips += comparison.flips
            self.mismatches += comparison.mismatches
            self.distance += comparison.distance


def families(tallies: Sequence[Tally]) -> list[Any]:
    """The tallies as Prometheus families."""

    def counter(name: str, text: str, *labels: str) -> Any:
        return CounterMetricFamily(f"rml_shadow_{name}", text, labels=("endpoint", "shadow", *labels))

    offered = counter("offered", "Questions for a shadow")
    asked = counter("answers", "Questions asked, by how they ended", "code")
    dropped = counter("dropped", "Questions that were not asked", "reason")
    rows = counter("rows", "Rows of answers compared")
    flips = counter("flips", "Rows whose label is another one than the primary's")
    mismatches = counter("mismatches", "Tensors of another name, type or shape")
    distance = counter("distance", "Sum of distances between 0 (the same) and 1")
    primary = counter("primary_seconds", "Time the primary took for what was compared")
    shadow = counter("seconds", "Time the shadow took for what was compared")
    pending = GaugeMetricFamily("rml_shadow_pending", "Questions that wait or run", labels=("endpoint", "shadow"))
    for one in tallies:
        labels = (one.endpoint, one.shadow)
        for family, value in (
            (offered, one.offered), (rows, one.rows), (flips, one.flips), (mismatches, one.mismatches),
            (distance, one.distance), (primary, one.primary_us / 1e6), (shadow, one.shadow_us / 1e6), (pending, one.pending),
        ):  # fmt: skip
            family.add_metric(labels, value)
        for code, count in one.codes.items():
            asked.add_metric((*labels, code), count)
        for reason, count in one.dropped.items():
            dropped.add_metric((*labels, reason), count)
    return [offered, asked, dropped, rows, flips, mismatches, distance, primary, shadow, pending]
