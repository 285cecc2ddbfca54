"""Endpoints with preprocess "text": a real tokenizer and plan, a scripted model server that computes from the token ids."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
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

    @property
    def computed(self) -> list[tuple[int, ...]]:
        return [row for batch in self.batches for row in batch]


@asynccontextmanager
async def text_world(kit: Any, home: Any, *, task: str = "sequence", labels: Any = LABELS, policy: Any = None, **settings: Any):
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
        client=httpx.AsyncClient(timeout=20),
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
