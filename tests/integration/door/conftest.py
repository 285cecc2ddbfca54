"""The whole serving path as processes: control plane, Triton, agent (as the serving tests start them), and the door."""

from __future__ import annotations

import importlib.util
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

_SOURCE = Path(__file__).resolve().parents[1] / "serving" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("serving_conftest", _SOURCE)
assert _SPEC is not None and _SPEC.loader is not None
_serving = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = _serving
_SPEC.loader.exec_module(_serving)

build, eventually = _serving.build, _serving.eventually


class DoorStack(_serving.Stack):
    """The serving stack with a door in front."""

    MODULES = {**_serving.Stack.MODULES, "door": "roblox_ml_serving.door"}

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("DOOR_PORT", "DOOR_GRPC_PORT"):
            self.ports[name] = _serving.free_port()

    @property
    def door(self) -> str:
        return f"http://127.0.0.1:{self.ports['DOOR_PORT']}"

    @property
    def door_grpc(self) -> str:
        return f"127.0.0.1:{self.ports['DOOR_GRPC_PORT']}"

    def stop(self) -> None:
        if "door" in self.running:
            process = self.running.pop("door")
            process.terminate()
            process.wait(30)
        super().stop()

    def serving_version(self, endpoint: str) -> str | None:
        try:
            answer = httpx.get(f"{self.door}/v2/models/{endpoint}/ready", timeout=5)
        except httpx.HTTPError:
            return None
        return answer.headers["x-rml-model-version"] if answer.status_code == 200 else None


class Load:
    """Clients that ask without pause and count every outcome; entering waits for the first answer."""

    def __init__(self, url: str, body: dict[str, Any], clients: int = 3) -> None:
        self.outcomes: Counter[str] = Counter()
        self.messages: set[str] = set()
        self.versions: Counter[str] = Counter()
        self._url, self._body = url, body
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(clients)]

    def _ask(self) -> None:
        with httpx.Client(timeout=20) as client:
            while not self._stop.is_set():
                try:
                    answer = client.post(self._url, json=self._body)
                except httpx.TransportError as error:
                    self.outcomes[type(error).__name__] += 1
                    time.sleep(0.02)
                    continue
                self.outcomes[str(answer.status_code)] += 1
                if answer.status_code == 200:
                    self.versions[answer.headers["x-rml-model-version"]] += 1
                else:
                    self.messages.add(answer.json()["error"])
                    time.sleep(0.05)  # a client that asks on without a pause starves the server it waits for

    def wait(self, condition: Callable[[], bool], timeout: float = 120) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, (self.outcomes, self.messages)
            time.sleep(0.02)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        self.wait(lambda: self.outcomes["200"] > 0)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture(scope="session")
def load() -> type[Load]:
    return Load


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, build) -> Iterator[DoorStack]:
    """Two versions of a text classifier and a matrix product, deployed and answered by the door."""
    if not (_serving.TRITON_DIR / ".rml-complete").is_file():
        pytest.skip(f"no Triton environment at {_serving.TRITON_DIR}: `make setup` installs it")
    root = tmp_path_factory.mktemp("door")
    stack = DoorStack(root / "home")
    try:
        for name in ("control", "triton", "agent", "door"):
            stack.start(name)
        with stack.client() as client:
            _serving.wait_for("control plane", client.ready)
        for seed in (0, 1):
            version = stack.publish(build["text"](root / f"text{seed}", seed=seed), "text")
            stack.deploy("text", version)
        stack.deploy("matmul", stack.publish(build["matmul"](root / "matmul"), "matmul"))
        # A rollback before the first version is loaded would have nothing to go back to.
        stack.wait_ready("text/1", "text/2", "matmul/1", timeout=120)
        _serving.wait_for(
            "the door answers", lambda: [stack.serving_version(name) for name in ("text", "matmul")] == ["2", "1"], 120
        )
        yield stack
    finally:
        stack.stop()


@pytest.fixture
def sdk(world: DoorStack, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`roblox_ml._deploy` pointed at the running servers."""
    from importlib import import_module

    addresses = {"CONTROL_URL": world.control_url, "DOOR_URL": world.door, "DOOR_GRPC": world.door_grpc}
    for name, value in {**addresses, "TOKEN": "serving-test-token"}.items():
        monkeypatch.setenv(f"RML_{name}", value)
    return import_module("roblox_ml._deploy")
