"""The article's experiment and ours on this machine, for one text model: in process, then through door and Triton.

What is compared takes turns in the same minutes, and every ratio is one of CPU time: a worker has one thread, so its CPU time
is its latency on a machine that nobody else uses. The clock says as much about the neighbours, who interrupt a call of 300 ms
and let one of 7 ms pass; what it said stands beside, as `…_wall`.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from roblox_ml_core.errors import PackageError, Unavailable
from roblox_ml_core.package import read

from .costs import MACHINES, Machine, costs, gpu_cost
from .packages import TEXT_CPU
from .rounds import Measured, Pool, Rounds
from .scenarios import ARTICLE, BASELINE, Lengths, Scenario, lengths, repeated, workers_of_the_article
from .served import HITS, POPULAR, ServedPath, measure_served

__all__ = ["ALONE", "BATCHED", "OWN_FP32", "OWN_GPU", "TextBench", "machine", "run"]

ALONE, BATCHED, OWN_FP32, OWN_GPU = "ours-alone", "ours-batched", "own-fp32", "own-gpu"
BATCHES = (8, 16, 32, 64, 128)
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class TextBench:
    """Everything that was measured."""

    model: str
    digest: str
    machine: Mapping[str, Any]
    lengths: Lengths
    scenarios: Mapping[str, Scenario]
    measured: Mapping[str, Measured]
    served: ServedPath | None
    batch: int  # the texts handed to the engine at once where it was fastest
    notes: Sequence[str] = ()
    prices: Sequence[Machine] = field(default=MACHINES)
    gpu_price: Machine | None = None  # of a machine with this GPU

    def keys(self) -> dict[str, float]:
        """The figures by their public names (docs/formats/benchmark.md); what was not measured is absent."""
        base, found = self.measured.get(BASELINE), {}
        alone, batched = self.measured.get(ALONE), self.measured.get(BATCHED)
        if base and alone:
            found["speedup_latency_vs_bert_padded"] = base.cpu_ms / alone.cpu_ms
            found["speedup_latency_vs_bert_padded_wall"] = base.p50_ms / alone.p50_ms
        if base and batched:
            found["speedup_throughput_vs_bert_padded"] = base.cpu_ms / batched.cpu_ms
            found["speedup_throughput_vs_bert_padded_wall"] = batched.per_second_core / base.per_second_core
        if batched:
            found["inferences_per_s_core"] = 1e3 / batched.cpu_ms
            found["inferences_per_s_core_wall"] = batched.per_second_core
        served = self.served
        if served:
            if base:
                found["served_throughput_vs_bert_padded"] = base.cpu_ms / served.server_cpu_ms
            if batched:
                found["served_fraction_of_engine"] = batched.cpu_ms / served.server_cpu_ms
                found["served_fraction_of_engine_wall"] = served.capacity_rest / (
                    batched.per_second_core * served.instances
                )
            found["served_per_s"] = served.capacity_rest
            found["served_per_s_grpc"] = served.capacity_grpc
            found["served_cpu_ms_per_inference"] = served.server_cpu_ms
            found["p50_ms_served"], found["p99_ms_served"] = served.p50_ms, served.p99_ms
            found["p50_ms_served_grpc"], found["p99_ms_served_grpc"] = served.p50_ms_grpc, served.p99_ms_grpc
            if served.cache_speedup is not None:
                found["cache_hit_speedup"] = served.cache_speedup
        return found

    def cost_rows(self) -> list[tuple[str, float, str]]:
        """(what, US dollars for a million, machine) for the baseline and for what is served."""
        measured = [(name, found) for name, found in self.measured.items() if name not in (ALONE, BATCHED)]
        by_cpu = [(name, found.cpu_ms) for name, found in measured if name != OWN_GPU]
        if self.served:
            by_cpu.append(("served", self.served.server_cpu_ms))
        rows = [
            (name, cost.usd_per_million, cost.machine) for name, cpu_ms in by_cpu for cost in costs(cpu_ms, self.prices)
        ]
        if self.gpu_price and OWN_GPU in self.measured:
            cost = gpu_cost(self.gpu_price, self.measured[OWN_GPU].per_second_core)
            rows.append((OWN_GPU, cost.usd_per_million, cost.machine))
        return rows


def run(
    package: Path,
    texts: Sequence[str],
    *,
    name: str = "",
    rounds: int = 3,
    seconds: float = 2.0,
    article: bool = True,
    served: bool = True,
    checkpoints: Mapping[int, Path] | None = None,
    env: Mapping[str, str] | None = None,
    progress: Progress = lambda _: None,
) -> TextBench:
    """Measure one package on these texts.

    `checkpoints`: trained weights of the article's shapes by depth; without, random ones (their speed is the same).
    `env`: for every process, e.g. the instruction set of another machine (`scenarios.LESS_CPU`).
    """
    about = read(package)
    notes: list[str] = []
    tokens, limit = token_counts(package / "model" / "tokenizer.json", texts, int(about.options.get("max_length", 128)))
    workers = workers_of_the_article(len(os.sched_getaffinity(0)))
    chosen = list(ARTICLE) if article else []
    chosen += own_scenarios(package, about.format, notes)
    with ExitStack() as exits:
        pools: dict[str, Pool] = {}

        def pool_of(scenario: Scenario) -> Pool:
            """PyTorch and the engines bring OpenMP runtimes that must not meet. One process feeds a GPU."""
            kind = scenario.kind if scenario.device == "cpu" else scenario.device
            if kind not in pools:
                pools[kind] = exits.enter_context(Pool(1 if kind == "cuda" else workers, env=env))
            return pools[kind]

        turns: list[tuple[Pool, str, float]] = []
        for scenario in chosen:
            progress(f"loading {scenario.says}")
            pool = pool_of(scenario)
            command = command_of(scenario, package, texts, limit, checkpoints or {})
            pool.load(scenario.name, command)
            turns.append((pool, scenario.name, 2 * seconds if scenario.pad else seconds))
        batch = 1
        if any(scenario.name == BATCHED for scenario in chosen):
            batch = best_batch(pools["engine"], package, texts, limit, min(0.7, seconds), progress)
        taking_turns = Rounds(turns)
        path: ServedPath | None = None

        def turn(number: int) -> None:
            progress(f"in process, round {number + 1} of {rounds}")
            taking_turns.turn(number)

        if served:
            try:
                path = measure_served(
                    package, texts, rounds=rounds, seconds=1.5 * seconds, env=env, progress=progress, between=turn
                )
            except Unavailable as error:
                notes.append(f"not served: {error.message}")
        if path is None:
            for number in range(rounds):
                turn(number)
        measured = taking_turns.measured()
    return TextBench(
        model=name or package.name,
        digest=about.digest,
        machine=machine(env or {}),
        lengths=lengths(tokens),
        scenarios={scenario.name: scenario for scenario in chosen},
        measured=measured,
        served=path,
        batch=batch,
        notes=tuple(notes),
    )


def own_scenarios(package: Path, format: str, notes: list[str]) -> list[Scenario]:
    """What can be measured of this package in process."""
    found = []
    if (package / "model" / "hf" / "config.json").is_file():
        found.append(Scenario(OWN_FP32, "your model, fp32, dynamic shapes (PyTorch)", "torch"))
        if has_gpu():
            says = "your model, fp16 on the GPU, batches of 64 (PyTorch)"
            found.append(Scenario(OWN_GPU, says, "torch", batch=64, device="cuda"))
    if format == TEXT_CPU:
        found.append(Scenario(ALONE, "ours, one text at a time", "engine"))
        found.append(Scenario(BATCHED, "ours, the engine in batches", "engine", batch=64))
    else:
        notes.append(f"a package of format {format} has no engine of ours: rml.optimize(model, data) makes one")
    return found


def command_of(
    scenario: Scenario, package: Path, texts: Sequence[str], limit: int, checkpoints: Mapping[int, Path]
) -> dict[str, Any]:
    """What a worker is told."""
    stream = list(texts)
    known: list[str] = []
    if scenario.cache_share:
        known, stream = repeated(texts, HITS, min(POPULAR // 5, len(texts) // 4))
    command: dict[str, Any] = {**asdict(scenario), "texts": stream, "known": known}
    if scenario.kind == "engine":
        return {**command, "folder": str(package / "model"), "tokenise": scenario.name != BATCHED}
    own = package / "model" / "hf" if scenario.name in (OWN_FP32, OWN_GPU) else None
    checkpoint = own or checkpoints.get(scenario.layers)
    tokenizer = package / "model" / "tokenizer.json"
    return {
        **command,
        "checkpoint": str(checkpoint) if checkpoint else "",
        "task": task_of(package) if own else "sequence",
        "vocab": vocabulary(tokenizer),
        "tokenizer": str(tokenizer),
        "max_length": limit,
    }


def best_batch(pool: Pool, package: Path, texts: Sequence[str], limit: int, seconds: float, progress: Progress) -> int:
    """How many texts at once the engine does best with; the batched scenario is loaded again with it."""
    scenario, rates = Scenario(BATCHED, "", "engine"), {}
    for size in BATCHES:
        command = command_of(scenario, package, texts[:1024], limit, {})
        pool.load(f"batch {size}", {**command, "batch": size})
        answers = pool.run(f"batch {size}", seconds)
        rates[size] = sum(answer["inferences"] for answer in answers) / sum(answer["cpu_s"] for answer in answers)
    best = max(rates, key=lambda size: rates[size])
    progress(f"the engine alone is fastest with {best} texts at once")
    pool.load(BATCHED, {**command_of(scenario, package, texts, limit, {}), "batch": best})
    return best


def token_counts(tokenizer_json: Path, texts: Iterable[str], limit: int) -> tuple[list[int], int]:
    """Tokens of each text as a server counts them, and the longest allowed."""
    from tokenizers import Tokenizer

    if not tokenizer_json.is_file():
        raise PackageError(f"{tokenizer_json} is missing", hint="only text models can be measured with texts")
    tokenizer = Tokenizer.from_file(str(tokenizer_json))
    tokenizer.no_padding()
    tokenizer.enable_truncation(limit)
    return [len(row.ids) for row in tokenizer.encode_batch_fast(list(texts))], limit


def has_gpu() -> bool:
    """Whether there is a GPU and a PyTorch that can use it."""
    if not Path("/dev/nvidia0").exists():
        return False  # importing torch to hear "no" takes seconds
    try:
        import torch
    except ImportError:
        return False
    return bool(torch.cuda.is_available())


def vocabulary(tokenizer_json: Path) -> int:
    from tokenizers import Tokenizer

    return int(Tokenizer.from_file(str(tokenizer_json)).get_vocab_size())


def task_of(package: Path) -> str:
    plan = package / "model" / "text.json"
    return str(json.loads(plan.read_bytes())["task"]) if plan.is_file() else "sequence"


def machine(env: Mapping[str, str]) -> dict[str, Any]:
    """What this was measured on, and what the runtimes were told to do without."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    fields = dict(line.split(":", 1) for line in text.split("\n\n", 1)[0].splitlines() if ":" in line)
    values = {key.strip(): value.strip() for key, value in fields.items()}
    wanted = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
    flags = values.get("flags", "").split()
    return {
        "cpu": values.get("model name", platform.machine()),
        "cores": len(os.sched_getaffinity(0)),
        "flags": [flag for flag in wanted if flag in flags],
        "told": dict(env),
        "load_average": os.getloadavg()[0],
    }
