"""`python -m benchmarks.sdk`: what the SDK costs, beside its peer and its floor; the last line is JSON.

kfp is the peer. Compared programs run in turns, in fresh processes, and medians are reported, so that a busy machine
disturbs both alike. Figures are those of this machine at this moment; ratios travel better.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from pathlib import Path

from .measure import Bench
from .scheduler import cpu_percent

__all__ = ["main"]


def main() -> None:
    """Measure, print the table, print the line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sdk", description=main.__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="fresh processes for each figure")
    parser.add_argument("--tasks", type=int, default=1000, help="length of the compiled chain")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rml-bench-") as folder:
        bench = Bench(Path(folder), options.repeats)
        start = bench.interpreter_start()
        ours_import, kfp_import = bench.imports()
        first = bench.first_line()
        notebook = bench.notebook()
        lock = bench.lock_cold()
        chain, peer = bench.chains(options.tasks)
        six, six_kfp = bench.six_steps()
        submitted = bench.submit()
        entered = bench.enter_environment(start)
        scheduler = cpu_percent()
    figures = {
        "import_ms": round(ours_import * 1e3, 1),
        "first_user_line_s": round(first["seconds"], 3),
        "capture_compile_20_ms": round(notebook["seconds"] * 1e3, 1),
        "lock_cold_s": round(lock["seconds"], 2),
        "compile_1000_s": round(chain["seconds"], 3),
        "ratio_compile_1000_vs_kfp": round(peer["seconds"] / chain["seconds"], 1),
        "ir_bytes_per_step": round(chain["bytes"] / options.tasks),
        "six_two_second_steps_s": round(six["seconds"], 2),
        "submit_100_steps_s": round(submitted["seconds"], 3),
        "submit_100_steps_upload_s": round(submitted["upload"], 3),
        "env_reuse_s": round(entered["seconds"], 3),
        "scheduler_10k_schedules_cpu_pct": round(scheduler, 2),
    }
    rows = [
        ("import, with step and pipeline (kfp)", "ms", kfp_import * 1e3, ours_import * 1e3, None, "<= 150"),
        (".run() to first line of a step, warm", "s", None, first["seconds"], start, "<= 0.5"),
        (".run() to first line, first run ever", "s", None, first["cold"], start, ""),
        ("capture + compile 20 steps (40 cells)", "ms", None, notebook["seconds"] * 1e3, None, "<= 300"),
        ("  the first compile of a kernel", "ms", None, notebook["first"] * 1e3, None, ""),
        (f"lock {lock['packages']:.0f} packages, nothing cached", "s", None, lock["seconds"], None, ""),
        (f"compile a chain of {options.tasks} (kfp)", "s", peer["seconds"], chain["seconds"], None, "<= 3"),
        ("  ratio", "x", 1.0, peer["seconds"] / chain["seconds"], None, ">= 2"),
        ("  IR bytes per step", "B", peer["bytes"] / options.tasks, chain["bytes"] / options.tasks, None, ""),
        ("six steps of 2 s (kfp.local)", "s", six_kfp["seconds"], six["seconds"], 2.0, "<= 4"),
        ("submit 100 steps, unchanged", "s", None, submitted["seconds"], None, "<= 1"),
        ("  with one step edited: upload", "s", None, submitted["upload"], None, "<= 3"),
        ("enter a ready environment", "s", None, entered["seconds"], start, "<= 0.2"),
        ("  build it (one package, uv)", "s", None, entered["built"], None, ""),
        ("10,000 schedules, CPU of the scheduler", "%", None, scheduler, None, "<= 5"),
    ]
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, {options.repeats} repeats, medians")
    print(f"{'':40} {'':3} {'peer':>9} {'ours':>9} {'floor':>9}  target")
    for name, unit, other, mine, floor, target in rows:
        print(f"{name:40} {unit:3} {_figure(other)} {_figure(mine)} {_figure(floor)}  {target}".rstrip())
    print(json.dumps(figures))


def _figure(value: float | None) -> str:
    return f"{'':>9}" if value is None else f"{value:9.3f}" if value < 10 else f"{value:9.0f}"


if __name__ == "__main__":
    main()
