"""Where results are kept: one JSON document per benchmark and model below RML_HOME, with the unit costs a planner reads.

docs/formats/benchmark.md describes both.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .scenarios import BASELINE
from .textbench import ALONE, BATCHED, TextBench

__all__ = ["SCHEMA", "document", "line", "store", "unit_costs"]

SCHEMA = 1


def unit_costs(bench: TextBench) -> list[dict[str, Any]]:
    """What one inference of this model costs on this machine: the planner's input. Empty when nothing was served."""
    served = bench.served
    if served is None:
        return []
    alone = bench.measured.get(ALONE)
    return [
        {
            "kind": "text",
            "model": bench.model,
            "digest": bench.digest,
            "engine": alone.engine if alone else "",
            "unit": "inference",
            "tokens_median": bench.lengths.p50,
            "tokens_mean": round(bench.lengths.mean, 2),
            "cpu_ms": {part: round(value, 4) for part, value in served.cpu_ms.items()},
            "per_second_per_core": round(1e3 / served.server_cpu_ms, 2),
            "latency_ms_at_half_load": {"p50": round(served.p50_ms, 3), "p99": round(served.p99_ms, 3)},
            "memory_mb": {part: round(value, 1) for part, value in served.memory_mb.items()},
            "instances": served.instances,
        }
    ]


def document(bench: TextBench, extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Everything, machine-readable."""
    return {
        "schema": SCHEMA,
        "benchmark": "text",
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": dict(bench.machine),
        "lengths": asdict(bench.lengths),
        "keys": {key: rounded(value) for key, value in bench.keys().items()},
        "scenarios": [
            {"says": bench.scenarios[name].says, **{k: v for k, v in asdict(found).items() if k != "rounds"}}
            for name, found in bench.measured.items()
        ],
        "loads": {
            name: [result.to_json() for result in results]
            for name, results in (bench.served.loads if bench.served else {}).items()
        },
        "cost_per_million_usd": [
            {"what": what, "machine": machine, "usd": rounded(usd)} for what, usd, machine in bench.cost_rows()
        ],
        "unit_costs": unit_costs(bench),
        "baseline": BASELINE,
        "batch": bench.batch if BATCHED in bench.measured else None,
        "notes": list(bench.notes),
        **(extra or {}),
    }


def line(keys: Mapping[str, Any]) -> str:
    """The last line of every benchmark: one JSON object of figures."""
    return json.dumps({key: rounded(value) for key, value in keys.items()}, sort_keys=True)


def store(folder: Path, name: str, content: Mapping[str, Any]) -> Path:
    """Write `<folder>/<name>.json`; a reader sees the old file or the new one."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name)}.json"
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    draft.write_text(json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    draft.replace(file)
    return file


def rounded(value: Any) -> Any:
    """Four significant digits: more would claim what no machine repeats."""
    return float(f"{value:.4g}") if isinstance(value, float) else value
