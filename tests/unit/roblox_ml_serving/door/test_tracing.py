"""Spans, as a collector gets them: a real exporter, the real protocol, a receiver that decodes it."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from roblox_ml_serving.door.tracing import tracing_of

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def spans_of(collector: Any) -> list[Any]:
    found = []
    for request in collector.requests:
        assert (request.method, request.target) == ("POST", "/v1/traces")
        for resource in ExportTraceServiceRequest.FromString(request.body).resource_spans:
            named = {one.key: one.value.string_value for one in resource.resource.attributes}
            assert named["service.name"] == "rml-door"
            found += [span for scope in resource.scope_spans for span in scope.spans]
    return found


def attributes(span: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, str(one.value.WhichOneof("value"))) for one in span.attributes}


def test_an_inference_has_a_span_between_its_caller_s_and_the_model_server_s(
    with_world: Any, kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def receive(request: Any) -> Any:
        return 200, {"content-type": "application/x-protobuf"}, ExportTraceServiceResponse().SerializeToString()

    async def scenario(world: Any) -> None:
        upstream = []
        for parent in (f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00", None):
            headers = {} if parent is None else {"traceparent": parent}
            answer = await world.client.post(
                f"{world.url}/v2/models/sentiment/infer",
                json={"inputs": []},
                headers=headers | {"x-rml-inference-id": "i-1"},
            )
            assert answer.status_code == 200
            upstream.append(world.triton.requests[-1].headers["traceparent"].split("-"))
        world.triton.answer = lambda request: (500, {}, b'{"error":"said by the model"}')
        assert (await world.infer(document={"inputs": []})).status_code == 500
        message = kit.v2.ModelInferRequest(model_name="sentiment")
        async with grpc.aio.insecure_channel(world.grpc_address) as channel:
            ask = channel.unary_unary(
                "/inference.GRPCInferenceService/ModelInfer",
                type(message).SerializeToString,
                kit.v2.ModelInferResponse.FromString,
            )
            await ask(message, metadata=[("traceparent", f"00-{TRACE}-{PARENT}-01")])
        world.upstream = upstream
        worlds.append(world)

    worlds: list[Any] = []
    collected = with_collector(with_world, kit, monkeypatch, receive, scenario)
    (sampled, unsampled, rootless) = worlds[0].upstream
    assert (sampled[1], sampled[3], unsampled[1], unsampled[3]) == (TRACE, "01", TRACE, "00")
    assert PARENT not in (sampled[2], unsampled[2]) and rootless[1] != TRACE
    spans = spans_of(collected)
    mine = [span for span in spans if span.trace_id.hex() == TRACE]
    assert [span.parent_span_id.hex() for span in mine] == [PARENT, PARENT], (
        "what the caller does not sample is not sent"
    )
    assert mine[0].span_id.hex() == sampled[2]
    assert attributes(mine[0]) == {
        "rpc.system": "http", "rml.inference_id": "i-1", "rml.endpoint": "sentiment", "rml.model_version": "3",
        "rml.role": "champion", "rml.arms": "", "rml.fallback": False, "rml.code": "200",
    }  # fmt: skip
    assert attributes(mine[1])["rpc.system"] == "grpc" and attributes(mine[1])["rml.code"] == "OK"
    failed = [span for span in spans if span.status.code == 2]
    assert [attributes(span)["rml.code"] for span in failed] == ["500"]


def with_collector(with_world: Any, kit: Any, monkeypatch: pytest.MonkeyPatch, receive: Any, scenario: Any) -> Any:
    """The scenario with a collector that outlives the door, which sends what waits when it ends."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    collector = asyncio.run_coroutine_threadsafe(kit.HttpStub(receive).start(), loop).result(10)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{collector.address}")
    try:
        with_world(scenario)
    finally:
        asyncio.run_coroutine_threadsafe(collector.stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
    return collector


def test_without_a_collector_there_is_nothing() -> None:
    assert tracing_of({}) is None
    assert tracing_of({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}) is None
    assert tracing_of({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "True"}) is None
