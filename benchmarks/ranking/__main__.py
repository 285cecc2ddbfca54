"""`python -m benchmarks.ranking`: how long one ranking keeps every other request of the door waiting, by number of candidates.

The door's own parts over HTTP to a feature server in another process; the model answers at once. What is measured is the longest
callback of the event loop, in processor time: while it runs, nobody else's request goes on. New candidates each time (nothing is in the
cache), then the same ones again. A table for people, the last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from prometheus_client import CollectorRegistry
from roblox_ml_core.http import Response
from roblox_ml_core.settings import FeaturesSettings
from roblox_ml_serving.door.snapshot import Target, Version
from roblox_ml_serving.preprocess.kinds import Call
from roblox_ml_serving.ranking import endpoint as ranking_endpoint
from roblox_ml_serving.ranking.endpoint import RankingEndpoint, RankingKind
from roblox_ml_serving.ranking.spec import RankingSpec

ITEMS, FEATURES = 400_000, 20


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ranking", description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="rankings of each kind; the middle one is shown")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rml-ranking-") as folder, _features(Path(folder)) as address:
        found = asyncio.run(_measure(address, options.rounds))
    print(
        f"{'candidates':>10} {'':>7} {'longest callback':>17} {'whole ranking':>14}   milliseconds, middle of {options.rounds}"
    )
    for key, (lag, whole) in found.items():
        count, _, kind = key.partition(" ")
        print(f"{int(count):>10,} {kind:>7} {lag:>17.2f} {whole:>14.2f}")
    figures: dict[str, float] = {}
    for key, (lag, whole) in found.items():
        name = key.replace(" ", "_")
        figures |= {f"held_{name}_ms": float(f"{lag:.4g}"), f"ranking_{name}_ms": float(f"{whole:.4g}")}
    print(json.dumps(figures))


@contextmanager
def _features(folder: Path) -> Iterator[str]:
    rng = np.random.default_rng(1)
    columns = {f"f{n}": rng.random(ITEMS, np.float32) for n in range(FEATURES)}
    pq.write_table(pa.table({"key": np.arange(ITEMS), **columns}), folder / "item.parquet")
    pq.write_table(pa.table({"key": ["ann"], "age": [1.0]}), folder / "user.parquet")
    command = [
        sys.executable,
        "-m",
        "roblox_ml_serving.ranking.stub",
        str(folder / "item.parquet"),
        str(folder / "user.parquet"),
    ]
    with subprocess.Popen([*command, "--port", "0"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().removeprefix("features: ").strip()
        finally:
            process.terminate()


def _endpoint(address: str) -> tuple[RankingKind, RankingEndpoint]:
    def view(name: str, of: str, features: list[str]) -> dict[str, Any]:
        return {"name": name, "of": of, "ttl_s": 600, "features": [{"name": one, "default": 0.0} for one in features]}

    names = [f"f{n}" for n in range(FEATURES)]
    spec = {
        "schema": 1, "candidates": "INT64", "k": 10, "features_share": 0.9, "context": [],
        "views": [view("user", "user", ["age"]), view("item", "item", names)],
        "columns": ["user.age", *(f"item.{name}" for name in names)], "model": {"input": "X", "output": "score", "column": None},
    }  # fmt: skip

    async def ask(target: Target, protocol: str, call: Callable[..., Awaitable[Response]]) -> Response:
        return await call(SimpleNamespace(name="triton"), target)

    door: Any = SimpleNamespace(metrics=SimpleNamespace(registry=CollectorRegistry()), ask=ask)
    kind = RankingKind(door, FeaturesSettings(url=address))
    return kind, kind.handler(
        Target("feed", Version("feed", 1, "d"), ("triton",), True), RankingSpec.read(json.dumps(spec).encode())
    )


async def _scored(
    server: Any, target: Target, method: bytes, what: bytes, headers: Any, body: bytes, _: float
) -> Response:
    """The model: it has its answer at once."""
    length = int(dict(headers)[b"inference-header-content-length"])
    count = json.loads(body[:length])["inputs"][0]["shape"][0]
    head = json.dumps({"outputs": [{"name": "score", "datatype": "FP32", "shape": [count]}]}).encode()
    scores: Any = np.arange(count, dtype="<f4")
    return Response(200, [(b"inference-header-content-length", b"%d" % len(head))], head + scores.tobytes())


async def _measure(address: str, rounds: int) -> dict[str, tuple[float, float]]:
    setattr(ranking_endpoint, "exchange", _scored)  # noqa: B010  (it is not exported: this stands in for a model server)
    kind, endpoint = _endpoint(address)
    longest = _Longest()
    found: dict[str, tuple[float, float]] = {}
    rng = np.random.default_rng(2)
    for count in (100, 1_000, 10_000):
        times: dict[str, list[tuple[float, float]]] = {"new": [], "again": []}
        for _ in range(rounds):
            items = rng.choice(ITEMS, count, replace=False).tolist()
            tensors = [("USER", "BYTES", ["ann"]), ("CANDIDATES", "INT64", items)]
            inputs = [
                {"name": name, "datatype": kind, "shape": [len(data)], "data": data} for name, kind, data in tensors
            ]
            body = json.dumps({"inputs": inputs}).encode()
            for kept in times.values():
                longest.seconds, began = 0.0, time.perf_counter()
                # A task of its own: its first step is measured too.
                await asyncio.create_task(
                    endpoint.rest(body, None, asyncio.get_running_loop().time() + 20, Call("i", "ann", {}))
                )
                kept.append((longest.seconds, time.perf_counter() - began))
        for what, kept in times.items():
            found[f"{count} {what}"] = (median(lag for lag, _ in kept) * 1000, median(all_ for _, all_ in kept) * 1000)
    await kind.close()
    return found


class _Longest:
    """The longest callback since `seconds` was last set to nothing."""

    def __init__(self) -> None:
        self.seconds = 0.0
        run = asyncio.events.Handle._run

        def timed(handle: asyncio.events.Handle) -> None:
            began = time.thread_time()  # of the processor: what else this machine does is not the door's
            run(handle)
            self.seconds = max(self.seconds, time.thread_time() - began)

        setattr(asyncio.events.Handle, "_run", timed)  # noqa: B010  (typed as final)


if __name__ == "__main__":
    main()
