"""What a request through the door costs, beside httpx and beside no door at all, in one run.

Two questions, one stub in place of a model server:

* the upstream client: our pool against httpx, CPU time of this process per request, alone and 16 at a time;
* the door: p50 of a request sent straight to the stub and through the door.

CPU time is the robust number on a shared machine; the last line is JSON. Run from the repository's root:
`python -m benchmarks.door`.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httptools
import httpx
import uvloop
from roblox_ml_core.http import Pool
from roblox_ml_serving.door.follower import store

REQUESTS = int(os.environ.get("RML_BENCH_REQUESTS", "4000"))
HTTPX_REQUESTS = max(200, REQUESTS // 10)
BODY = json.dumps({"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 64], "data": [0.25] * 64}]}).encode()
ANSWER = json.dumps({"model_name": "m.1", "model_version": "1", "outputs": []}, separators=(",", ":")).encode()
RAW = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER)
HEADERS = [(b"content-type", b"application/json")]


class Stub(asyncio.Protocol):
    """Answers every request with the same bytes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        self.transport.write(RAW)  # type: ignore[attr-defined]


async def stub() -> None:
    server = await asyncio.get_running_loop().create_server(Stub, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def cpu_us(ask: Callable[[], Awaitable[object]], total: int, width: int) -> float:
    """CPU microseconds of this process per request, `width` requests under way."""
    await asyncio.gather(*(ask() for _ in range(width)))

    async def worker() -> None:
        for _ in range(total // width):
            await ask()

    started = time.process_time()
    await asyncio.gather(*(worker() for _ in range(width)))
    return (time.process_time() - started) / (total // width * width) * 1e6


async def p50_us(pool: Pool, target: bytes, total: int) -> float:
    times = []
    for _ in range(total):
        started = time.perf_counter()
        response = await pool.request(b"POST", target, HEADERS, BODY, timeout=10)
        times.append(time.perf_counter() - started)
        assert response.status == 200, response
    return statistics.median(times[total // 10 :]) * 1e6


def start(command: list[str], environment: dict[str, str]) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [sys.executable, *command],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def cpu_seconds(process: subprocess.Popen[str]) -> float:
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure() -> dict[str, float]:
    upstream, port = start(["-m", "benchmarks.door", "stub"], {})
    home = Path(tempfile.mkdtemp(prefix="rml-bench-"))
    address = f"127.0.0.1:{port}"
    entry = {"model": "m", "version": 1, "digest": "d", "previous": None}
    servers = {"s": {"http": address, "grpc": address, "ready": {"m/1": "d"}}}
    store(
        home / "serving" / "snapshot.json",
        {"schema": 1, "generation": 1, "endpoints": {"m": entry}, "servers": servers},
        {},
    )
    settings = {
        "RML_HOME": str(home),
        "RML_DOOR_PORT": "0",
        "RML_DOOR_GRPC_PORT": "0",
        "RML_CONTROL_URL": "http://127.0.0.1:9",
    }
    door, line = start(["-m", "roblox_ml_serving.door"], settings)
    try:
        direct, through = Pool(address), Pool(line.split()[2])
        infer = b"/v2/models/m.1/versions/1/infer"
        result: dict[str, float] = {}

        async def ours() -> object:
            return await direct.request(b"POST", infer, HEADERS, BODY, timeout=10)

        limits = httpx.Limits(max_connections=128, max_keepalive_connections=128)
        async with httpx.AsyncClient(base_url=f"http://{address}", limits=limits) as client:

            async def theirs() -> object:
                return await client.post(infer.decode(), content=BODY, headers={"content-type": "application/json"})

            for width in (1, 16):
                result[f"pool_cpu_us_c{width}"] = await cpu_us(ours, REQUESTS, width)
                result[f"httpx_cpu_us_c{width}"] = await cpu_us(theirs, HTTPX_REQUESTS, width)
                result[f"ratio_httpx_vs_pool_c{width}"] = (
                    result[f"httpx_cpu_us_c{width}"] / result[f"pool_cpu_us_c{width}"]
                )
        result["direct_p50_us"] = await p50_us(direct, infer, REQUESTS)
        result["door_p50_us"] = await p50_us(through, b"/v2/models/m/infer", REQUESTS)
        result["door_added_p50_us"] = result["door_p50_us"] - result["direct_p50_us"]

        async def asked() -> object:
            return await through.request(b"POST", b"/v2/models/m/infer", HEADERS, BODY, timeout=10)

        before = cpu_seconds(door)
        await cpu_us(asked, REQUESTS, 16)
        result["door_cpu_us_c16"] = (cpu_seconds(door) - before) / REQUESTS * 1e6
        await asyncio.gather(direct.close(), through.close())
        return result
    finally:
        for process in (door, upstream):
            process.terminate()
            process.wait()


def main() -> None:
    if sys.argv[1:] == ["stub"]:
        uvloop.run(stub())
        return
    result = {key: round(value, 1) for key, value in uvloop.run(measure()).items()}
    width = max(map(len, result))
    for key, value in result.items():
        print(f"{key:<{width}}  {value:>10.1f}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
