"""Endpoints with preprocess "text": a real tokenizer and plan, a scripted model server that computes from the token ids."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
import uvloop
from roblox_ml_core.storage import BlobStore
from roblox_ml_serving.backends.rml_text_plan import EnginePlan, TextPlan, write_plan
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "game", "the", "very", "love", "hate"]
LABELS = ("negative", "positive")


def tokenizer_json() -> bytes:
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer.to_str().encode()


def plan(task: str = "sequence", labels: tuple[str, ...] = LABELS) -> bytes:
    engine = EnginePlan("onnxruntime-fp32", "onnxruntime", "engines/onnxruntime-fp32", "fp32")
    return write_plan(TextPlan(task, labels, 16, 0, (4, 8, 16), 64, (engine,)))


def logits_of(ids: np.ndarray, classes: int) -> np.ndarray:
    """What the scripted model computes for a row: any function of its ids, per token."""
    weights = np.random.default_rng(5).normal(size=(len(WORDS), classes)).astype(np.float32)
    return weights[ids]


class TextTriton:
    """The batch model of a text package: binary tensors in, binary logits out."""

    def __init__(self, per_token: bool = False, classes: int = len(LABELS), instances: int = 2) -> None:
        self.per_token, self.classes, self.instances = per_token, classes, instances
        self.batches: list[list[tuple[int, ...]]] = []
        self.before: Callable[[], Any] = lambda: None  # a status and text to answer instead, or a coroutine to wait for

    async def __call__(self, request: Any) -> Any:
        if request.target.endswith("/config"):
            return 200, {}, json.dumps({"instance_group": [{"kind": "KIND_CPU", "count": self.instances}]}).encode()
        length = int(request.headers["inference-header-content-length"])
        inputs = json.loads(request.body[:length])["inputs"]
        assert [one["name"] for one in inputs] == ["IDS", "LENGTHS"]
        numbers = np.frombuffer(request.body, "<i4", offset=length)
        ids, lengths = numbers[: inputs[0]["shape"][1]], numbers[inputs[0]["shape"][1] :]
        rows = np.split(ids, np.cumsum(lengths)[:-1])
        self.batches.append([tuple(map(int, row)) for row in rows])
        instead = self.before()
        if asyncio.iscoroutine(instead):
            instead = await instead
        if instead is not None:
            return instead[0], {}, json.dumps({"error": instead[1]}).encode()
        per_row = [logits_of(row, self.classes) for row in rows]
        found = np.concatenate(per_row) if self.per_token else np.stack([row.mean(axis=0) for row in per_row])
        head = json.dumps(
            {
                "model_name": request.target.split("/")[3], "model_version": request.target.split("/")[5],
                "outputs": [{"name": "LOGITS", "datatype": "FP32", "shape": [1, *found.shape],
                             "parameters": {"binary_data_size": found.nbytes}}],
            }
        ).encode()  # fmt: skip
        return 200, {"Inference-Header-Content-Length": str(len(head))}, head + found.astype("<f4").tobytes()

    def close(self) -> asyncio.Event:
        """Let every batch wait until the event is set."""
        gate = asyncio.Event()

        async def wait() -> None:
            await gate.wait()

        self.before = wait
        return gate

    @property
    def computed(self) -> list[tuple[int, ...]]:
        return [row for batch in self.batches for row in batch]


@asynccontextmanager
async def text_world(
    kit: Any, home: Any, *, task: str = "sequence", labels: Any = LABELS, policy: Any = None, **settings: Any
):
    """A door with a text endpoint `t` (version 1) in front of a scripted Triton."""
    store = BlobStore((home / "store").as_uri())
    files = {"model/tokenizer.json": store.put(tokenizer_json()), "model/text.json": store.put(plan(task, labels))}
    model = TextTriton(task == "token", len(labels))
    triton, rpc = await kit.HttpStub(model).start(), await kit.GrpcStub().start()

    def entry(version: int = 1, **more: Any) -> dict[str, Any]:
        return {**kit.endpoint("t", version), "preprocess": {"kind": "text", "files": files}, "policy": policy, **more}

    servers = {"s": {"http": triton.address, "grpc": rpc.address, "ready": {"t/1": "d1", "t/2": "d2"}}}
    control = kit.ControlStub(kit.snapshot(1, {"t": entry()}, servers))
    await control.http.start()
    world = SimpleNamespace(
        model=model, triton=triton, control=control, files=files, entry=entry, servers=servers, store=store,
        client=httpx.AsyncClient(timeout=20, limits=httpx.Limits(max_connections=None)),
    )  # fmt: skip

    async def publish(**endpoints: Any) -> None:
        generation = control.document["generation"] + 1
        control.publish(kit.snapshot(generation, endpoints, servers))
        await until(world, f"rml_door_snapshot_generation {float(generation)}")

    world.publish = publish
    async with kit.running_door(f"http://{control.http.address}", home, **settings) as (world.url, world.grpc_address):
        try:
            yield world
        finally:
            await world.client.aclose()
            for part in (triton, rpc, control.http):
                await part.stop()


async def until(world: Any, line: str) -> None:
    for _ in range(2000):
        if line in (await world.client.get(f"{world.url}/metrics")).text:
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"no {line!r}")


async def ready(world: Any) -> None:
    for _ in range(2000):
        if (await ask(world, [])).status_code == 200:
            return
        await asyncio.sleep(0.005)
    raise AssertionError((await ask(world, [])).text)


def body(texts: list[str], **more: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "TEXT", "datatype": "BYTES", "shape": [len(texts)], "data": texts}], **more}


async def ask(world: Any, texts: list[str], headers: Any = None, **more: Any) -> httpx.Response:
    return await world.client.post(f"{world.url}/v2/models/t/infer", json=body(texts, **more), headers=headers)


def ids_of(text: str) -> list[int]:
    return Tokenizer.from_str(tokenizer_json().decode()).encode(text).ids[:16]


def scores_of(text: str) -> np.ndarray:
    logits = logits_of(np.array(ids_of(text)), 2).mean(axis=0)
    shifted = np.exp(logits.astype(np.float64) - logits.max())
    return (shifted / shifted.sum()).astype(np.float32)


@pytest.fixture
def with_text(kit, rml_home):
    """Run `scenario(world)` in a loop of the kind the door runs on."""

    def run(scenario: Callable[[Any], Any], **options: Any) -> None:
        async def main() -> None:
            async with text_world(kit, rml_home, **options) as world:
                await ready(world)
                await scenario(world)

        uvloop.run(asyncio.wait_for(main(), 60))

    return run


TEXTS = ["good game", "the very bad game", "love", "", "hate hate hate the unknown"]


def test_texts_are_answered_with_labels_and_scores(with_text) -> None:
    async def scenario(world) -> None:
        response = await ask(world, TEXTS, id="7")
        assert response.status_code == 200, response.text
        answer = response.json()
        assert (answer["id"], answer["model_name"], answer["model_version"]) == ("7", "t", "1")
        label, scores = answer["outputs"]
        expected = np.stack([scores_of(text) for text in TEXTS])
        assert np.allclose(np.reshape(scores["data"], (-1, 2)), expected, atol=1e-6)
        assert label["data"] == [LABELS[index] for index in expected.argmax(axis=1)]
        assert response.headers["x-rml-model-version"] == "1"
        assert len(response.headers["x-rml-inference-id"]) == 36

    with_text(scenario)


def metric(text: str, name: str) -> float:
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))


async def metrics(world: Any) -> str:
    return (await world.client.get(f"{world.url}/metrics")).text


def test_equal_texts_are_computed_once_and_order_is_kept(with_text) -> None:
    async def scenario(world) -> None:
        texts = ["love", "Good game", "love", "good  game", "hate"]
        answer = (await ask(world, texts)).json()
        scores = np.reshape(answer["outputs"][1]["data"], (-1, 2))
        assert np.allclose(scores, np.stack([scores_of(text) for text in texts]), atol=1e-6)
        assert len(world.model.computed) == len(set(world.model.computed)) == 3
        assert metric(await metrics(world), "rml_door_text_duplicates_total") == 2

    with_text(scenario)


def test_both_protocols_and_every_form_of_a_request_say_the_same(with_text) -> None:
    async def scenario(world) -> None:
        from tritonclient.grpc import aio as rpc

        plain = (await ask(world, TEXTS)).json()["outputs"]
        packed = await world.client.post(
            f"{world.url}/v2/models/t/infer", content=gzip.compress(json.dumps(body(TEXTS)).encode()),
            headers={"content-encoding": "gzip"},
        )  # fmt: skip
        assert packed.json()["outputs"] == plain
        async with rpc.InferenceServerClient(world.grpc_address) as client:
            tensor = rpc.InferInput("TEXT", [len(TEXTS)], "BYTES")
            tensor.set_data_from_numpy(np.array([text.encode() for text in TEXTS], dtype=np.object_))
            result = await client.infer("t", [tensor], request_id="9")
            assert result.get_response().id == "9" and result.get_response().model_name == "t"
            assert [each.decode() for each in result.as_numpy("label")] == plain[0]["data"]
            assert np.array_equal(result.as_numpy("scores").ravel(), np.float32(plain[1]["data"]))

    with_text(scenario)


@pytest.mark.parametrize(
    ("headers", "content", "says"),
    [
        ({}, b"{}", "inputs"),
        ({}, b"no json", "not JSON"),
        ({"content-encoding": "gzip"}, b"not gzip", "not compressed"),
        ({"content-encoding": "gzip"}, gzip.compress(b"x" * 99)[:-9], "ends too early"),
        ({"inference-header-content-length": "x"}, b"{}", "Inference-Header-Content-Length"),
        ({}, json.dumps(body(["x"], outputs=[{"name": "nope"}])).encode(), "nope"),
    ],
)
def test_a_clients_mistake_is_a_400_that_says_it(with_text, headers, content, says) -> None:
    async def scenario(world) -> None:
        response = await world.client.post(f"{world.url}/v2/models/t/infer", content=content, headers=headers)
        assert response.status_code == 400 and says in response.json()["error"], response.text

    with_text(scenario)


def test_a_compressed_body_may_not_grow_beyond_the_limit(with_text) -> None:
    async def scenario(world) -> None:
        bomb = gzip.compress(b" " * 10_000_000)
        response = await world.client.post(
            f"{world.url}/v2/models/t/infer", content=bomb, headers={"content-encoding": "gzip"}
        )
        assert response.status_code == 413

    with_text(scenario, max_body_bytes=100_000)


def test_a_cached_answer_is_the_computed_one_and_goes_with_its_version(with_text) -> None:
    async def scenario(world) -> None:
        first = (await ask(world, TEXTS)).json()
        batches = len(world.model.batches)
        again = (await ask(world, TEXTS)).json()
        assert again == first and len(world.model.batches) == batches
        mixed = (await ask(world, ["very bad", *TEXTS])).json()
        assert mixed["outputs"][1]["data"][2:] == first["outputs"][1]["data"]
        assert world.model.batches[batches:] == [[tuple(ids_of("very bad"))]]
        found = await metrics(world)
        assert metric(found, "rml_door_text_cache_hits_total") == 2 * len(TEXTS)
        assert metric(found, "rml_door_text_cache_entries") == len(TEXTS) + 1
        assert metric(found, "rml_door_text_cache_bytes") > 0
        # The same files under another digest are another model: nothing of the first one answers for it.
        await world.publish(t=world.entry(2))
        answer = await ask(world, TEXTS)
        assert answer.json()["model_version"] == "2" and len(world.model.batches) > batches + 1
        assert metric(await metrics(world), "rml_door_text_cache_entries") == len(TEXTS)

    with_text(scenario, policy={"cache": {"entries": 1000, "bytes": 1_000_000}})


def test_nothing_is_cached_unless_the_policy_says_so(with_text) -> None:
    async def scenario(world) -> None:
        await ask(world, ["love"])
        await ask(world, ["love"])
        assert len(world.model.computed) == 2

    with_text(scenario)


def test_one_large_request_is_answered_and_small_ones_pass_it(with_text) -> None:
    async def scenario(world) -> None:
        gate = world.model.close()
        words = WORDS[4:]
        texts = [" ".join(words[(i // 7**k) % 7] for k in range(8)) for i in range(4000)]
        headers = {"x-rml-timeout-ms": "600000"}
        large = asyncio.ensure_future(ask(world, texts, headers=headers))
        while metric(await metrics(world), "rml_door_text_queue_rows") < 3000:
            await asyncio.sleep(0.01)
        small = asyncio.ensure_future(ask(world, ["love"], headers=headers))
        while metric(await metrics(world), 'rml_door_in_flight{endpoint="t"') < 2:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        gate.set()
        assert (await small).status_code == 200
        answer = (await large).json()
        expected = np.stack([scores_of(text) for text in texts[::500]])
        assert np.allclose(np.reshape(answer["outputs"][1]["data"], (-1, 2))[::500], expected, atol=1e-6)
        (turn,) = [n for n, batch in enumerate(world.model.batches) if tuple(ids_of("love")) in batch]
        assert turn < len(world.model.batches) / 2

    with_text(scenario, policy={"queue": {"max_wait_ms": 600_000}})


def test_a_line_that_is_too_long_is_told_at_once_with_a_time_to_come_back(with_text) -> None:
    async def scenario(world) -> None:
        from tritonclient.grpc import service_pb2 as v2

        gate = world.model.close()
        texts = [" ".join(WORDS[4 + (i // 7**k) % 7] for k in range(6)) for i in range(60)]
        waiting = [asyncio.ensure_future(ask(world, [text])) for text in texts]
        while metric(await metrics(world), 'rml_door_text_refused_total{endpoint="t",reason="wait"}') < 1:
            await asyncio.sleep(0.01)
        refused = await ask(world, ["love"])
        assert refused.status_code == 429 and "ask again in" in refused.json()["error"]
        assert int(refused.headers["retry-after"]) >= 1 and int(refused.headers["retry-after-ms"]) >= 1
        import grpc

        message = v2.ModelInferRequest(model_name="t")
        message.inputs.add(name="TEXT", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"love")
        async with grpc.aio.insecure_channel(world.grpc_address) as channel:
            call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(message.SerializeToString(), timeout=20)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert int(dict(caught.value.trailing_metadata())["retry-after-ms"]) >= 1
        gate.set()
        statuses = {response.status_code for response in await asyncio.gather(*waiting)}
        assert statuses == {200, 429}  # those that came when the line was full were told so

    with_text(scenario, policy={"queue": {"max_wait_ms": 20}})


def test_a_batch_that_is_lost_is_asked_again_and_one_that_stays_lost_is_a_503(with_text) -> None:
    async def scenario(world) -> None:
        said = iter([(500, "Stub process 'x' is not healthy"), (404, "unknown model")])
        world.model.before = lambda: next(said, None)
        answer = await ask(world, ["love"])
        assert answer.status_code == 200 and len(world.model.batches) == 3
        assert metric(await metrics(world), "rml_door_text_batches_lost_total") == 2
        world.model.before = lambda: (500, "Stub process 'x' is not healthy")
        lost = await ask(world, ["love"])
        assert lost.status_code == 503 and "not healthy" in lost.json()["error"] and "retry-after" in lost.headers

    with_text(scenario)


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_a_client_that_hangs_up_frees_its_rows(with_text, protocol) -> None:
    async def scenario(world) -> None:
        from tritonclient.grpc import service_pb2 as v2

        gate = world.model.close()
        texts = [" ".join(WORDS[4 + (i // 7**k) % 7] for k in range(4)) for i in range(300)]
        if protocol == "rest":
            content = json.dumps(body(texts)).encode()
            host, _, port = world.url.removeprefix("http://").partition(":")
            _, writer = await asyncio.open_connection(host, int(port))
            writer.write(
                b"POST /v2/models/t/infer HTTP/1.1\r\nhost: x\r\nx-rml-timeout-ms: 900000\r\ncontent-length: %d\r\n\r\n"
                % len(content)
                + content
            )
            leave = writer.transport.abort
        else:
            import grpc

            message = v2.ModelInferRequest(model_name="t")
            message.inputs.add(name="TEXT", datatype="BYTES", shape=[len(texts)]).contents.bytes_contents.extend(
                text.encode() for text in texts
            )
            channel = grpc.aio.insecure_channel(world.grpc_address)
            call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(message.SerializeToString())
            leave = call.cancel
        while metric(await metrics(world), "rml_door_text_queue_rows") < 100:
            await asyncio.sleep(0.01)
        leave()
        await until(world, 'rml_door_text_queue_rows{model="t",version="1"} 0.0')
        gate.set()
        assert (await ask(world, ["love"])).status_code == 200
        if protocol == "grpc":
            await channel.close()

    with_text(scenario)


def test_a_deadline_that_passes_is_a_504(with_text) -> None:
    async def scenario(world) -> None:
        world.model.before = lambda: asyncio.sleep(0.5)
        response = await ask(world, ["love"], headers={"x-rml-timeout-ms": "60"})
        assert response.status_code == 504

    with_text(scenario)


def test_token_classification_answers_entities(with_text) -> None:
    async def scenario(world) -> None:
        answer = (await ask(world, ["good game, the very bad game", ""])).json()
        (entities,) = answer["outputs"]
        assert entities["name"] == "entities" and entities["shape"] == [2]
        found = [json.loads(text) for text in entities["data"]]
        assert found[1] == []
        for entity in found[0]:
            assert entity["text"] == "good game, the very bad game"[entity["start"] : entity["end"]]
            assert 0 < entity["score"] <= 1

    with_text(scenario, task="token", labels=("O", "B-X", "I-X"))


def test_an_endpoint_whose_files_are_not_there_keeps_the_version_before(with_text) -> None:
    async def scenario(world) -> None:
        from roblox_ml_core.digests import sha256_bytes

        late = plan() + b" "
        files = {**world.files, "model/text.json": sha256_bytes(late)}
        await world.publish(t=world.entry(2, preprocess={"kind": "text", "files": files}), u=world.entry(2))
        assert (await ask(world, ["love"])).json()["model_version"] == "1"
        world.store.put(late)
        for _ in range(2000):
            if (await ask(world, ["love"])).json()["model_version"] == "2":
                break
            await asyncio.sleep(0.005)
        else:
            raise AssertionError("the files came, the version did not")

    with_text(scenario)


def test_a_policy_that_cannot_be_read_or_an_unknown_kind_is_that_endpoints_trouble_alone(with_text) -> None:
    async def scenario(world) -> None:
        await world.publish(
            t=world.entry(), odd=world.entry(policy={"cache": {"entries": "many"}}),
            newer=world.entry(preprocess={"kind": "ranking", "files": {}}),
        )  # fmt: skip
        assert (await ask(world, ["love"])).status_code == 200
        for name in ("odd", "newer"):
            refused = await world.client.post(f"{world.url}/v2/models/{name}/infer", json=body(["love"]))
            assert refused.status_code == 503, name

    with_text(scenario)


def test_a_door_that_restarts_while_everything_else_is_away_answers_from_its_disk(kit, rml_home) -> None:
    async def main() -> None:
        async with text_world(kit, rml_home) as world:
            await ready(world)
            first = (await ask(world, TEXTS)).json()
            for digest in world.files.values():
                world.store.delete(digest)
            async with kit.running_door("http://127.0.0.1:9", rml_home) as (world.url, _):
                assert (await ask(world, TEXTS)).json() == first

    uvloop.run(asyncio.wait_for(main(), 60))


def test_a_version_that_an_older_door_remembered_without_its_files_is_never_passed_through(kit, rml_home) -> None:
    """Its bytes would reach the model server untokenised: slow, uncached, past the queue."""

    async def main() -> None:
        async with text_world(kit, rml_home) as world:
            await ready(world)
        stored = rml_home / "serving" / "snapshot.json"
        document = json.loads(stored.read_text())
        document["serving"] = {name: kept[:3] for name, kept in document["serving"].items()}
        stored.write_text(json.dumps(document))
        for path in (rml_home / "serving" / "preprocess").iterdir():
            path.unlink()
        async with text_world(kit, rml_home) as world:
            await ready(world)
            assert (await ask(world, TEXTS)).status_code == 200
            assert all("/t.1.batch/" in request.target for request in world.triton.requests)

    uvloop.run(asyncio.wait_for(main(), 60))


def test_the_documented_snapshot_is_one_that_doors_read() -> None:
    from pathlib import Path

    from roblox_ml_serving.door.snapshot import build, specs

    page = Path(__file__).resolve().parents[4] / "docs/formats/policy-snapshot.md"
    document = json.loads(page.read_text().split("```json\n")[1].split("```")[0])
    (spec,) = specs(document)
    target = build(document, {}, {spec}).endpoints["comment-sentiment"]
    assert target.serving.preprocess == spec and target.policy.max_wait_ms == 200 and not target.policy.caches
    assert build(document, {}, ()).endpoints["comment-sentiment"].reason.http_status == 503
