"""Load from a process of its own: closed loop (workers that ask one after another) or open loop (Poisson arrivals).

In an open loop a request's latency counts from the moment it was due, not from when it could be sent: a server that stalls
is charged for everybody who came meanwhile (Tene, "How NOT to measure latency"). The generator's own CPU time is
reported, because on one machine it is taken from the server.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .traffic import Traffic

__all__ = ["LoadFailed", "LoadResult", "closed_loop", "open_loop"]

ANSWERED = ("200", "OK")
REFUSED = ("429", "RESOURCE_EXHAUSTED")
START_S = 60.0


class LoadFailed(RuntimeError):
    """The generator ended without a result."""


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What came of one load. Latencies are those of answered requests."""

    requests: int  # sent
    rows: int  # inferences in one request
    seconds: float  # from the first request to the last answer
    offered_per_second: float | None  # open loop: the rate asked for
    statuses: Mapping[str, int]  # HTTP status, gRPC code, or what went wrong
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    refused_p99_ms: float  # how soon those were told that were refused
    client_cpu_s: float
    cpu: Mapping[str, float] = field(default_factory=dict)  # the server's CPU seconds, by part
    answers: tuple[bytes, ...] = ()  # bodies of the first requests, when asked for

    @property
    def answered(self) -> int:
        return sum(self.statuses.get(status, 0) for status in ANSWERED)

    @property
    def refused(self) -> int:
        return sum(self.statuses.get(status, 0) for status in REFUSED)

    @property
    def failed(self) -> int:
        return self.requests - self.answered - self.refused

    @property
    def per_second(self) -> float:
        """Inferences answered per second."""
        return self.answered * self.rows / self.seconds

    @property
    def cpu_ms_per_inference(self) -> float:
        """The server's CPU time for one inference, all parts."""
        return 1e3 * sum(self.cpu.values()) / max(1, self.answered * self.rows)

    def to_json(self) -> dict[str, Any]:
        """Everything but the answers."""
        document = {key: value for key, value in asdict(self).items() if key != "answers"}
        return {**document, "per_second": self.per_second, "cpu_ms_per_inference": self.cpu_ms_per_inference}


Cpu = Callable[[], Mapping[str, float]]


def closed_loop(
    traffic: Traffic,
    *,
    workers: int,
    requests: int | None = None,
    seconds: float | None = None,
    warmup: int = 0,
    timeout_s: float = 30.0,
    keep: int = 0,
    cpu: Cpu | None = None,
) -> LoadResult:
    """`workers` clients, each asking again when it is answered, until `requests` are sent or `seconds` are over.

    `warmup` requests go first and are not counted; `keep` answers are returned, of the first bodies in order;
    `cpu` gives the server's CPU seconds by part and is asked before and after.
    """
    if (requests is None) == (seconds is None):
        raise ValueError("give either requests or seconds")
    plan = {"loop": "closed", "workers": workers, "requests": requests, "seconds": seconds}
    return _run(traffic, {**plan, "warmup": warmup, "timeout_s": timeout_s, "keep": keep}, cpu)


def open_loop(
    traffic: Traffic,
    *,
    rate: float,
    seconds: float,
    warmup: int = 0,
    timeout_s: float = 30.0,
    seed: int = 0,
    cpu: Cpu | None = None,
) -> LoadResult:
    """Requests at `rate` a second on average, at random moments (Poisson), whatever the server does about them."""
    if rate <= 0 or seconds <= 0:
        raise ValueError(f"rate and seconds must be positive, not {rate} and {seconds}")
    plan = {"loop": "open", "rate": rate, "seconds": seconds, "seed": seed}
    return _run(traffic, {**plan, "warmup": warmup, "timeout_s": timeout_s, "keep": 0}, cpu)


def _run(traffic: Traffic, plan: dict[str, Any], cpu: Cpu | None) -> LoadResult:
    with tempfile.TemporaryDirectory(prefix="rml-load-") as folder:
        file = Path(folder, "traffic")
        _write(file, traffic, plan)
        process = subprocess.Popen(
            # By its path: as a module of this package it would first import the servers' half.
            [sys.executable, "-P", str(Path(__file__).with_name("generator.py")), str(file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        try:
            assert process.stdin is not None and process.stdout is not None
            ready = process.stdout.readline()
            before = dict(cpu()) if ready and cpu is not None else {}
            if ready:
                process.stdin.write("go\n")
                process.stdin.flush()
            line = process.stdout.readline() if ready else ""
            after = dict(cpu()) if line and cpu is not None else {}
            _, errors = process.communicate(timeout=START_S)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if not line:
        raise LoadFailed(f"the load generator ended with status {process.returncode}: {errors.strip()[-2000:]}")
    document = json.loads(line)
    answers = tuple(base64.b64decode(text) for text in document.pop("answers"))
    used = {part: after[part] - before.get(part, 0.0) for part in after}
    return LoadResult(**document, rows=traffic.rows, cpu=used, answers=answers)


def _write(file: Path, traffic: Traffic, plan: dict[str, Any]) -> None:
    """A line of JSON, then the bodies as they are."""
    head = {
        "protocol": traffic.protocol,
        "address": traffic.address,
        "path": traffic.path,
        "headers": traffic.headers,
        "sizes": [len(body) for body in traffic.bodies],
        **plan,
    }
    with file.open("wb") as stream:
        stream.write(json.dumps(head).encode() + b"\n")
        stream.writelines(traffic.bodies)
