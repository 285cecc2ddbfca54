"""The door's Prometheus metrics. Labels hold only names the control plane gave: never what a client typed.

What is counted on every request is counted in plain integers and turned into metrics when somebody scrapes: a counter object of the
library costs more per request than deciding who answers it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import log2
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

__all__ = ["BINS", "Meter", "Metrics", "bin_of"]

#: Bins of latency: four an octave from 100 µs, so that a doubling moves everything by four bins. The last one is open.
BINS = 64
_LABELS = ("endpoint", "version", "protocol", "role")


def bin_of(seconds: float) -> int:
    """The bin of a latency: `4 log2(µs / 100)`, within 0 and 63."""
    scaled = seconds * 1e4
    return 0 if scaled <= 1.0 else min(BINS - 1, int(4.0 * log2(scaled)))


def upper_bound(bin: int) -> float:
    """Seconds at which a bin ends."""
    return float(1e-4 * 2.0 ** ((bin + 1) / 4))


class Meter:
    """The counts of one (endpoint, version, protocol, role, experiment, arm) since the door began."""

    __slots__ = (
        "arm", "bins", "codes", "endpoint", "errors", "experiment", "in_flight", "protocol", "requests", "role", "seconds",
        "version",
    )  # fmt: skip

    def __init__(self, endpoint: str, version: str, protocol: str, role: str, experiment: str, arm: str) -> None:
        self.endpoint, self.version, self.protocol = endpoint, version, protocol
        self.role, self.experiment, self.arm = role, experiment, arm
        self.codes: dict[str, int] = {}
        self.bins = [0] * BINS
        self.requests = self.errors = self.in_flight = 0
        self.seconds = 0.0

    def done(self, code: str, seconds: float, *, failed: bool) -> None:
        """One request has ended."""
        self.codes[code] = self.codes.get(code, 0) + 1
        self.requests += 1
        self.seconds += seconds
        self.bins[bin_of(seconds)] += 1
        if failed:
            self.errors += 1


class Metrics:
    """One registry per door process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.retries = Counter(
            "rml_door_retries", "Second attempts after a lost server", ("protocol",), registry=self.registry
        )
        self.fallbacks = Counter(
            "rml_door_fallbacks", "Requests of a challenger that the champion answered", ("endpoint", "version"),
            registry=self.registry,
        )  # fmt: skip
        self.turned_away = Counter(
            "rml_door_tokens_turned_away", "Signed tokens not verified because too many unknown ones came",
            registry=self.registry,
        )  # fmt: skip
        self.generation = Gauge(
            "rml_door_snapshot_generation", "Generation of the snapshot in use", registry=self.registry
        )
        self.age = Gauge(
            "rml_door_snapshot_age_seconds",
            "Since the control plane last confirmed the snapshot",
            registry=self.registry,
        )
        self._meters: dict[tuple[str, str, str, str, str, str], Meter] = {}
        self.registry.register(_Requests(self._meters.values))

    def meter(
        self, endpoint: str, version: str, protocol: str, role: str = "champion", chosen: tuple[str, str] = ("", "")
    ) -> Meter:
        """The meter of what answers; `chosen` is the experiment and arm that chose the version, where one did."""
        key = (endpoint, version, protocol, role, *chosen)
        found = self._meters.get(key)
        if found is None:
            found = self._meters[key] = Meter(*key)
        return found

    def counts(self) -> list[dict[str, Any]]:
        """Cumulative counts by endpoint, version and role, both protocols together: what a guard compares."""
        found: dict[tuple[str, ...], dict[str, Any]] = {}
        for meter in self._meters.values():
            key = (meter.endpoint, meter.version, meter.role, meter.experiment, meter.arm)
            entry = found.setdefault(
                key,
                {
                    "endpoint": meter.endpoint, "version": meter.version, "role": meter.role, "experiment": meter.experiment,
                    "arm": meter.arm, "requests": 0, "errors": 0, "latency": [0] * BINS,
                },
            )  # fmt: skip
            entry["requests"] += meter.requests
            entry["errors"] += meter.errors
            entry["latency"] = [a + b for a, b in zip(entry["latency"], meter.bins, strict=True)]
        return list(found.values())


class _Requests:
    """The meters as Prometheus families."""

    def __init__(self, meters: Callable[[], Iterable[Meter]]) -> None:
        self._meters = meters

    def collect(self) -> Iterable[Any]:
        requests = CounterMetricFamily(
            "rml_door_requests", "Inference requests answered, by status", labels=(*_LABELS, "code")
        )
        errors = CounterMetricFamily(
            "rml_door_errors", "Inference requests that failed (not the client's fault)", labels=_LABELS
        )
        latency = HistogramMetricFamily(
            "rml_door_latency_seconds", "From the whole request to the whole answer", labels=_LABELS
        )
        under_way = GaugeMetricFamily("rml_door_in_flight", "Inference requests under way", labels=_LABELS)
        for labels, meters in self._by_labels().items():
            codes: dict[str, int] = {}
            bins, seconds = [0] * BINS, 0.0
            for meter in meters:
                for code, count in meter.codes.items():
                    codes[code] = codes.get(code, 0) + count
                bins = [a + b for a, b in zip(bins, meter.bins, strict=True)]
                seconds += meter.seconds
            for code, count in sorted(codes.items()):
                requests.add_metric([*labels, code], count)
            errors.add_metric(labels, sum(meter.errors for meter in meters))
            under_way.add_metric(labels, sum(meter.in_flight for meter in meters))
            latency.add_metric(labels, _cumulative(bins), seconds)
        yield from (requests, errors, latency, under_way)

    def _by_labels(self) -> dict[tuple[str, ...], list[Meter]]:
        found: dict[tuple[str, ...], list[Meter]] = {}
        for meter in self._meters():
            found.setdefault((meter.endpoint, meter.version, meter.protocol, meter.role), []).append(meter)
        return found


def _cumulative(bins: list[int]) -> list[tuple[str, float]]:
    """Prometheus buckets, one an octave."""
    buckets: list[tuple[str, float]] = []
    total = 0
    for number, count in enumerate(bins):
        total += count
        if number == BINS - 1:
            buckets.append(("+Inf", float(total)))
        elif number % 4 == 3:
            buckets.append((f"{upper_bound(number):.6g}", float(total)))
    return buckets
