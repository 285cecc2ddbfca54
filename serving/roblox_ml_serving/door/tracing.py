"""Spans of inferences, where OpenTelemetry's own variables name a collector; without them a request pays one comparison.

`OTEL_EXPORTER_OTLP_ENDPOINT` (or `…_TRACES_ENDPOINT`) turns it on; sampler, service name and headers are OpenTelemetry's variables too. A
request's `traceparent` is its parent and decides whether it is sampled; the model server gets the door's span as its parent.
Export is a thread of the library's with a bounded queue: a collector that is away costs spans, never answers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["Span", "Tracing", "tracing_of"]

_PARENT = b"traceparent"
_SPEAKS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_SERVICE = "rml-door"
Header = tuple[bytes, bytes]


def tracing_of(environment: Mapping[str, str] | None = None) -> Tracing | None:
    """What the environment asks for; None: no traces."""
    found = os.environ if environment is None else environment
    if found.get("OTEL_SDK_DISABLED", "").lower() == "true" or not any(found.get(name) for name in _SPEAKS):
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    return Tracing(BatchSpanProcessor(OTLPSpanExporter()))


class Span:
    """One inference's span. `end` it once."""

    __slots__ = ("_span", "parent_of_upstream")

    def __init__(self, span: Any, parent_of_upstream: bytes) -> None:
        self._span = span
        self.parent_of_upstream = parent_of_upstream

    def headers(self, forward: Sequence[Header]) -> list[Header]:
        """What is passed on, with this span as the parent."""
        return [*(pair for pair in forward if pair[0] != _PARENT), (_PARENT, self.parent_of_upstream)]

    def end(
        self, *, endpoint: str, version: str, role: str, arms: str, code: str, failed: bool, fallback: bool
    ) -> None:
        """The request has its answer."""
        from opentelemetry.trace import StatusCode

        span = self._span
        if span.is_recording():
            span.set_attributes(
                {
                    "rml.endpoint": endpoint, "rml.model_version": version, "rml.role": role, "rml.arms": arms,
                    "rml.fallback": fallback, "rml.code": code,
                }
            )  # fmt: skip
            if failed:
                span.set_status(StatusCode.ERROR)
        span.end()


class Tracing:
    """Makes spans; `processor` is the library's, so that a test can look at what comes out."""

    def __init__(self, processor: Any) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.trace import SpanKind, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        named = Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME") or _SERVICE})
        self._provider = TracerProvider(resource=named, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("roblox_ml_serving.door")
        self._kind, self._within, self._propagator = (
            SpanKind.SERVER,
            set_span_in_context,
            TraceContextTextMapPropagator(),
        )

    def start(self, protocol: str, traceparent: str | None, inference_id: str) -> Span:
        """A span of an inference that has just come."""
        parent = self._propagator.extract({} if traceparent is None else {"traceparent": traceparent})
        attributes = {"rpc.system": protocol, "rml.inference_id": inference_id}
        span = self._tracer.start_span("infer", context=parent, kind=self._kind, attributes=attributes)
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, context=self._within(span))
        return Span(span, carrier["traceparent"].encode())

    def close(self) -> None:
        """Send what waits; blocks for as long as the library's time limits say."""
        self._provider.shutdown()
