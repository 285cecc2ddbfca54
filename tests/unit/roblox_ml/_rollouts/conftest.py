"""The real control plane behind a socket in this process, and a door that takes what is posted with the real rules."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from roblox_ml_core.digests import canonical_json, sha256_bytes
from roblox_ml_core.errors import Invalid
from roblox_ml_core.records import parse_events, parse_exposures
from roblox_ml_core.registry import ModelState, RegistryClient
from roblox_ml_core.settings import HomeSettings
from roblox_ml_core.storage import BlobStore
from roblox_ml_platform.app import create_app

SIGNATURE = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
}


@dataclass
class Plane:
    """A client of the control plane, and the one model server it hears of."""

    client: RegistryClient
    store: BlobStore
    say: Callable[[str], None] = lambda line: None

    def register(self, name: str, mark: str, tensors: Any = SIGNATURE, alias: str | None = None) -> int:
        def entry(data: bytes) -> dict[str, Any]:
            self.store.put(data)
            return {"sha256": sha256_bytes(data), "size": len(data)}

        files = {"signature.json": entry(canonical_json(tensors)), "model/code/m.py": entry(mark.encode())}
        info = {"schema": 1, "format": "python", "files": files, "labels": None, "options": {"entry": "m:predict"}}
        body = {"package": info, "manifest": {**files, "package.json": entry(canonical_json(info))}, "alias": alias}
        return int(self.client.call("POST", f"/v1/models/{name}/versions", body)["version"])

    def holds(self, *versions: int, state: str = "ready", reason: str = "") -> None:
        """What the model server says it has of the model `feed`."""
        known = {v: self.client.version("feed", v)["digest"] for v in versions}
        states = [ModelState("feed", v, digest, state, reason) for v, digest in known.items()]
        self.client.report("local", "127.0.0.1:1", "127.0.0.1:2", states)

    def policy(self) -> Any:
        return self.client.snapshot()["policy"]


@pytest.fixture
def plane(rml_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plane]:
    """Three versions of `feed`, an endpoint of that name at its champion (1), all of them ready."""
    monkeypatch.setenv("RML_MLFLOW_ENABLED", "false")
    server = uvicorn.Server(uvicorn.Config(create_app(), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the control plane did not start"
        time.sleep(0.01)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    monkeypatch.setenv("RML_CONTROL_URL", url)
    with RegistryClient(url, HomeSettings().read_token()) as client:
        made = Plane(client, BlobStore(HomeSettings().store_url))
        for mark in ("a", "b", "c"):
            made.register("feed", mark, alias="champion" if mark == "a" else None)
        client.put_endpoint("feed", "feed", alias="champion")
        made.holds(1, 2, 3)
        yield made
    server.should_exit = True
    thread.join(10)


@dataclass
class Door:
    """What was posted, and how the next posts are answered (a status each; 202 when none is left)."""

    url: str = ""
    rows: dict[str, list[Any]] = field(default_factory=lambda: {"/v1/track": [], "/v1/exposures": []})
    answers: list[int] = field(default_factory=list)
    posts: list[int] = field(default_factory=list)
    models: dict[str, Callable[[], int]] = field(default_factory=dict)  # endpoint → the version that answers
    asked_by: list[str | None] = field(default_factory=list)


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    state = Door()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._model({"name": "feed", "inputs": [{"name": "X", "datatype": "FP32", "shape": [-1, 2]}]})

        def _model(self, answer: Any) -> None:
            name = self.path.split("/")[3]
            self._reply(
                200,
                answer,
                {"x-rml-model": name, "x-rml-model-version": str(state.models[name]()), "x-rml-inference-id": "id-1"},
            )

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.path.startswith("/v2/"):
                state.asked_by.append(self.headers["x-rml-unit"])
                self._model({"outputs": [{"name": "Y", "datatype": "FP32", "shape": [1], "data": [0.5]}]})
                return
            parse = parse_events if self.path == "/v1/track" else parse_exposures
            status, answer = (state.answers.pop(0) if state.answers else 202), {"error": "not now"}
            if status == 202:
                try:
                    found = parse(body)
                    state.rows[self.path] += found
                    state.posts.append(len(found))
                    answer = {"accepted": len(found), "dropped": 0}
                except Invalid as error:
                    status, answer = 400, {"error": str(error)}
            self._reply(status, answer, {})

        def _reply(self, status: int, answer: Any, headers: dict[str, str]) -> None:
            payload = json.dumps(answer).encode()
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(payload))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("RML_DOOR_URL", state.url)
    yield state
    server.shutdown()
    server.server_close()
