"""What is counted on the ranking path. Labels hold only names that packages and the control plane gave."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

__all__ = ["Measures"]

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2)
_SIZES = (1, 10, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)


class Measures:
    """The families, once per door process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.rows = Counter(
            "rml_door_ranking_rows", "Rows of features needed, by where they came from: cache, fetched, shared "
            "(with another request that was fetching them), and how many of these no server answered",
            ("view", "source"), registry=registry,
        )  # fmt: skip
        self.failed = Counter(
            "rml_door_ranking_fetches_failed", "Requests to the feature server that brought nothing, by reason (view: one view)",
            ("reason",), registry=registry,
        )  # fmt: skip
        self.fetch = Histogram(
            "rml_door_ranking_fetch_seconds", "One request to the feature server", buckets=_SECONDS, registry=registry
        )
        self.defaulted = Counter(
            "rml_door_ranking_defaulted", "Values that were defaults, by reason: missing, stale, not_finite, or unanswered",
            ("endpoint", "feature", "reason"), registry=registry,
        )  # fmt: skip
        self.values = Counter(
            "rml_door_ranking_values",
            "Values of features that requests needed: a user's once, an item's per candidate",
            ("endpoint",),
            registry=registry,
        )
        self.candidates = Histogram(
            "rml_door_ranking_candidates", "Different candidates of a request", ("endpoint",), buckets=_SIZES, registry=registry
        )  # fmt: skip
        self.unscored = Counter(
            "rml_door_ranking_unscored", "Candidates left out because the model's score was no number", ("endpoint",),
            registry=registry,
        )  # fmt: skip
        self.refused = Counter(
            "rml_door_ranking_refused", "Requests refused because a required view did not come", ("endpoint", "view"),
            registry=registry,
        )  # fmt: skip
        self.bad_params = Counter(
            "rml_door_ranking_bad_params", "Requests whose arm gave a k that is none; the package's was used", ("endpoint",),
            registry=registry,
        )  # fmt: skip
        self.cached = Gauge("rml_door_ranking_cache_rows", "Rows in the cache", registry=registry)
        self.cached_bytes = Gauge("rml_door_ranking_cache_bytes", "Bytes the cache counts", registry=registry)
