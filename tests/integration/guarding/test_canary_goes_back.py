"""A control plane and a door as processes, a model server that fails: the canary goes back by itself, and no client saw an error."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from roblox_ml_core.digests import canonical_json, sha256_bytes
from roblox_ml_core.errors import RmlError, Unavailable
from roblox_ml_core.http import Pool
from roblox_ml_core.registry import ModelState, RegistryClient
from roblox_ml_core.settings import HomeSettings
from roblox_ml_core.storage import BlobStore

SIGNATURE = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
}
BODY = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}]}).encode()


class ModelServer:
    """Answers as a model server would. From `broken` on, one in twenty of version 2's requests fails."""

    def __init__(self) -> None:
        self.broken = False
        self.asked: Counter[str] = Counter()
        self.failed = 0
        outer, dice = self, random.Random(1)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                model = self.path.split("/")[3]
                outer.asked[model] += 1
                failed = outer.broken and model.endswith(".2") and dice.random() < 0.05
                outer.failed += failed
                answer = {"error": "broken"} if failed else {"model_name": model, "model_version": "1", "outputs": []}
                data = json.dumps(answer, separators=(",", ":")).encode()
                self.wfile.write(
                    b"HTTP/1.1 %d x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
                    % (500 if failed else 200, len(data)) + data
                )  # fmt: skip

            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()


def eventually(what: str, ready: Callable[[], Any], timeout: float = 60.0) -> Any:
    deadline = time.monotonic() + timeout
    while True:
        try:
            if found := ready():
                return found
        except (RmlError, httpx.HTTPError, OSError):
            pass
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(0.05)


class World:
    """The processes, two registered versions, and an agent's reports for them."""

    def __init__(self, home: Path, port: Callable[[], int], grpc: str = "127.0.0.1:1") -> None:
        self.grpc = grpc  # the model server's, where a test has one
        control, door = port(), port()
        self.environment = {
            **os.environ, "RML_HOME": str(home), "RML_CONTROL_PORT": str(control), "RML_CONTROL_URL": f"http://127.0.0.1:{control}",
            "RML_DOOR_PORT": str(door), "RML_DOOR_GRPC_PORT": "0", "RML_MLFLOW_ENABLED": "false",
        }  # fmt: skip
        self.door = f"http://127.0.0.1:{door}"
        self.models = ModelServer()
        settings = HomeSettings(home=home)
        settings.ensure_token()
        self.store = BlobStore(settings.store_url)
        self.client = RegistryClient(self.environment["RML_CONTROL_URL"], settings.read_token())
        self.processes = [self._start("roblox_ml_platform", home)]
        eventually("control plane", self.client.ready)
        self.states = [self._register(mark) for mark in ("a", "b")]
        self._stop = threading.Event()
        self._agent = threading.Thread(target=self._report, daemon=True)
        self._agent.start()
        self.client.put_endpoint("feed", "feed", version=1)
        self.processes.append(self._start("roblox_ml_serving.door", home))
        eventually(
            "the door answers", lambda: httpx.post(f"{self.door}/v2/models/feed/infer", content=BODY).status_code == 200
        )

    def _start(self, module: str, home: Path) -> subprocess.Popen[bytes]:
        log = (home / f"{module}.log").open("wb")
        return subprocess.Popen([sys.executable, "-m", module], env=self.environment, stdout=log, stderr=log)

    def _register(self, mark: str) -> ModelState:
        def entry(data: bytes) -> dict[str, Any]:
            self.store.put(data)
            return {"sha256": sha256_bytes(data), "size": len(data)}

        files = {"signature.json": entry(canonical_json(SIGNATURE)), "model/code/m.py": entry(mark.encode())}
        info = {"schema": 1, "format": "python", "files": files, "labels": None, "options": {"entry": "m:predict"}}
        body = {"package": info, "manifest": {**files, "package.json": entry(canonical_json(info))}}
        made = self.client.register("feed", body)
        return ModelState("feed", made["version"], made["digest"], "ready")

    def _report(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(Unavailable):  # a test may end the control plane
                self.client.report("triton", self.models.address, self.grpc, self.states)
            self._stop.wait(2)

    def close(self) -> None:
        self._stop.set()
        for process in reversed(self.processes):
            process.terminate()
            process.wait(30)
        self.models.stop()
        self.client.close()


@pytest.fixture
def world(rml_home: Path, free_port: Callable[[], int]) -> Iterator[World]:
    world = World(rml_home, free_port)
    yield world
    world.close()


async def load(world: World, outcomes: Counter[str], stop: threading.Event, rate: float = 100.0) -> None:
    """Requests of many users at a steady rate."""
    pool, number = Pool(world.door, max_connections=32), 0
    under_way: set[asyncio.Task[None]] = set()

    async def ask(unit: str) -> None:
        headers = [(b"content-type", b"application/json"), (b"x-rml-unit", unit.encode())]
        response = await pool.request(b"POST", b"/v2/models/feed/infer", headers, BODY, timeout=20)
        outcomes[str(response.status)] += 1

    while not stop.is_set():
        number += 1
        task = asyncio.create_task(ask(f"u{number}"))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
        await asyncio.sleep(1 / rate)
    await asyncio.gather(*under_way)
    await pool.close()


def test_a_canary_that_fails_five_percent_goes_back_by_itself_with_exact_evidence(world: World) -> None:
    outcomes: Counter[str] = Counter()
    stop = threading.Event()
    clients = threading.Thread(target=lambda: asyncio.run(load(world, outcomes, stop)), daemon=True)
    clients.start()
    try:
        eventually("some traffic", lambda: outcomes["200"] > 300)
        world.models.broken = True
        began = time.monotonic()
        world.client.start_canary("feed", 2, share=5000)
        record = eventually("the guard takes the canary back", lambda: world.client.rollbacks("feed"), 45)[0]
        took = time.monotonic() - began
        # Generous: two cores may be busy with something else. What is asserted elsewhere is how many requests it takes.
        print(f"\na canary with 5 % errors, 50 requests a second: back after {took:.1f} s")
        eventually("the door follows", lambda: _quiet(world))
    finally:
        stop.set()
        clients.join(30)
    assert set(outcomes) == {"200"}, "the champion answered for the canary"
    proof = record["evidence"]
    assert (record["kind"], record["action"], record["version"], record["back_to"]) == (
        "canary",
        "rolled_back",
        "feed/2",
        "feed/1",
    )
    assert proof["test"] == "errors" and proof["since_start"] and proof["log_e_value"] >= proof["threshold"]
    challenger, baseline = proof["challenger"], proof["baseline"]
    assert sum(challenger["latency"]) == challenger["requests"] and sum(baseline["latency"]) == baseline["requests"]
    assert 5 <= challenger["errors"] <= world.models.failed and baseline["errors"] == 0
    assert challenger["requests"] <= world.models.asked["feed.2"]
    for side in ("challenger", "baseline"):
        assert sum(row[side][0] for row in proof["time_line"]) == proof[side]["requests"]
        assert sum(row[side][1] for row in proof["time_line"]) == proof[side]["errors"]


def _quiet(world: World) -> bool:
    """Nobody asks the canary any more."""
    before = world.models.asked["feed.2"]
    time.sleep(1.0)
    return world.models.asked["feed.2"] == before
