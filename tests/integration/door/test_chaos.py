"""Things die under load: what may be killed without one client noticing, with exact accounts of every request afterwards.

Real processes: a control plane, two doors, five model servers (their answers are scripted). Times are printed, not asserted.
"""

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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from roblox_ml_core.digests import canonical_json, sha256_bytes
from roblox_ml_core.errors import RmlError
from roblox_ml_core.http import Pool, UpstreamError
from roblox_ml_core.records import read_accounts
from roblox_ml_core.registry import ModelState, RegistryClient
from roblox_ml_core.settings import HomeSettings
from roblox_ml_core.storage import BlobStore

SIGNATURE = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
}
BODY = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}]}).encode()
MODEL_SERVER = """
import asyncio, sys
async def serve(reader, writer):
    try:
        while True:
            head = await reader.readuntil(b"\\r\\n\\r\\n")
            length = [int(l.split(b":")[1]) for l in head.split(b"\\r\\n") if l.lower().startswith(b"content-length")]
            if length: await reader.readexactly(length[0])
            _, _, _, model, _, version, *_ = head.split(b" ")[1].split(b"/")
            body = b'{"model_name":"%s","model_version":"%s","outputs":[]}' % (model, version)
            writer.write(b"HTTP/1.1 200 OK\\r\\ncontent-type: application/json\\r\\ncontent-length: %d\\r\\n\\r\\n%s" % (len(body), body))
    except (asyncio.IncompleteReadError, ConnectionError): pass
    finally: writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()
asyncio.run(main())
"""


def eventually(what: str, ready: Callable[[], Any], timeout: float = 60.0) -> float:
    """Seconds until it was so."""
    began = time.monotonic()
    while True:
        try:
            if ready():
                return time.monotonic() - began
        except (RmlError, httpx.HTTPError, OSError):
            pass
        assert time.monotonic() - began < timeout, f"not within {timeout} s: {what}"
        time.sleep(0.02)


class World:
    """The processes and the steady load. `failed` and `versions` count what clients saw; versions of the last second by door."""

    def __init__(self, home: Path, port: Callable[[], int]) -> None:
        self.home, control = home, port()
        self.environment = {
            **os.environ, "RML_HOME": str(home), "RML_CONTROL_PORT": str(control), "RML_CONTROL_URL": f"http://127.0.0.1:{control}",
            "RML_MLFLOW_ENABLED": "false", "RML_RECORDS_FLUSH_S": "0.2", "RML_GUARD_ACTION": "off",
        }  # fmt: skip
        settings = HomeSettings(home=home)
        settings.ensure_token()
        self.store = BlobStore(settings.store_url)
        self.client = RegistryClient(self.environment["RML_CONTROL_URL"], settings.read_token())
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.start_plane()
        eventually("control plane", self.client.ready)
        self.states = {number: self._register(str(number)) for number in (1, 2, 3, 4)}
        holds = {"a": (1, 2), "b": (1, 2), "c": (1, 2), "challenger": (3,), "shadow": (4,)}
        self.servers = {name: (port(), numbers) for name, numbers in holds.items()}
        for name, (number, _) in self.servers.items():
            self._start(name, [sys.executable, "-c", MODEL_SERVER, str(number)])
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._report, daemon=True)]
        self.client.put_endpoint("feed", "feed", version=1)
        self.doors: list[str] = []
        for number in range(2):
            rest = port()
            self.doors.append(f"http://127.0.0.1:{rest}")
            ports = {"RML_DOOR_PORT": str(rest), "RML_DOOR_GRPC_PORT": "0"}
            self._start(f"door{number}", [sys.executable, "-m", "roblox_ml_serving.door"], **ports)
        self._threads[0].start()
        for door in self.doors:
            eventually("the door answers", lambda door=door: self._post(door).status_code == 200)
        self.outcomes: Counter[str] = Counter()
        self.latest: dict[str, list[tuple[float, str]]] = defaultdict(list)
        self.sent = 0
        self._threads.append(threading.Thread(target=lambda: asyncio.run(self._load()), daemon=True))
        self._threads[1].start()

    def start_plane(self) -> None:
        self._start("plane", [sys.executable, "-m", "roblox_ml_platform"])

    def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def versions(self, since: float) -> dict[str, set[str]]:
        """What each door has answered with since a moment."""
        return {door: {v for at, v in list(self.latest[door]) if at >= since} for door in self.doors}

    def both_answer_with(self, version: str) -> float:
        """Seconds until both doors answer with it alone."""
        return eventually(f"version {version}", lambda: all(
            found == {version} for found in self.versions(time.monotonic() - 0.1).values()
        ))  # fmt: skip

    def more(self, count: int) -> None:
        wanted = sum(self.outcomes.values()) + count
        eventually("more requests", lambda: sum(self.outcomes.values()) >= wanted)

    def end_load(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def close(self) -> None:
        self._stop.set()
        for name in list(self.processes):
            process = self.processes.pop(name)
            process.terminate()
            process.wait(30)
        self.client.close()

    def _start(self, name: str, command: list[str], **environment: str) -> None:
        log = (self.home / f"{name}.log").open("ab")
        self.processes[name] = subprocess.Popen(
            command, env={**self.environment, **environment}, stdout=log, stderr=log
        )

    def _post(self, door: str) -> httpx.Response:
        return httpx.post(f"{door}/v2/models/feed/infer", content=BODY)

    def _register(self, mark: str) -> ModelState:
        def entry(data: bytes) -> dict[str, Any]:
            self.store.put(data)
            return {"sha256": sha256_bytes(data), "size": len(data)}

        files = {"signature.json": entry(canonical_json(SIGNATURE)), "model/code/m.py": entry(mark.encode())}
        info = {"schema": 1, "format": "python", "files": files, "labels": None, "options": {"entry": "m:predict"}}
        made = self.client.register(
            "feed", {"package": info, "manifest": {**files, "package.json": entry(canonical_json(info))}}
        )
        return ModelState("feed", made["version"], made["digest"], "ready")

    def _report(self) -> None:
        """The agents: those of servers that live say what these hold."""
        while not self._stop.is_set():
            for name, (number, held) in self.servers.items():
                if name in self.processes:
                    try:
                        self.client.report(
                            name, f"127.0.0.1:{number}", "127.0.0.1:1", [self.states[one] for one in held]
                        )
                    except RmlError:
                        break  # the control plane is away
            self._stop.wait(1)

    async def _load(self, rate: float = 200.0) -> None:
        pools = {door: Pool(door, max_connections=64) for door in self.doors}
        under_way: set[asyncio.Task[None]] = set()

        async def ask(door: str, unit: int) -> None:
            headers = [(b"content-type", b"application/json"), (b"x-rml-unit", b"u%d" % unit)]
            try:
                response = await pools[door].request(b"POST", b"/v2/models/feed/infer", headers, BODY, timeout=20)
            except UpstreamError as error:
                self.outcomes[repr(error)[:200]] += 1
                return
            text = "200" if response.status == 200 else f"{response.status} {response.body[:200].decode()}"
            self.outcomes[text] += 1
            version = (response.header(b"x-rml-model-version") or b"").decode()
            self.latest[door].append((time.monotonic(), version))

        began = time.monotonic()
        while not self._stop.is_set():
            self.sent += 1
            task = asyncio.create_task(ask(random.choice(self.doors), random.randrange(1000)))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            await asyncio.sleep(max(0.0, began + self.sent / rate - time.monotonic()))
        await asyncio.gather(*under_way)
        await asyncio.gather(*(pool.close() for pool in pools.values()))


@pytest.fixture
def world(rml_home: Path, free_port: Callable[[], int]) -> Iterator[World]:
    found = World(rml_home, free_port)
    try:
        yield found
    finally:
        found.close()


@pytest.mark.slow
def test_no_client_notices_what_dies_and_every_request_is_accounted_for(world: World, rml_home: Path) -> None:
    client, told = world.client, []
    world.more(100)

    client.put_endpoint("feed", "feed", version=2)
    told.append(f"moved to version 2: both doors after {world.both_answer_with('2'):.2f} s")
    client.rollback_endpoint("feed")
    told.append(f"rolled back to version 1: both doors after {world.both_answer_with('1'):.2f} s")

    client.start_canary("feed", 3, share=3000)
    eventually("the canary answers", lambda: all("3" in v for v in world.versions(time.monotonic() - 0.5).values()))
    world.kill("challenger")
    world.more(200)
    client.end_canary("feed", "it died")

    client.put_shadow("feed", "next", "feed/4")
    world.more(200)
    world.kill("shadow")
    world.more(200)
    client.delete_shadow("feed", "next")

    world.kill("b")
    world.more(400)

    records = rml_home / "records"
    requests, away = records / "requests", records / "requests.away"
    requests.rename(away)
    requests.write_bytes(b"")  # nothing can be written below it: a disk that takes no more
    world.more(200)
    requests.unlink()
    away.rename(requests)
    world.more(100)

    world.kill("plane")
    world.more(400)
    world.start_plane()
    eventually("control plane", client.ready)
    client.put_endpoint("feed", "feed", version=2)
    told.append(f"after a new control plane, moved: both doors after {world.both_answer_with('2'):.2f} s")

    world.end_load()
    world.close()
    print("", *told, f"{world.sent} requests", sep="\n")
    assert dict(world.outcomes) == {"200": world.sent}
    accounts = read_accounts(str(records))
    assert len(accounts) == 2
    assert all(one.balanced and not one.buffered for streams in accounts.values() for one in streams.values())
    kept = [streams["requests"] for streams in accounts.values()]
    asked_first = 2  # the two that waited for the doors
    assert sum(one.offered for one in kept) >= world.sent + asked_first
    assert sum(one.lost for one in kept) == 0
    assert sum(one.written for one in kept) == sum(one.offered for one in kept), (
        "nothing was dropped: the disk came back in time"
    )
