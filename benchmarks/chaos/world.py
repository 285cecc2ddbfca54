"""Real processes to be killed: a control plane, two doors, model servers with scripted answers; and clients that do not stop asking."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import uvloop
from roblox_ml_core.digests import canonical_json, sha256_bytes
from roblox_ml_core.errors import RmlError
from roblox_ml_core.http import Pool, UpstreamError
from roblox_ml_core.registry import ModelState, RegistryClient
from roblox_ml_core.settings import HomeSettings
from roblox_ml_core.storage import BlobStore

from .full_disk import open_disk

__all__ = ["BODY", "Load", "World", "eventually"]

SIGNATURE = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
}
BODY = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}]}).encode()
#: Which versions each model server holds.
HOLDS = {"a": (1, 2), "b": (1, 2), "c": (1, 2), "challenger": (3,), "shadow": (4,)}


def eventually(what: str, ready: Callable[[], Any], timeout: float = 60.0) -> float:
    """Seconds until it was so; an AssertionError where it never was."""
    began = time.monotonic()
    while True:
        try:
            if ready():
                return time.monotonic() - began
        except (RmlError, httpx.HTTPError, OSError):
            pass
        assert time.monotonic() - began < timeout, f"not within {timeout} s: {what}"
        time.sleep(0.02)


class Load:
    """Requests of many users at a steady rate to all doors, in a thread with a loop of its own."""

    def __init__(self, doors: list[str], endpoint: str, rate: float) -> None:
        self.doors, self._rate = doors, rate
        self._path = f"/v2/models/{endpoint}/infer".encode()
        self.outcomes: Counter[str] = Counter()
        self.latest: dict[str, list[tuple[float, str]]] = defaultdict(list)
        self.sent = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: uvloop.run(self._run()), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask no more; wait for every answer."""
        self._stop.set()
        self._thread.join(60)

    def more(self, count: int) -> None:
        """Wait for so many more answers."""
        wanted = sum(self.outcomes.values()) + count
        eventually("more answers", lambda: sum(self.outcomes.values()) >= wanted)

    def versions(self, since: float) -> dict[str, set[str]]:
        """What each door has answered with since a moment."""
        return {door: {v for at, v in self.latest[door][-2000:] if at >= since} for door in self.doors}

    def all_answer_with(self, version: str) -> float:
        """Seconds until all doors have answered for a tenth of a second with it alone; that tenth is left out."""
        seconds = eventually(f"version {version}", lambda: all(
            found == {version} for found in self.versions(time.monotonic() - 0.1).values()
        ))  # fmt: skip
        return max(0.0, seconds - 0.1)

    async def _run(self) -> None:
        pools = {door: Pool(door, max_connections=256) for door in self.doors}
        under_way: set[asyncio.Task[None]] = set()

        async def ask(door: str, unit: int) -> None:
            headers = [(b"content-type", b"application/json"), (b"x-rml-unit", b"u%d" % unit)]
            try:
                response = await pools[door].request(b"POST", self._path, headers, BODY, timeout=20)
            except UpstreamError as error:
                self.outcomes[repr(error)[:200]] += 1
                return
            good = response.status in (200, 429)
            self.outcomes[str(response.status) if good else f"{response.status} {response.body[:200].decode()}"] += 1
            self.latest[door].append((time.monotonic(), (response.header(b"x-rml-model-version") or b"").decode()))

        began = time.monotonic()
        while not self._stop.is_set():
            while self.sent < (time.monotonic() - began) * self._rate:
                self.sent += 1
                task = asyncio.create_task(ask(random.choice(self.doors), random.randrange(1000)))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
            await asyncio.sleep(0.001)
        await asyncio.gather(*under_way)
        await asyncio.gather(*(pool.close() for pool in pools.values()))


class World:
    """The processes, in a home of their own. `processes` are those that live; `records` is where doors keep theirs, until `gone`."""

    def __init__(self, home: Path, port: Callable[[], int]) -> None:
        self.home, self._port, control = home, port, port()
        self.environment = {
            **os.environ, "RML_HOME": str(home), "RML_CONTROL_PORT": str(control), "RML_CONTROL_URL": f"http://127.0.0.1:{control}",
            "RML_MLFLOW_ENABLED": "false", "RML_RECORDS_FLUSH_S": "0.2", "RML_GUARD_ACTION": "off",
        }  # fmt: skip
        settings = HomeSettings(home=home)
        settings.ensure_token()
        self._store = BlobStore(settings.store_url)
        self.client = RegistryClient(self.environment["RML_CONTROL_URL"], settings.read_token())
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.disk = open_disk(home / "disk")
        self.records = self.disk.seen / "records"
        self._servers: dict[str, tuple[int, list[ModelState]]] = {}
        self._stop = threading.Event()
        self._agents = threading.Thread(target=self._report, daemon=True)
        self.start_plane()
        eventually("control plane", self.client.ready)
        states = {number: self.register("feed", str(number)) for number in (1, 2, 3, 4)}
        for name, numbers in HOLDS.items():
            self.serve(name, [states[number] for number in numbers])
        self.client.put_endpoint("feed", "feed", version=1)
        self._agents.start()
        self.doors = [self._start_door(number) for number in range(2)]
        for door in self.doors:
            self.answers(door, "feed")

    def start_plane(self) -> None:
        self._start("plane", [sys.executable, "-m", "roblox_ml_platform"])

    def serve(self, name: str, states: list[ModelState], *limits: str) -> None:
        """Start a model server that holds these versions."""
        number = self._port()
        self._start(name, [sys.executable, "-m", "benchmarks.chaos.model_server", str(number), *limits])
        self._servers[name] = number, states

    def address(self, name: str) -> str:
        """Of a model server."""
        return f"127.0.0.1:{self._servers[name][0]}"

    def register(self, model: str, mark: str) -> ModelState:
        """Another version; the mark tells packages apart."""

        def entry(data: bytes) -> dict[str, Any]:
            self._store.put(data)
            return {"sha256": sha256_bytes(data), "size": len(data)}

        files = {"signature.json": entry(canonical_json(SIGNATURE)), "model/code/m.py": entry(mark.encode())}
        info = {"schema": 1, "format": "python", "files": files, "labels": None, "options": {"entry": "m:predict"}}
        body = {"package": info, "manifest": {**files, "package.json": entry(canonical_json(info))}}
        made = self.client.register(model, body)
        return ModelState(model, made["version"], made["digest"], "ready")

    def answers(self, door: str, endpoint: str) -> None:
        """Wait until the door has answered for the endpoint."""
        url = f"{door}/v2/models/{endpoint}/infer"
        eventually("the door answers", lambda: httpx.post(url, content=BODY).status_code == 200)

    def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def fill_disk(self) -> None:
        """Not a byte more of any door's records fits on the disk; returns when each door has met that."""
        self.disk.fill(self._door_processes())
        eventually("every door meets the full disk", lambda: all(self._failing(door) for door in self.doors))

    def empty_disk(self) -> None:
        """There is space again; returns when each door writes again."""
        self.disk.empty(self._door_processes())
        eventually("every door writes again", lambda: not any(self._failing(door) for door in self.doors))

    def _door_processes(self) -> list[int]:
        return [process.pid for name, process in self.processes.items() if name.startswith("door")]

    def _failing(self, door: str) -> bool:
        return 'rml_records_failing{stream="requests"} 1.0' in httpx.get(f"{door}/metrics").text

    def close(self) -> None:
        """End the processes. The records stay, to be read, until `gone`."""
        self._stop.set()
        if self._agents.is_alive():
            self._agents.join(10)
        for name in reversed(list(self.processes)):
            process = self.processes.pop(name)
            process.terminate()
            process.wait(30)
        self.client.close()

    def gone(self) -> None:
        """End the processes, and the disk of the records."""
        try:
            self.close()
        finally:
            self.disk.close()

    def _start_door(self, number: int) -> str:
        rest = self._port()
        ports = {"RML_DOOR_PORT": str(rest), "RML_DOOR_GRPC_PORT": "0"}
        # Up to the last byte: what the door itself keeps free for others would hide what the kernel says.
        records = {"RML_RECORDS": str(self.disk.folder / "records"), "RML_RECORDS_KEEP_FREE_BYTES": "0"}
        command = self.disk.command([sys.executable, "-m", "roblox_ml_serving.door"])
        self._start(f"door{number}", command, **ports, **records)
        return f"http://127.0.0.1:{rest}"

    def _start(self, name: str, command: list[str], **environment: str) -> None:
        root = Path(__file__).resolve().parents[2]
        with (self.home / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command, env={**self.environment, **environment}, stdout=log, stderr=log, cwd=root
            )

    def _report(self) -> None:
        """The agents: those of servers that live say what these hold."""
        while not self._stop.is_set():
            for name, (number, held) in list(self._servers.items()):
                if name in self.processes:
                    try:
                        self.client.report(name, f"127.0.0.1:{number}", "127.0.0.1:1", held)
                    except RmlError:
                        break  # the control plane is away
            self._stop.wait(1)
