"""The gRPC door, asked with the protocol's own messages."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from tritonclient.grpc import service_pb2 as v2

PREFIX = "/inference.GRPCInferenceService/"


def raw_call(channel, method: str):
    return channel.unary_unary(PREFIX + method)


async def infer(world, message, *, metadata=(), timeout: float = 10):
    payload = message if isinstance(message, bytes) else message.SerializeToString()
    async with grpc.aio.insecure_channel(world.grpc_address) as channel:
        call = raw_call(channel, "ModelInfer")(payload, metadata=metadata, timeout=timeout)
        answer = await call
        return v2.ModelInferResponse.FromString(answer), dict(await call.trailing_metadata())


async def failure(world, message, **arguments) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await infer(world, message, **arguments)
    return caught.value.code().name, caught.value.details()


REQUEST = v2.ModelInferRequest(model_name="sentiment", id="i", raw_input_contents=[b"\x00\xff" * 500])


def test_an_inference_reaches_the_models_version_and_comes_back_under_the_endpoints_name(with_world) -> None:
    async def scenario(world) -> None:
        answer, trailing = await infer(world, REQUEST, metadata=[("x-rml-inference-id", "mine")])
        assert (answer.model_name, answer.model_version, answer.id) == ("sentiment", "3", "i")
        assert answer.raw_output_contents == REQUEST.raw_input_contents
        assert (trailing["x-rml-inference-id"], trailing["x-rml-model-version"]) == ("mine", "3")
        assert (world.grpc.requests[-1].model_name, world.grpc.requests[-1].model_version) == ("sentiment.3", "3")
        _, trailing = await infer(world, REQUEST)
        assert len(trailing["x-rml-inference-id"]) == 36

    with_world(scenario)


@pytest.mark.parametrize(
    ("message", "code", "words"),
    [
        (v2.ModelInferRequest(model_name="sentimnt"), "NOT_FOUND", "did you mean 'sentiment'"),
        (v2.ModelInferRequest(), "NOT_FOUND", "no endpoint is called ''"),
        (v2.ModelInferRequest(model_name="sentiment", model_version="3"), "INVALID_ARGUMENT", "Leave the version out"),
        (b"\x0a\x50abc", "INVALID_ARGUMENT", "not a valid protobuf message"),
        (b"\xff" * 40, "INVALID_ARGUMENT", "not a valid protobuf message"),
    ],
)
def test_refusals(with_world, message, code: str, words: str) -> None:
    async def scenario(world) -> None:
        got, details = await failure(world, message)
        assert (got, words in details) == (code, True)
        assert world.grpc.requests == []
        assert (await infer(world, REQUEST))[0].model_name == "sentiment"

    with_world(scenario)


def test_the_models_own_status_passes(with_world) -> None:
    async def scenario(world) -> None:
        world.grpc.answer = lambda request: grpc.StatusCode.INVALID_ARGUMENT
        assert await failure(world, REQUEST) == ("INVALID_ARGUMENT", "said by the model server")
        world.grpc.answer = lambda request: grpc.StatusCode.INTERNAL
        assert (await failure(world, REQUEST))[0] == "INTERNAL"
        assert len(world.grpc.requests) == 2  # never asked twice for what the model refuses

    with_world(scenario)


def test_a_server_without_the_model_is_asked_once_more_then_the_client_is_told(with_world) -> None:
    async def scenario(world) -> None:
        answers = [grpc.StatusCode.NOT_FOUND]
        world.grpc.answer = lambda request: answers.pop() if answers else world.grpc.identity(request)
        assert (await infer(world, REQUEST))[0].model_name == "sentiment"
        world.grpc.answer = lambda request: grpc.StatusCode.UNAVAILABLE
        code, details = await failure(world, REQUEST)
        assert (code, "asked twice" in details) == ("UNAVAILABLE", True)
        await world.grpc.stop()
        code, details = await failure(world, REQUEST)
        assert (code, "asked twice" in details) == ("UNAVAILABLE", True)

    with_world(scenario)


def test_deadlines_of_the_call_the_metadata_and_the_settings(with_world) -> None:
    async def scenario(world) -> None:
        async def slow(request):
            await asyncio.sleep(30)

        world.grpc.answer = slow
        assert (await failure(world, REQUEST, timeout=0.1))[0] == "DEADLINE_EXCEEDED"
        assert (await failure(world, REQUEST, metadata=[("x-rml-timeout-ms", "50")]))[0] == "DEADLINE_EXCEEDED"
        assert "before the deadline" in (await failure(world, REQUEST))[1]
        assert (await failure(world, REQUEST, metadata=[("x-rml-timeout-ms", "soon")]))[0] == "INVALID_ARGUMENT"
        assert (await failure(world, REQUEST, metadata=[("x-rml-inference-id", "a b")]))[0] == "INVALID_ARGUMENT"

    with_world(scenario, deadline_s=0.2)


def test_a_client_that_hangs_up_is_not_an_error_of_the_door(with_world) -> None:
    async def scenario(world) -> None:
        asked = asyncio.Event()

        async def never(request):
            asked.set()
            await asyncio.Event().wait()

        world.grpc.answer = never
        async with grpc.aio.insecure_channel(world.grpc_address) as channel:
            call = raw_call(channel, "ModelInfer")(REQUEST.SerializeToString())
            await asked.wait()
            call.cancel()
        label = 'endpoint="sentiment",protocol="grpc",role="champion",version="3"'
        while f'code="CANCELLED",{label}}} 1.0' not in (text := (await world.client.get(f"{world.url}/metrics")).text):
            await asyncio.sleep(0.005)
        assert f'rml_door_requests_total{{code="CANCELLED",{label}}} 1.0' in text
        assert f"rml_door_errors_total{{{label}}} 0.0" in text

    with_world(scenario)


def test_a_message_over_the_limit_is_refused(with_world) -> None:
    async def scenario(world) -> None:
        big = v2.ModelInferRequest(model_name="sentiment", raw_input_contents=[b"x" * 20_000])
        assert (await failure(world, big))[0] == "RESOURCE_EXHAUSTED"

    with_world(scenario, max_body_bytes=10_000)


def test_a_broken_answer_is_the_servers_fault(with_world) -> None:
    async def scenario(world) -> None:
        world.grpc.answer = lambda request: b"\x0a\x50abc"
        code, details = await failure(world, REQUEST)
        assert (code, "broken message" in details) == ("INTERNAL", True)

    with_world(scenario)


def test_health_readiness_and_metadata(with_world, kit) -> None:
    async def scenario(world) -> None:
        async with grpc.aio.insecure_channel(world.grpc_address) as channel:

            async def ask(method: str, request, response_type):
                return response_type.FromString(await raw_call(channel, method)(request.SerializeToString()))

            assert (await ask("ServerLive", v2.ServerLiveRequest(), v2.ServerLiveResponse)).live
            assert (await ask("ServerReady", v2.ServerReadyRequest(), v2.ServerReadyResponse)).ready
            assert (
                await ask("ServerMetadata", v2.ServerMetadataRequest(), v2.ServerMetadataResponse)
            ).name == "roblox-ml-door"
            assert (await ask("ModelReady", v2.ModelReadyRequest(name="sentiment"), v2.ModelReadyResponse)).ready
            described = await ask("ModelMetadata", v2.ModelMetadataRequest(name="sentiment"), v2.ModelMetadataResponse)
            assert (described.name, list(described.versions), described.platform) == ("sentiment", ["3"], "python")
            with pytest.raises(grpc.aio.AioRpcError) as versioned:
                await ask("ModelReady", v2.ModelReadyRequest(name="sentiment", version="3"), v2.ModelReadyResponse)
            assert versioned.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            with pytest.raises(grpc.aio.AioRpcError) as unsupported:
                await ask(
                    "RepositoryModelLoad", v2.RepositoryModelLoadRequest(model_name="x"), v2.RepositoryModelLoadResponse
                )
            assert unsupported.value.code() is grpc.StatusCode.UNIMPLEMENTED
            assert "deploying" in unsupported.value.details()
            await world.publish({"sentiment": kit.endpoint("sentiment", 4)}, world.servers(local={}))
            assert not (await ask("ModelReady", v2.ModelReadyRequest(name="sentiment"), v2.ModelReadyResponse)).ready

    with_world(scenario)


def test_a_stream_answers_each_request_in_order_and_survives_a_bad_one(with_world) -> None:
    async def scenario(world) -> None:
        requests = [
            v2.ModelInferRequest(model_name=name, id=str(n))
            for n, name in enumerate(["sentiment", "nobody", "sentiment"])
        ]
        async with grpc.aio.insecure_channel(world.grpc_address) as channel:
            stream = channel.stream_stream(PREFIX + "ModelStreamInfer")(
                iter([*(r.SerializeToString() for r in requests), b"\xff"])
            )
            answers = [v2.ModelStreamInferResponse.FromString(raw) async for raw in stream]
        assert [answer.infer_response.id for answer in answers] == ["0", "", "2", ""]
        assert answers[0].infer_response.model_name == "sentiment"
        assert "no endpoint is called 'nobody'" in answers[1].error_message
        assert answers[3].error_message

    with_world(scenario)
