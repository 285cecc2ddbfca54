"""The REST door: what passes, what is renamed, what is refused and how."""

from __future__ import annotations

import asyncio
import gzip
import json

import pytest

LABELS = 'endpoint="sentiment",protocol="rest",role="champion",version="3"'


def test_an_inference_is_answered_under_the_endpoints_name(with_world) -> None:
    async def scenario(world) -> None:
        response = await world.infer(document={"id": 'a "model_name":"sentiment.3" \\', "inputs": [{"name": "x"}]})
        assert response.status_code == 200
        answer = response.json()
        assert answer.pop("id") == 'a "model_name":"sentiment.3" \\'
        assert answer == {"model_name": "sentiment", "model_version": "3", "outputs": [{"name": "x"}]}
        assert response.headers["x-rml-model-version"] == "3"
        assert response.headers["content-type"] == "application/json"
        assert len(response.headers["x-rml-inference-id"]) == 36
        assert world.triton.requests[-1].target == "/v2/models/sentiment.3/versions/3/infer"

    with_world(scenario)


def test_the_binary_extension_keeps_its_tensors_and_its_header_length_fits_the_new_name(with_world) -> None:
    async def scenario(world) -> None:
        body = b'{"inputs":[]}' + bytes(range(256))
        response = await world.client.post(
            f"{world.url}/v2/models/sentiment/infer", content=body,
            headers={"Inference-Header-Content-Length": "13", "Content-Type": "application/octet-stream"},
        )  # fmt: skip
        assert world.triton.requests[-1].body == body
        assert world.triton.requests[-1].headers["inference-header-content-length"] == "13"
        length = int(response.headers["inference-header-content-length"])
        assert json.loads(response.content[:length])["model_name"] == "sentiment"
        assert response.content[length:] == b"\x00\x01"
        assert response.headers["content-type"] == "application/octet-stream"

    with_world(scenario)


def test_compressed_requests_pass_and_answers_are_never_compressed_behind_the_doors_back(with_world) -> None:
    async def scenario(world) -> None:
        packed = gzip.compress(b'{"inputs":[]}')
        world.triton.answer = lambda request: (200, {}, b'{"model_name":"sentiment.3"}')
        url = f"{world.url}/v2/models/sentiment/infer"
        response = await world.client.post(
            url, content=packed, headers={"content-encoding": "gzip", "accept-encoding": "gzip"}
        )
        seen = world.triton.requests[-1]
        assert (seen.body, seen.headers["content-encoding"]) == (packed, "gzip")
        assert "accept-encoding" not in seen.headers
        assert response.json() == {"model_name": "sentiment"}
        world.triton.answer = lambda request: (
            200,
            {"content-encoding": "gzip"},
            gzip.compress(b'{"model_name":"sentiment.3"}'),
        )
        assert (await world.client.post(url, content=b"{}")).json() == {"model_name": "sentiment.3"}
        refused = await world.client.post(url, content=b"x", headers={"content-encoding": "br"})
        assert refused.status_code == 415

    with_world(scenario)


def test_the_models_own_refusal_passes_unchanged(with_world) -> None:
    async def scenario(world) -> None:
        for status in (400, 500):
            world.triton.answer = lambda request, status=status: (status, {}, b'{"error":"said by the model"}')
            response = await world.infer(document="not a v2 request")
            assert (response.status_code, response.json()) == (status, {"error": "said by the model"})
        assert len(world.triton.requests) == 2

    with_world(scenario)


@pytest.mark.parametrize(
    "said",
    [
        b"failed to parse the request JSON buffer: Invalid value. at 0",
        b"Unable to parse 'inputs': attempt to access non-existing object member 'inputs'",
        b"failed to get request params.: attempt to get members for non-object",
    ],
)
def test_a_body_that_is_no_request_is_the_clients_fault_whatever_number_the_server_gives_it(
    with_world, said: bytes
) -> None:
    async def scenario(world) -> None:
        body = b'{"error":"' + said + b'"}'
        world.triton.answer = lambda request: (500, {}, body)
        response = await world.infer()
        assert (response.status_code, response.content) == (400, body)
        text = (await world.client.get(f"{world.url}/metrics")).text
        assert f"rml_door_errors_total{{{LABELS}}} 0.0" in text

    with_world(scenario)


def test_a_model_that_quotes_such_words_has_failed_itself(with_world) -> None:
    async def scenario(world) -> None:
        body = b'{"error":"in ensemble, Unable to parse \'inputs\' of a record"}'
        world.triton.answer = lambda request: (500, {}, body)
        assert (await world.infer()).status_code == 500

    with_world(scenario)


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        ("sentimnet", 404, "did you mean 'sentiment'"),
        ("%00'\"{}", 404, "no endpoint is called"),
        ("x" * 500, 404, "there are sentiment"),
    ],
)
def test_an_unknown_endpoint_is_named_with_its_neighbours(with_world, name: str, status: int, words: str) -> None:
    async def scenario(world) -> None:
        response = await world.infer(name)
        assert response.status_code == status
        assert words in response.json()["error"]
        assert world.triton.requests == []

    with_world(scenario)


@pytest.mark.parametrize("path", ["/versions/3/infer", "/versions/3", "/versions/2/ready"])
def test_a_client_that_names_a_version_is_told_why_not(with_world, path: str) -> None:
    async def scenario(world) -> None:
        response = await world.client.request(
            "POST" if "infer" in path else "GET", f"{world.url}/v2/models/sentiment{path}"
        )
        assert response.status_code == 400
        assert "Leave the version out" in response.json()["error"]

    with_world(scenario)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models/sentiment/infer", 405),
        ("POST", "/v2", 405),
        ("GET", "/", 404),
        ("GET", "/v2/models", 404),
        ("POST", "/v2/repository/index", 404),
    ],
)
def test_other_routes_say_what_there_is(with_world, method: str, path: str, status: int) -> None:
    async def scenario(world) -> None:
        response = await world.client.request(method, world.url + path)
        assert response.status_code == status
        assert "v2" in response.json()["error"]

    with_world(scenario)


def test_an_empty_body_and_a_query_are_refused_in_words(with_world) -> None:
    async def scenario(world) -> None:
        url = f"{world.url}/v2/models/sentiment/infer"
        empty = await world.client.post(url)
        assert empty.status_code == 400 and "the body is empty" in empty.json()["error"]
        queried = await world.client.post(f"{url}?token=secret", json={"inputs": []})
        assert queried.status_code == 400 and "takes no query" in queried.json()["error"]
        assert "secret" not in queried.text

    with_world(scenario)


def test_health_metadata_readiness_and_statistics(with_world) -> None:
    async def scenario(world) -> None:
        get = world.client.get
        # With a body: KServe's client reads it.
        for what, told in (("live", {}), ("ready", {"generation": 1})):
            answer = await get(f"{world.url}/v2/health/{what}")
            assert (answer.status_code, answer.json()) == (200, {what: True, **told})
        assert (await get(f"{world.url}/v2")).json()["name"] == "roblox-ml-door"
        described = await get(f"{world.url}/v2/models/sentiment")
        assert described.json() == {"name": "sentiment", "versions": ["3"], "inputs": [], "outputs": []}
        assert described.headers["x-rml-model-version"] == "3"
        assert (await get(f"{world.url}/v2/models/sentiment/ready")).status_code == 200
        assert (await get(f"{world.url}/v2/models/sentiment/stats")).json() == {
            "model_stats": [{"name": "sentiment", "version": "3"}]
        }
        assert (await get(f"{world.url}/v2/models/sentiment/config")).json()["name"] == "sentiment"
        await world.publish(
            {"sentiment": {"model": "sentiment", "version": 3, "digest": "d3"}}, world.servers(local={})
        )
        refused = await get(f"{world.url}/v2/models/sentiment/ready")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")

    with_world(scenario)


def test_the_inference_id_is_kept_made_or_refused(with_world) -> None:
    async def scenario(world) -> None:
        assert (await world.infer(x_rml_inference_id="my.id:1")).headers["x-rml-inference-id"] == "my.id:1"
        made = [(await world.infer()).headers["x-rml-inference-id"] for _ in range(2)]
        assert made[0] != made[1]
        assert (await world.infer(x_rml_inference_id="a b")).status_code == 400

    with_world(scenario)


def test_deadlines(with_world) -> None:
    async def scenario(world) -> None:
        async def slow(request):
            await asyncio.sleep(30)

        world.triton.answer = slow
        late = await world.infer(x_rml_timeout_ms="50")
        assert (late.status_code, len(world.triton.requests)) == (504, 1)
        assert "deadline" in late.json()["error"]
        assert (await world.infer()).status_code == 504  # the settings' own
        for wrong in ("0", "-1", "1.5", "soon", "²", "9999999999"):
            refused = await world.client.post(
                f"{world.url}/v2/models/sentiment/infer", content=b"{}", headers={"x-rml-timeout-ms": wrong.encode()}
            )
            assert refused.status_code == 400, wrong

    with_world(scenario, deadline_s=0.2)


def test_a_body_over_the_limit_is_refused_with_and_without_a_declared_length(with_world) -> None:
    async def scenario(world) -> None:
        async def chunks():
            for _ in range(40):
                yield b"x" * 1000

        url = f"{world.url}/v2/models/sentiment/infer"
        assert (await world.client.post(url, content=b"x" * 10_001)).status_code == 413
        assert (await world.client.post(url, content=chunks())).status_code == 413
        assert world.triton.requests == []
        world.triton.answer = lambda request: (200, {}, b"{}")
        assert (await world.client.post(url, content=b"x" * 10_000)).status_code == 200

    with_world(scenario, max_body_bytes=10_000)


def test_a_body_that_trickles_in_is_cut_off_at_the_deadline_and_one_that_ends_early_is_no_error_of_ours(
    with_world,
) -> None:
    async def half_a_request(world, *lines: str):
        host, _, port = world.url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = ["POST /v2/models/sentiment/infer HTTP/1.1", "host: x", "content-length: 1000", *lines, "", ""]
        writer.write("\r\n".join(head).encode() + b'{"inputs"')
        await writer.drain()
        return reader, writer

    async def scenario(world) -> None:
        reader, writer = await half_a_request(world, "x-rml-timeout-ms: 50")
        answer = await reader.read()  # to the end: the door closes
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"not complete before the deadline" in answer
        writer.close()
        _, writer = await half_a_request(world)
        writer.close()
        assert (await world.infer()).status_code == 200
        text = (await world.client.get(f"{world.url}/metrics")).text
        # What never was a whole request is none: nobody was asked.
        assert f'rml_door_requests_total{{code="200",{LABELS}}} 1.0' in text
        assert f"rml_door_errors_total{{{LABELS}}} 0.0" in text
        assert len(world.triton.requests) == 1

    with_world(scenario)


def test_a_lost_server_is_replaced_once_then_the_client_is_told(with_world) -> None:
    async def scenario(world) -> None:
        answers = [None, (200, {}, b'{"model_name":"sentiment.3"}')]
        world.triton.answer = lambda request: answers.pop(0)
        assert (await world.infer()).json() == {"model_name": "sentiment"}
        world.triton.answer = lambda request: None
        lost = await world.infer()
        assert (lost.status_code, lost.headers["retry-after"]) == (503, "1")
        assert "asked twice" in lost.json()["error"]
        assert "closed the connection" in lost.json()["error"]

    with_world(scenario)


def test_a_server_that_no_longer_holds_the_version_is_passed_over(with_world, kit) -> None:
    async def scenario(world) -> None:
        empty = await kit.HttpStub(lambda request: (404, {}, b'{"error":"Request for unknown model"}')).start()
        servers = world.servers(local={"sentiment/3": "d3"})
        servers["empty"] = {"http": empty.address, "grpc": world.grpc.address, "ready": {"sentiment/3": "d3"}}
        await world.publish({"sentiment": kit.endpoint("sentiment", 3)}, servers)
        while not empty.requests:  # two are drawn at random
            assert (await world.infer()).status_code == 200
        for _ in range(20):
            assert (await world.infer()).status_code == 200
        assert len(empty.requests) == 1, "left out from then on"
        await empty.stop()

    with_world(scenario)


def test_garbage_from_a_model_server_is_a_502(with_world) -> None:
    async def scenario(world) -> None:
        world.triton.answer = lambda request: (200, {}, b"<html>")
        assert (await world.client.get(f"{world.url}/v2/models/sentiment")).status_code == 502

    with_world(scenario)


def test_metrics_count_by_endpoint_and_version_and_never_by_what_a_client_typed(with_world) -> None:
    async def scenario(world) -> None:
        await world.infer()
        await world.infer("evil-name")
        world.triton.answer = lambda request: (500, {}, b"{}")
        await world.infer()
        text = (await world.client.get(f"{world.url}/metrics")).text
        label = LABELS
        assert f'rml_door_requests_total{{code="200",{label}}} 1.0' in text
        assert f'rml_door_requests_total{{code="500",{label}}} 1.0' in text
        assert f"rml_door_errors_total{{{label}}} 1.0" in text
        assert f"rml_door_latency_seconds_count{{{label}}} 2.0" in text
        assert f"rml_door_in_flight{{{label}}} 0.0" in text
        assert "rml_door_snapshot_generation 1.0" in text
        assert "rml_door_snapshot_age_seconds" in text
        assert "evil-name" not in text

    with_world(scenario)
