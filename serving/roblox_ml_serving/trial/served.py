"""The served path measured: clients, door, Triton, instances; REST and gRPC; at capacity, at half of it, and with a cache."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .load import LoadResult, closed_loop, open_loop
from .scenarios import repeated
from .stack import TrialStack
from .traffic import Traffic, grpc_texts, rest_texts

__all__ = ["CACHED", "PLAIN", "ServedPath", "measure_served", "policies"]

PLAIN, CACHED = "plain", "cached"
HITS, POPULAR = 0.4, 500


@dataclass(frozen=True, slots=True)
class ServedPath:
    """What came of it. `loads`: every load by name, in the order of its rounds."""

    loads: Mapping[str, Sequence[LoadResult]]
    capacity_rest: float
    capacity_grpc: float
    cpu_ms: Mapping[str, float]  # per inference over REST at capacity, by part
    p50_ms: float  # REST, open loop at half of capacity
    p99_ms: float
    p50_ms_grpc: float
    p99_ms_grpc: float
    cache_speedup: float | None
    memory_mb: Mapping[str, float]
    instances: int

    @property
    def server_cpu_ms(self) -> float:
        return sum(self.cpu_ms.values())


def policies(entries: int = 100_000, megabytes: int = 64) -> dict[str, Any]:
    """The policy of both endpoints of a measurement: one without a cache, one with."""
    queue = {"max_wait_ms": 2000, "max_rows": 10_000}
    none, some = {"entries": 0, "bytes": 0}, {"entries": entries, "bytes": megabytes << 20}
    return {PLAIN: {"cache": none, "queue": queue}, CACHED: {"cache": some, "queue": queue}}


def measure_served(
    package: Path,
    texts: Sequence[str],
    *,
    rounds: int = 3,
    seconds: float = 3.0,
    workers: Sequence[int] = (16, 32, 64),
    cache: bool = True,
    instances: int | None = None,
    env: Mapping[str, str] | None = None,
    progress: Callable[[str], None] = lambda _: None,
    between: Callable[[int], None] = lambda _: None,
) -> ServedPath:
    """Start a stack with this package, once without and once with a cache, and ask it.

    `between(number)` is called before every round, with the servers idle: what is compared with them takes its turn there.
    """
    endpoints = {PLAIN: package, CACHED: package} if cache else {PLAIN: package}
    seen: dict[str, list[LoadResult]] = {}
    progress("starting Triton and a door")
    with TrialStack(endpoints, instances=instances, policy=policies(), env=env) as stack:
        count = max(1, len(stack.instances()) // len(endpoints))
        rest, grpc = rest_texts(stack.rest, PLAIN, texts), grpc_texts(stack.grpc, PLAIN, texts)
        width = best_width(stack, rest, workers, seconds / 2)

        def closed(name: str, traffic: Traffic, offset: int) -> None:
            found = closed_loop(
                turned(traffic, offset), workers=width, seconds=seconds, warmup=2 * width, cpu=stack.cpu_seconds
            )
            seen.setdefault(name, []).append(found)

        for turn in range(rounds):
            between(turn)
            progress(f"served path, round {turn + 1} of {rounds}")
            closed("rest", rest, 997 * turn)
            closed("grpc", grpc, 997 * turn)
            half = {
                name: 0.5 * statistics.median(result.per_second for result in seen[name]) for name in ("rest", "grpc")
            }
            for name, traffic in (("rest", rest), ("grpc", grpc)):
                found = open_loop(
                    turned(traffic, 499 * turn),
                    rate=max(1.0, half[name]),
                    seconds=seconds,
                    warmup=32,
                    seed=turn,
                    cpu=stack.cpu_seconds,
                )
                seen.setdefault(f"{name} at half", []).append(found)
        speedup = measure_cache(stack, texts, width, rounds, seconds, seen, progress) if cache else None
        memory = {part: size / 2**20 for part, size in stack.memory_bytes().items()}
    return summarise(seen, speedup, memory, count)


def best_width(stack: TrialStack, traffic: Traffic, widths: Sequence[int], seconds: float) -> int:
    """How many clients at once bring most; also the warm-up."""
    rates = {
        width: closed_loop(traffic, workers=width, seconds=seconds, warmup=2 * width).per_second for width in widths
    }
    return max(rates, key=lambda width: rates[width])


def measure_cache(
    stack: TrialStack,
    texts: Sequence[str],
    width: int,
    rounds: int,
    seconds: float,
    seen: dict[str, list[LoadResult]],
    progress: Callable[[str], None],
) -> float:
    """Answers per second where 40 % of the texts were asked before: with the cache, by without."""
    known, stream = repeated(texts, HITS, min(POPULAR, len(texts) // 4))
    closed_loop(rest_texts(stack.rest, CACHED, known), workers=width, requests=2 * len(known))
    part = len(stream) // rounds  # no text that is new in one round was asked in the one before
    for turn in range(rounds):
        progress(f"cache, round {turn + 1} of {rounds}")
        fresh = stream[turn * part : (turn + 1) * part]
        for endpoint in (PLAIN, CACHED) if turn % 2 == 0 else (CACHED, PLAIN):
            found = closed_loop(
                rest_texts(stack.rest, endpoint, fresh), workers=width, seconds=seconds, cpu=stack.cpu_seconds
            )
            seen.setdefault(f"hits {endpoint}", []).append(found)
    ratios = [
        cached.per_second / plain.per_second
        for cached, plain in zip(seen[f"hits {CACHED}"], seen[f"hits {PLAIN}"], strict=True)
    ]
    return statistics.median(ratios)


def turned(traffic: Traffic, offset: int) -> Traffic:
    """The same requests, beginning with another."""
    start = offset % len(traffic.bodies)
    bodies = [*traffic.bodies[start:], *traffic.bodies[:start]]
    return Traffic(traffic.protocol, traffic.address, traffic.path, bodies, traffic.headers, traffic.rows)


def summarise(
    seen: Mapping[str, Sequence[LoadResult]], speedup: float | None, memory: Mapping[str, float], instances: int
) -> ServedPath:
    """Medians over rounds."""

    def median(name: str, value: Callable[[LoadResult], float]) -> float:
        return statistics.median(value(result) for result in seen[name])

    parts = seen["rest"][0].cpu
    cpu = {
        part: median("rest", lambda r, part=part: 1e3 * r.cpu[part] / max(1, r.answered * r.rows))  # type: ignore[misc]
        for part in parts
    }
    return ServedPath(
        loads=seen,
        capacity_rest=median("rest", lambda r: r.per_second),
        capacity_grpc=median("grpc", lambda r: r.per_second),
        cpu_ms=cpu,
        p50_ms=median("rest at half", lambda r: r.p50_ms),
        p99_ms=median("rest at half", lambda r: r.p99_ms),
        p50_ms_grpc=median("grpc at half", lambda r: r.p50_ms),
        p99_ms_grpc=median("grpc at half", lambda r: r.p99_ms),
        cache_speedup=speedup,
        memory_mb=memory,
        instances=instances,
    )
