"""What is counted on the text path. Labels hold only names the control plane gave."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from .batching import Batch

__all__ = ["BatchMeter", "Measures"]

_MODEL = ("model", "version")
_WAITS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 5, 30)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


class Measures:
    """The families, once per door process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.rows = Gauge("rml_door_text_queue_rows", "Texts that wait", _MODEL, registry=registry)
        self.correction = Gauge(
            "rml_door_text_cost_correction", "Measured time of a batch by the expected one", _MODEL, registry=registry
        )
        self.wait = Histogram(
            "rml_door_text_wait_seconds", "From coming due to being sent, of the row that waited longest", _MODEL,
            buckets=_WAITS, registry=registry,
        )  # fmt: skip
        self.batch_rows = Histogram(
            "rml_door_text_batch_rows", "Texts in a batch", _MODEL, buckets=_ROWS, registry=registry
        )
        self.tokens = Counter(
            "rml_door_text_tokens", "Tokens computed, by what they are: text or padding", (*_MODEL, "kind"), registry=registry
        )  # fmt: skip
        self.lost = Counter(
            "rml_door_text_batches_lost", "Batches that a model server did not answer", _MODEL, registry=registry
        )
        self.hits = Counter(
            "rml_door_text_cache_hits", "Texts answered from the cache", ("endpoint",), registry=registry
        )
        self.misses = Counter(
            "rml_door_text_cache_misses", "Texts the cache did not have", ("endpoint",), registry=registry
        )
        self.cached_bytes = Gauge(
            "rml_door_text_cache_bytes", "Bytes the cache counts", ("endpoint",), registry=registry
        )
        self.cached = Gauge("rml_door_text_cache_entries", "Answers in the cache", ("endpoint",), registry=registry)
        self.duplicates = Counter(
            "rml_door_text_duplicates", "Texts answered by an equal one of the same request", ("endpoint",), registry=registry
        )  # fmt: skip
        self.truncated = Counter(
            "rml_door_text_truncated", "Texts longer than the model reads", ("endpoint",), registry=registry
        )
        self.refused = Counter(
            "rml_door_text_refused", "Requests refused because of load, by reason", ("endpoint", "reason"), registry=registry
        )  # fmt: skip


class BatchMeter:
    """The counters of one model version, looked up once."""

    def __init__(self, measures: Measures, model: str, version: str) -> None:
        labels = (model, version)
        self._wait = measures.wait.labels(*labels)
        self._rows = measures.batch_rows.labels(*labels)
        self._text = measures.tokens.labels(*labels, "text")
        self._padding = measures.tokens.labels(*labels, "padding")
        self._lost = measures.lost.labels(*labels)

    def batch(self, batch: Batch, waited_s: float) -> None:
        self._wait.observe(max(waited_s, 0.0))
        self._rows.observe(len(batch.rows))
        self._text.inc(batch.tokens)
        self._padding.inc(batch.width * len(batch.rows) - batch.tokens)

    def lost(self) -> None:
        self._lost.inc()
