"""What the agent expects a version to take before it is loaded."""

from __future__ import annotations

import json
from typing import Any

from roblox_ml_core.errors import Unavailable
from roblox_ml_core.registry import DesiredModel
from roblox_ml_serving.agent.memory import Expected


def wish(sizes: dict[str, int]) -> DesiredModel:
    return DesiredModel("m", 1, "d", {path: {"sha256": path, "size": size} for path, size in sizes.items()})


TEXT = {
    "model/text.json": 1, "model/tokenizer.json": 10, "model/hf/model.safetensors": 7_000_000,
    "model/engines/small/model.xml": 100, "model/engines/small/model.bin": 200, "model/engines/large/model.onnx": 5_000,
}  # fmt: skip
PLAN = {
    "schema": 1, "task": "sequence", "labels": ["a", "b"], "max_length": 8, "buckets": [8],
    "engines": [
        {"name": "s", "runtime": "openvino", "folder": "engines/small", "precision": "int8", "requires": ["vnni"]},
        {"name": "l", "runtime": "onnxruntime", "folder": "engines/large", "precision": "fp32"},
    ],
}  # fmt: skip


def no_store(_: str) -> bytes:
    raise AssertionError("asked the store for a model that has no plan")


def test_it_is_counted_over_what_an_instance_reads() -> None:
    sizes = {"model/model.onnx": 1, "model/hf/model.safetensors": 10, "metrics.json": 100, "model/tokenizer.json": 1000}
    assert Expected(3, no_store)(wish(sizes)) == 3 * 1001


def test_of_a_text_model_only_the_engine_counts_that_this_processor_loads() -> None:
    asked: list[str] = []

    def fetch(digest: str) -> bytes:
        asked.append(digest)
        return json.dumps(PLAN).encode()

    able, unable = (Expected(2, fetch, flags=lambda have=have: frozenset(have)) for have in (["vnni"], ["sse2"]))
    assert able(wish(TEXT)) == able(wish(TEXT)) == 2 * (11 + 300)
    assert unable(wish(TEXT)) == 2 * (11 + 5_000)
    assert asked == ["model/text.json"] * 2  # once each, however often the agent looks


def test_while_the_plan_cannot_be_read_the_largest_engine_counts() -> None:
    now = [0.0]
    answers: list[Any] = [Unavailable("the store is away"), b"no plan", json.dumps(PLAN).encode()]

    def fetch(_: str) -> bytes:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return bytes(answer)

    expected = Expected(1, fetch, flags=lambda: frozenset(["vnni"]), clock=lambda: now[0])
    assert expected(wish(TEXT)) == expected(wish(TEXT)) == 11 + 5_000  # and the store is not asked again at once
    assert len(answers) == 2
    now[0] += 31
    assert expected(wish(TEXT)) == 11 + 5_000
    now[0] += 31
    assert expected(wish(TEXT)) == 11 + 300
