"""The door's Prometheus metrics. Labels hold only names the control plane gave: never what a client typed."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from roblox_ml_core.telemetry import LATENCY_BUCKETS

__all__ = ["Meter", "Metrics"]

_LABELS = ("endpoint", "version", "protocol")


class Meter:
    """The counters of one (endpoint, version, protocol), looked up once and kept: label lookups cost microseconds."""

    __slots__ = ("_codes", "_labels", "_metrics", "in_flight", "latency")

    def __init__(self, metrics: Metrics, endpoint: str, version: str, protocol: str) -> None:
        self._metrics = metrics
        self._labels = (endpoint, version, protocol)
        self._codes: dict[str, Counter] = {}
        self.latency = metrics.latency.labels(*self._labels)
        self.in_flight = metrics.in_flight.labels(*self._labels)

    def done(self, code: str, seconds: float, *, failed: bool) -> None:
        counter = self._codes.get(code)
        if counter is None:
            counter = self._codes[code] = self._metrics.requests.labels(*self._labels, code)
        counter.inc()
        self.latency.observe(seconds)
        if failed:
            self._metrics.errors.labels(*self._labels).inc()


class Metrics:
    """One registry per door process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "rml_door_requests", "Inference requests answered, by status", (*_LABELS, "code"), registry=self.registry
        )
        self.errors = Counter(
            "rml_door_errors",
            "Inference requests that failed (not the client's fault)",
            _LABELS,
            registry=self.registry,
        )
        self.latency = Histogram(
            "rml_door_latency_seconds", "From the whole request to the whole answer", _LABELS,
            buckets=LATENCY_BUCKETS, registry=self.registry,
        )  # fmt: skip
        self.in_flight = Gauge("rml_door_in_flight", "Inference requests under way", _LABELS, registry=self.registry)
        self.retries = Counter(
            "rml_door_retries", "Second attempts after a lost server", ("protocol",), registry=self.registry
        )
        self.generation = Gauge(
            "rml_door_snapshot_generation", "Generation of the snapshot in use", registry=self.registry
        )
        self.age = Gauge(
            "rml_door_snapshot_age_seconds",
            "Since the control plane last confirmed the snapshot",
            registry=self.registry,
        )
        self._meters: dict[tuple[str, str, str], Meter] = {}

    def meter(self, endpoint: str, version: str, protocol: str) -> Meter:
        """The meter of an endpoint's version; use an empty endpoint for requests that name none that exists."""
        key = (endpoint, version, protocol)
        found = self._meters.get(key)
        if found is None:
            found = self._meters[key] = Meter(self, endpoint, version, protocol)
        return found
