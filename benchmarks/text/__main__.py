"""Text models on this machine's cores: the article's five steps, ours, and what is served through door and Triton.

`python -m benchmarks.text` (quick: under four minutes once the models are trained) or `--full`: more rounds, all models and the
peers. The last line is JSON; docs/formats/benchmark.md says what each figure means. Targets that this processor cannot
reach are printed with the arithmetic that says so.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from roblox_ml_core.settings import HomeSettings
from roblox_ml_serving.backends.rml_text_plan import read_plan
from roblox_ml_serving.trial.page import page, tables, text
from roblox_ml_serving.trial.results import document, line, store
from roblox_ml_serving.trial.rounds import Pool, Rounds, WorkerFailed
from roblox_ml_serving.trial.scenarios import BASELINE, LESS_CPU, Scenario
from roblox_ml_serving.trial.textbench import ALONE, BATCHED, TextBench, command_of, run

from .corpora import MAX_LENGTH, sentiment
from .models import trained
from .ours import BUDGET, Optimised, judged, optimised

Say = Callable[[str], None]
OURS, DEEP, SMALL, ENTITIES = "distilbert-768x6", "bert-768x12", "minilm-l6", "minilm-l6-entities"
# What AMX machines are asked for, and whether more or less is better.
TARGETS: Mapping[str, tuple[float, bool]] = {
    "speedup_latency_vs_bert_padded": (45, True),
    "speedup_throughput_vs_bert_padded": (80, True),
    "served_throughput_vs_bert_padded": (65, True),
    "inferences_per_s_core": (400, True),
    "served_fraction_of_engine": (0.8, True),
    "p50_ms_served": (8, False),
    "p99_ms_served": (20, False),
    "macro_f1_drop": (BUDGET, False),
    "cache_hit_speedup": (1.5, True),
    "ratio_rps_vs_best_default_peer": (5, True),
    "ratio_rps_vs_seed_recipe": (4, True),
    "ratio_rps_vs_best_peer_same_engine": (1.3, True),
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.text", description=__doc__)
    parser.add_argument("--full", action="store_true", help="all models, more rounds, peers")
    parser.add_argument("--no-peers", action="store_true", help="full, without the peers")
    parser.add_argument(
        "--reuse", action="store_true", help="full, with models optimised before (python -m benchmarks.text.ours)"
    )
    parser.add_argument("--peer-rounds", type=int, default=2, help="full: how often every peer is started and asked")
    parser.add_argument("--rounds", type=int, default=0, help="rounds in which everything takes its turn")
    parser.add_argument("--seconds", type=float, default=0.0, help="how long a turn takes")
    parser.add_argument("--html", type=Path, help="write a page with plots")
    chosen = parser.parse_args(arguments)
    started = time.monotonic()

    def say(what: str) -> None:
        print(f"[{time.monotonic() - started:5.0f} s] {what}", flush=True)

    names = [OURS, SMALL, DEEP, ENTITIES] if chosen.full else [OURS, SMALL]
    anew = chosen.full and not chosen.reuse
    models = [optimised(name, again=anew, quick=not anew, progress=say) for name in names]
    # Whatever was optimised when: this run's claim rests on this run's answers.
    proofs = {model.name: model.report if anew else judged(model) for model in models}
    for name, proof in proofs.items():
        low, high = proof["f1_drop_low"], proof["f1_drop_high"]
        say(f"{name}: F1 {proof['f1']:.4f}, drop {proof['f1_drop']:+.4f} [{low:+.4f}, {high:+.4f}]")
    ours = models[0]
    rounds, seconds = chosen.rounds or (7 if chosen.full else 3), chosen.seconds or (3.0 if chosen.full else 1.2)
    rows = [row.text for row in (*sentiment().test, *sentiment().train)]
    bench = run(
        ours.package,
        rows,
        name=f"benchmark/{ours.name}",
        rounds=rounds,
        seconds=seconds,
        checkpoints={6: trained(OURS).folder, 12: trained(DEEP).folder} if chosen.full else None,
        progress=say,
    )
    keys: dict[str, Any] = {**bench.keys(), **f1_keys(models, proofs)}
    keys |= less_cpu(ours, rows, bench, rounds, seconds, say)
    extra: dict[str, Any] = {}
    if chosen.full and not chosen.no_peers:
        extra["peers"], ratios = peers(ours, rows, chosen.peer_rounds, say)
        keys |= ratios
    if chosen.full:
        entities = run(
            models[names.index(ENTITIES)].package, rows, rounds=3, seconds=seconds, article=False, progress=say
        )
        keys |= {f"entities_{key}": value for key, value in entities.keys().items()}
    content = document(
        bench, {**extra, "keys": keys, "proofs": proofs, "models": {model.name: model.report for model in models}}
    )
    kept = store(HomeSettings().root / "benchmarks", "text", content)
    if chosen.html:
        chosen.html.write_text(page(bench), encoding="utf-8")
    print(
        f"\n{bench.machine['cpu']}, {bench.machine['cores']} cores ({' '.join(bench.machine['flags'])}); {bench.lengths}"
    )
    print(text(tables(bench)))
    print()
    print(text([targets(keys)]))
    print(f"\n{arithmetic(bench)}\nkept in {kept}")
    print(line(keys))
    return 0


def f1_keys(models: Sequence[Optimised], proofs: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """What each model lost against fp32, with the bound, and the worst of them."""
    found: dict[str, float] = {}
    for model in models:
        drop, high = float(proofs[model.name]["f1_drop"]), float(proofs[model.name]["f1_drop_high"])
        if model.task == "token":
            found |= {"entity_f1_drop": drop, "entity_f1_drop_high": high}
        else:
            found |= {f"macro_f1_drop_{model.name}": drop, f"macro_f1_drop_{model.name}_high": high}
            found["macro_f1_drop"] = max(found.get("macro_f1_drop", drop), drop)
    return found


def less_cpu(
    ours: Optimised, texts: Sequence[str], bench: TextBench, rounds: int, seconds: float, say: Say
) -> dict[str, float]:
    """The engine that loads where the processor has less, told so by each runtime's own switch.

    These rows are not interleaved with the baseline: they are compared by CPU time. The preferred engine is measured under the
    same switch even where the plan does not allow it, which shows that the switch bites.
    """
    found: dict[str, float] = {}
    base = bench.measured[BASELINE]
    preferred = read_plan((ours.package / "model" / "text.json").read_bytes()).engines[0].name
    for isa, env in LESS_CPU.items():
        say(f"as on a processor with {isa} only")
        scenarios = [
            Scenario(ALONE, "", "engine"),
            Scenario(BATCHED, "", "engine", batch=bench.batch),
            Scenario("preferred", "", "engine", engine=preferred),
        ]
        try:
            with Pool(2, env=env) as pool:
                for scenario in scenarios:
                    pool.load(scenario.name, command_of(scenario, ours.package, texts[:2048], MAX_LENGTH, {}))
                turns = Rounds([(pool, scenario.name, seconds) for scenario in scenarios])
                for number in range(min(rounds, 3)):
                    turns.turn(number)
                measured = turns.measured()
        except WorkerFailed as error:
            say(f"  not measured: {error}")
            continue
        alone, batched, told = (measured[scenario.name].cpu_ms for scenario in scenarios)
        without = bench.measured[ALONE].cpu_ms if ALONE in bench.measured else 0.0
        say(f"  {measured[ALONE].engine} loads: {alone:.2f} ms of CPU a text, {batched:.2f} in batches")
        say(f"  {preferred} under the same switch: {told:.2f} ms; without it {without:.2f}")
        key = isa.replace("-", "_")
        found[f"speedup_latency_vs_bert_padded_{key}"] = base.cpu_ms / alone
        found[f"inferences_per_s_core_{key}"] = 1e3 / batched
    return found


def peers(
    ours: Optimised, texts: Sequence[str], rounds: int, say: Say
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Other servers with the same weights, in the same rounds as ours."""
    try:
        from .peers.compare import compare
    except ImportError as error:
        say(f"peers: not measured ({error})")
        return [], {}
    return compare(ours, texts, say, rounds=rounds)


def targets(keys: Mapping[str, Any]) -> tuple[str, Sequence[str], list[tuple[str, ...]]]:
    rows = []
    for key, (target, more) in TARGETS.items():
        if key in keys:
            met = keys[key] >= target if more else keys[key] <= target
            rows.append((key, f"{keys[key]:.4g}", f"{'≥' if more else '≤'} {target:g}", "yes" if met else "no"))
    return ("Targets (set for processors with AMX)", ("key", "measured", "target", "met"), rows)


def arithmetic(bench: TextBench) -> str:
    """Why a target may be out of reach: what the baseline computes in its time, and the most this core's int8 can do."""
    base = bench.measured[BASELINE]
    layer = 12 * 768**2  # weights of one layer's linear maps
    padded = 2 * 12 * layer * 128 / 1e9
    ours = 2 * 6 * layer * bench.lengths.mean / 1e9
    peak = int8_peak()
    return (
        f"Arithmetic: BERT padded is {padded:.1f} GFLOP in {base.cpu_ms:.0f} ms of CPU, {1e3 * padded / base.cpu_ms:.0f} "
        f"GFLOPS. A text of {bench.lengths.mean:.1f} tokens through 6 layers is {ours:.2f} GFLOP, {padded / ours:.1f} times\n"
        f"fewer. This core multiplies int8 at {peak:.0f} GOPS (PyTorch, 2048³): at most about {peak / ours:.0f} such texts a "
        f"second, {peak / ours * base.cpu_ms / 1e3:.0f} times BERT padded; 400 a second need {400 * ours:.0f} GOPS."
    )


def int8_peak() -> float:
    """Giga-operations per second of one thread multiplying large int8 matrices; the best of some tries."""
    code = (
        "import time, torch; torch.set_num_threads(1)\n"
        "a = torch.randint(-100, 100, (2048, 2048), dtype=torch.int8); best = 1e9\n"
        "for _ in range(8):\n"
        "    t = time.process_time(); torch._int_mm(a, a); best = min(best, time.process_time() - t)\n"
        "print(2 * 2048**3 / best / 1e9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


if __name__ == "__main__":
    sys.exit(main())
