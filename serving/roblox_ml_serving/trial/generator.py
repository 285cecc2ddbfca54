"""`python generator.py FILE`: the process that asks. Says "ready", waits for a line, prints the result."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvloop

__all__ = ["Recorder", "arrivals", "main", "quantile", "read_plan"]

Ask = Callable[[bytes], Awaitable[tuple[str, bytes]]]


def read_plan(file: Path) -> tuple[dict[str, Any], list[bytes]]:
    """The plan's JSON line and the bodies behind it."""
    with file.open("rb") as stream:
        plan = json.loads(stream.readline())
        bodies = [stream.read(size) for size in plan.pop("sizes")]
    return plan, bodies


def quantile(ordered: list[float], share: float) -> float:
    """The smallest value that at least `share` of them do not exceed; 0 when there are none."""
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


def arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """When requests are due: a Poisson process, the same for the same seed."""
    draw = random.Random(seed)  # noqa: S311 - load, no secret
    moments, moment = [], draw.expovariate(rate)
    while moment < seconds:
        moments.append(moment)
        moment += draw.expovariate(rate)
    return moments or [0.0]


class Recorder:
    """Outcomes of one load."""

    def __init__(self, keep: int) -> None:
        self.statuses: Counter[str] = Counter()
        self.answered: list[float] = []
        self.refused: list[float] = []
        self.keep = keep
        self.answers: dict[int, bytes] = {}

    def note(self, index: int, status: str, body: bytes, seconds: float) -> None:
        self.statuses[status] += 1
        if status in ("200", "OK"):
            self.answered.append(seconds * 1e3)
        elif status in ("429", "RESOURCE_EXHAUSTED"):
            self.refused.append(seconds * 1e3)
        if index < self.keep:
            self.answers[index] = body

    def result(self, seconds: float, rate: float | None, cpu_s: float) -> dict[str, Any]:
        ordered = sorted(self.answered)
        return {
            "requests": sum(self.statuses.values()),
            "seconds": seconds,
            "offered_per_second": rate,
            "statuses": dict(self.statuses),
            "mean_ms": sum(ordered) / max(1, len(ordered)),
            "p50_ms": quantile(ordered, 0.5),
            "p90_ms": quantile(ordered, 0.9),
            "p99_ms": quantile(ordered, 0.99),
            "max_ms": quantile(ordered, 1.0),
            "refused_p99_ms": quantile(sorted(self.refused), 0.99),
            "client_cpu_s": cpu_s,
            "answers": [base64.b64encode(self.answers[i]).decode() for i in sorted(self.answers)],
        }


def rest(plan: dict[str, Any]) -> Ask:
    from roblox_ml_core.http import DeadlineExceeded, Pool, UpstreamError

    pool = Pool(plan["address"], max_connections=4096, max_waiting=1 << 20, connect_timeout=plan["timeout_s"])
    path = plan["path"].encode()
    headers = [(key.encode(), value.encode()) for key, value in plan["headers"]]

    async def ask(body: bytes) -> tuple[str, bytes]:
        try:
            # Never sent twice in silence: what a client sees must be counted.
            answer = await pool.request(b"POST", path, headers, body, timeout=plan["timeout_s"], resend_safe=False)
        except DeadlineExceeded:
            return "timeout", b""
        except UpstreamError as error:
            return type(error).__name__, b""
        return str(answer.status), answer.body

    return ask


def grpc_unary(plan: dict[str, Any]) -> Ask:
    import grpc

    channel = grpc.aio.insecure_channel(
        plan["address"],
        options=[("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)],
    )
    call = channel.unary_unary(plan["path"])
    metadata = [(key, value) for key, value in plan["headers"]]

    async def ask(body: bytes) -> tuple[str, bytes]:
        try:
            return "OK", await call(body, timeout=plan["timeout_s"], metadata=metadata)
        except grpc.aio.AioRpcError as error:
            return ("timeout" if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED else error.code().name), b""

    return ask


async def closed(ask: Ask, bodies: list[bytes], plan: dict[str, Any], recorder: Recorder) -> float:
    clock = time.perf_counter
    started = clock()
    until = started + plan["seconds"] if plan["seconds"] is not None else None
    turn = 0

    async def worker() -> None:
        nonlocal turn
        while until is None or clock() < until:
            index, turn = turn, turn + 1
            if plan["requests"] is not None and index >= plan["requests"]:
                return
            sent = clock()
            status, body = await ask(bodies[index % len(bodies)])
            recorder.note(index, status, body, clock() - sent)

    await asyncio.gather(*(worker() for _ in range(plan["workers"])))
    return clock() - started


async def opened(ask: Ask, bodies: list[bytes], plan: dict[str, Any], recorder: Recorder) -> float:
    clock = time.perf_counter
    loop = asyncio.get_running_loop()
    moments = arrivals(plan["rate"], plan["seconds"], plan["seed"])
    done = asyncio.Event()
    left = len(moments)
    tasks: set[asyncio.Task[None]] = set()  # the loop itself holds tasks only weakly
    started = clock()

    async def one(index: int) -> None:
        nonlocal left
        status, body = await ask(bodies[index % len(bodies)])
        recorder.note(index, status, body, clock() - started - moments[index])
        left -= 1
        if not left:
            done.set()

    def send(index: int) -> None:
        task = loop.create_task(one(index))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def metronome() -> None:
        # The loop's own timers come in whole milliseconds, a tenth of what is measured here.
        for index, moment in enumerate(moments):
            wait = started + moment - clock()
            if wait > 0:
                time.sleep(wait)
            loop.call_soon_threadsafe(send, index)

    threading.Thread(target=metronome, daemon=True).start()
    await done.wait()
    return clock() - started


async def run(plan: dict[str, Any], bodies: list[bytes]) -> dict[str, Any]:
    ask = (grpc_unary if plan["protocol"] == "grpc" else rest)(plan)
    is_open = plan["loop"] == "open"
    # Every connection that will be needed is open before the clock starts, unless the load is open-ended.
    width = 8 if is_open else plan["workers"]
    for start in range(0, plan["warmup"], width):
        size = min(width, plan["warmup"] - start)
        await asyncio.gather(*(ask(bodies[-1 - (start + i) % len(bodies)]) for i in range(size)))
    print("ready", flush=True)
    sys.stdin.readline()
    recorder = Recorder(plan["keep"])
    cpu = time.process_time()
    seconds = await (opened if is_open else closed)(ask, bodies, plan, recorder)
    return recorder.result(seconds, plan.get("rate"), time.process_time() - cpu)


def main() -> int:
    plan, bodies = read_plan(Path(sys.argv[1]))
    print(json.dumps(uvloop.run(run(plan, bodies))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
