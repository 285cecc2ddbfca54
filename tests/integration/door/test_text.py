"""A text endpoint on the real stack: control plane, Triton, agent and door; a tiny model of two layers."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

pytestmark = pytest.mark.triton

_SOURCE = Path(__file__).resolve().parents[1] / "text" / "packages.py"
_SPEC = importlib.util.spec_from_file_location("text_packages", _SOURCE)
assert _SPEC is not None and _SPEC.loader is not None
packages = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = packages
_SPEC.loader.exec_module(packages)

TEXTS = [*packages.TEXTS, "good game " * 40, "robux \U0001f600", "\u05e9\u05dc\u05d5\u05dd"]
POLICY = {"cache": {"entries": 1000, "bytes": 10_000_000}}


@pytest.fixture(scope="module")
def texts(world, tmp_path_factory) -> Any:
    """Two versions of a text model behind endpoint `sentiment`, the second one answering."""
    root = tmp_path_factory.mktemp("texts")
    for seed in (0, 1):
        package = packages.text_cpu(root / str(seed), seed=seed, engines=("onnxruntime",))
        version = world.publish(package, "sentiment")
        with world.client() as client:
            client.put_endpoint("sentiment", "sentiment", version=version)
        world.wait_ready(f"sentiment/{version}", timeout=120)
    return root


def ask(url: str, texts: list[str], timeout: float = 20) -> httpx.Response:
    body = {"inputs": [{"name": "TEXT", "datatype": "BYTES", "shape": [len(texts)], "data": texts}]}
    return httpx.post(url, json=body, timeout=timeout)


def output(answer: httpx.Response, name: str) -> Any:
    """By name: Triton lists an ensemble's outputs in an order of its own."""
    assert answer.status_code == 200, answer.text
    return next(one for one in answer.json()["outputs"] if one["name"] == name)


def scores(answer: httpx.Response) -> np.ndarray:
    return np.reshape(output(answer, "scores")["data"], (-1, 3))


def test_the_door_says_what_the_model_server_says(world, texts, eventually) -> None:
    door = f"{world.door}/v2/models/sentiment/infer"
    eventually("version 2 answers", lambda: world.serving_version("sentiment") == "2", 60)
    ours = ask(door, TEXTS)
    theirs = ask(f"http://{world.http}/v2/models/sentiment.2/infer", TEXTS)
    assert output(ours, "label") == output(theirs, "label")
    assert np.abs(scores(ours) - scores(theirs)).max() < 1e-5
    alone = np.concatenate([scores(ask(door, [text])) for text in TEXTS])
    assert np.abs(scores(ours) - alone).max() < 1e-5  # whatever the company
    assert np.abs(alone.sum(axis=1) - 1).max() < 1e-6


def test_a_cached_answer_is_the_computed_one_and_a_rollback_forgets_it(world, texts, eventually) -> None:
    door = f"{world.door}/v2/models/sentiment/infer"
    with world.client() as client:
        client.put_endpoint("sentiment", "sentiment", version=2, policy=POLICY)
    hits = 'rml_door_text_cache_hits_total{endpoint="sentiment"}'
    computed = ask(door, TEXTS).json()

    def cached() -> bool:
        assert ask(door, TEXTS).json() == computed
        lines = httpx.get(f"{world.door}/metrics").text.splitlines()
        return any(line.startswith(hits) and float(line.split()[-1]) > 0 for line in lines)

    eventually("answers come from the cache", cached, 20)
    with world.client() as client:
        client.rollback_endpoint("sentiment")
    eventually("version 1 answers", lambda: ask(door, ["love"]).json()["model_version"] == "1", 30)
    before = scores(ask(door, TEXTS))
    assert np.abs(before - np.reshape(computed["outputs"][1]["data"], (-1, 3))).max() > 1e-3
    with world.client() as client:
        client.put_endpoint("sentiment", "sentiment", version=2)
    eventually("version 2 answers", lambda: ask(door, ["love"]).json()["model_version"] == "2", 30)
    assert np.abs(scores(ask(door, TEXTS)) - np.reshape(computed["outputs"][1]["data"], (-1, 3))).max() < 1e-5


def test_an_instance_that_is_killed_under_load_costs_nobody_an_answer(world, texts, load, eventually) -> None:
    import psutil

    url = f"{world.door}/v2/models/sentiment/infer"
    body = {"inputs": [{"name": "TEXT", "datatype": "BYTES", "shape": [2], "data": ["good game", "the very bad game"]}]}
    with load(url, body) as clients:
        victims = [
            process.pid
            for process in psutil.Process(world.running["triton"].pid).children(recursive=True)
            if "sentiment.2.batch" in " ".join(process.cmdline())
        ]
        assert victims
        os.kill(victims[0], signal.SIGKILL)
        answered = clients.outcomes["200"]
        clients.wait(lambda: clients.outcomes["200"] > answered + 50)
    # A batch is tried three times within a third of a second; a 503 tells the client to come back, never a wrong answer.
    assert set(clients.outcomes) <= {"200", "503"}, (clients.outcomes, clients.messages)
    assert clients.outcomes["200"] > 50
