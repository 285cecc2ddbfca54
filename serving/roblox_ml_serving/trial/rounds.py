"""Workers in processes of their own, one per core, and scenarios that take turns: interleaved rounds, medians.

Machines drift (turbo, neighbours): what is compared is measured in the same minutes, a little of each in every round.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

__all__ = ["Measured", "Pool", "Rounds", "WorkerFailed", "summarise"]

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")


class WorkerFailed(RuntimeError):
    """A worker could not load or run a scenario; the message is its own."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One scenario over all rounds and workers."""

    name: str
    inferences: int
    p50_ms: float  # of one call, pooled over all rounds
    p99_ms: float
    per_second_core: float  # median over rounds of inferences per wall second and worker
    cpu_ms: float  # median over rounds of CPU time per inference
    spread: float  # (largest - smallest) / median of the rounds' rates
    engine: str = ""
    rounds: tuple[float, ...] = field(default=())


class Pool:
    """As many worker processes as asked for, each on a core of its own, all doing the same at the same time."""

    def __init__(self, workers: int, *, env: Mapping[str, str] | None = None) -> None:
        cores = sorted(os.sched_getaffinity(0))
        base = {**os.environ, **dict.fromkeys(THREADS, "1"), "TOKENIZERS_PARALLELISM": "false"}
        base |= {"TRANSFORMERS_VERBOSITY": "error", **(env or {})}
        self.engines: dict[str, str] = {}
        self._logs: list[list[str]] = [[] for _ in range(workers)]
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", "roblox_ml_serving.trial.inprocess"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**base, "RML_TRIAL_CORE": str(cores[i % len(cores)])},
            )
            for i in range(workers)
        ]
        for process, log in zip(self._processes, self._logs, strict=True):
            threading.Thread(target=_drain, args=(process, log), daemon=True).start()

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in self._processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def load(self, name: str, command: Mapping[str, Any]) -> None:
        """Load a scenario in every worker; each begins somewhere else in the texts."""
        texts = len(command["texts"])
        commands = [
            {
                **command,
                "do": "load",
                "name": name,
                "start": i * texts // len(self._processes),
            }
            for i in range(len(self._processes))
        ]
        answers = self._all(commands)
        self.engines[name] = str(answers[0].get("engine", ""))

    def run(self, name: str, seconds: float, requests: int | None = None) -> list[dict[str, Any]]:
        """All workers run the scenario at the same time; one answer each."""
        command = {"do": "run", "name": name, "seconds": seconds, "requests": requests}
        return self._all([command] * len(self._processes))

    def _all(self, commands: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        for process, command in zip(self._processes, commands, strict=True):
            assert process.stdin is not None
            process.stdin.write(json.dumps(command) + "\n")
            process.stdin.flush()
        answers = []
        for process, log in zip(self._processes, self._logs, strict=True):
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise WorkerFailed(f"a worker ended: {''.join(log)[-2000:].strip()}")
            answers.append(json.loads(line))
        if errors := [answer["error"] for answer in answers if "error" in answer]:
            raise WorkerFailed(errors[0])
        return answers


class Rounds:
    """Scenarios that take turns: each (pool, scenario, seconds) once per round, every other round in reverse order."""

    def __init__(self, turns: Sequence[tuple[Pool, str, float]]) -> None:
        self._turns = list(turns)
        self._seen: dict[str, list[list[dict[str, Any]]]] = {name: [] for _, name, _ in turns}

    def turn(self, number: int) -> None:
        """One round."""
        for pool, name, seconds in self._turns if number % 2 == 0 else reversed(self._turns):
            self._seen[name].append(pool.run(name, seconds))

    def measured(self) -> dict[str, Measured]:
        """All scenarios over the rounds so far."""
        return {name: summarise(name, self._seen[name], pool.engines.get(name, "")) for pool, name, _ in self._turns}


def summarise(name: str, rounds: Sequence[Sequence[Mapping[str, Any]]], engine: str = "") -> Measured:
    """Medians over rounds of what the workers said."""
    latencies = sorted(value for turn in rounds for answer in turn for value in answer["latencies_ms"])
    rates = [
        statistics.mean(answer["inferences"] / answer["seconds"] for answer in turn) for turn in rounds
    ]  # per worker
    cpu = [
        1e3 * sum(answer["cpu_s"] for answer in turn) / max(1, sum(answer["inferences"] for answer in turn))
        for turn in rounds
    ]
    rate = statistics.median(rates)
    return Measured(
        name=name,
        inferences=sum(answer["inferences"] for turn in rounds for answer in turn),
        p50_ms=statistics.median(latencies),
        p99_ms=latencies[min(len(latencies) - 1, int(0.99 * len(latencies)))],
        per_second_core=rate,
        cpu_ms=statistics.median(cpu),
        spread=(max(rates) - min(rates)) / rate if rate else 0.0,
        engine=engine,
        rounds=tuple(rates),
    )


def _drain(process: subprocess.Popen[str], log: list[str]) -> None:
    """A worker that may not write its warnings would stop in the middle of a measurement."""
    assert process.stderr is not None
    for line in process.stderr:
        log.append(line)
        del log[:-200]
