"""The real control plane behind a socket in this process, and a door that takes what is posted with the real rules."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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
    "inputs": [{"name": "X", "datatype": "FP32", "shape": [-1, 2]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
}


@dataclass
class Plane:
    """A client of the control plane, and the one model server it hears of."""

    client: RegistryClient
    store: BlobStore
    url: str
    home: Path
    kill: Callable[[], None]
    addresses: dict[str, tuple[str, str]] = field(default_factory=lambda: {"local": ("127.0.0.1:1", "127.0.0.1:2")})

    def register(self, name: str, mark: str, tensors: Any = SIGNATURE, alias: str | None = None) -> int:
        def entry(data: bytes) -> dict[str, Any]:
            self.store.put(data)
            return {"sha256": sha256_bytes(data), "size": len(data)}

        files = {"signature.json": entry(canonical_json(tensors)), "model/code/m.py": entry(mark.encode())}
        info = {"schema": 1, "format": "python", "files": files, "labels": None, "options": {"entry": "m:predict"}}
        body = {"package": info, "manifest": {**files, "package.json": entry(canonical_json(info))}, "alias": alias}
        return int(self.client.call("POST", f"/v1/models/{name}/versions", body)["version"])

    def holds(self, *versions: int, state: str = "ready", reason: str = "", server: str = "local") -> None:
        """What a model server says it has of the model `feed`."""
        known = {v: self.client.version("feed", v)["digest"] for v in versions}
        states = [ModelState("feed", v, digest, state, reason) for v, digest in known.items()]
        self.client.report(server, *self.addresses[server], states)

    def again(self) -> None:
        """As in the beginning: only the champion answers."""
        for one in self.client.experiments(True):
            self.client.stop_experiment(one["name"], "the test is over")
        if self.client.alias("feed", "champion")["version"] != 1:
            self.client.promote("feed", "champion", 1)
        self.client.put_endpoint("feed", "feed", alias="champion")
        self.addresses = {"local": ("127.0.0.1:1", "127.0.0.1:2")}
        self.holds(1, 2, 3)

    def policy(self) -> Any:
        return self.client.snapshot()["policy"]


def start_plane() -> tuple[str, Callable[[], None]]:
    """(where it listens, how to end it, at once and with all connections)."""
    server = uvicorn.Server(uvicorn.Config(create_app(), port=0, log_level="critical", timeout_graceful_shutdown=0))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the control plane did not start"
        time.sleep(0.01)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"

    def kill() -> None:
        server.should_exit = True
        thread.join(10)

    return url, kill


@contextmanager
def standing_plane(home: Path) -> Iterator[Plane]:
    """Three versions of `feed`, an endpoint of that name at its champion (1), all of them ready."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RML_HOME", str(home))
        patch.setenv("RML_MLFLOW_ENABLED", "false")
        url, kill = start_plane()
        token, store = HomeSettings().read_token(), BlobStore(HomeSettings().store_url)
    with RegistryClient(url, token) as client:
        made = Plane(client, store, url, home, kill)
        for mark in ("a", "b", "c"):
            made.register("feed", mark, alias="champion" if mark == "a" else None)
        client.put_endpoint("feed", "feed", alias="champion")
        made.holds(1, 2, 3)
        yield made
    kill()


@pytest.fixture
def mortal(rml_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plane]:
    """A control plane of the test's own, which may be killed."""
    with standing_plane(rml_home) as made:
        monkeypatch.setenv("RML_HOME", str(made.home))
        monkeypatch.setenv("RML_CONTROL_URL", made.url)
        yield made


@pytest.fixture
def plane(mortal: Plane) -> Plane:
    return mortal


@pytest.fixture(scope="module")
def shared_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """One for all tests of a module: each begins with `again`."""
    with standing_plane(tmp_path_factory.mktemp("plane")) as made:
        yield made


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
        disable_nagle_algorithm = True  # head and body go in two parts: the second would wait 40 ms

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


@dataclass
class Upstream:
    """A model server: what each version answers with (a body, or (status, body), or raises to hang up), and what it was asked."""

    address: str = ""
    answers: dict[int, Callable[[], Any]] = field(default_factory=dict)
    asked: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)
    connections: set[Any] = field(default_factory=set)


def start_upstream() -> tuple[Upstream, Callable[[], None]]:
    state = Upstream()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # head and body go in two parts: the second would wait 40 ms

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            version = int(self.path.split("/")[5])
            assert self.path == f"/v2/models/feed.{version}/versions/{version}/infer"
            state.asked.append((version, {name.lower(): value for name, value in self.headers.items()}, body))
            state.connections.add(self.client_address)
            outputs = [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [version, 0.5]}]
            try:
                said = state.answers[version]() if version in state.answers else {"outputs": outputs}
            except ConnectionError:
                self.close_connection = True
                return
            status, answer = said if isinstance(said, tuple) else (200, said)
            payload = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(payload)))
            self.end_headers()
            with suppress(BrokenPipeError):  # nobody waits any more
                self.wfile.write(payload)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    state.address = f"127.0.0.1:{server.server_port}"

    def stop() -> None:
        server.shutdown()
        server.server_close()

    return state, stop


@pytest.fixture
def upstream(plane: Plane) -> Iterator[Upstream]:
    """The plane's model server `local`, which has versions 1, 2 and 3 of `feed`."""
    state, stop = start_upstream()
    plane.addresses["local"] = (state.address, "127.0.0.1:2")
    plane.holds(1, 2, 3)
    yield state
    stop()
