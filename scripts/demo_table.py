"""The demo's last screen: what ran and how long, which model, how good, how quick, and where to look next."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["show"]

SOURCES = ("movie", "product", "editorial", "tweet")


def show(console: Console, run: Any, version: Any, checks: Any, folder: Path, seconds: float) -> None:
    """Print the closing tables."""
    steps = Table(title=f"run {run.id}", title_justify="left", box=None, padding=(0, 2))
    steps.add_column("step")
    steps.add_column("time", justify="right")
    steps.add_column("")
    for name, task in run.tasks.items():
        cached = task.state == "CACHED"
        steps.add_row(
            name, f"{task.duration or 0:.1f} s", "[cyan]from the cache[/cyan]" if cached else task.state.lower()
        )

    quality = Table(
        title=f"macro-F1 on {checks.texts} of {checks.held_out} held-out texts",
        title_justify="left",
        box=None,
        padding=(0, 2),
    )
    quality.add_column("")
    for head in ("all", *SOURCES):
        quality.add_column(head, justify="right")
    for name, title in (("vader", "VADER's rules"), ("tfidf", "TF-IDF + LR"), ("door", "MiniLM, through the door")):
        cells = [checks.f1[name], *(checks.per_source[source][name] for source in SOURCES)]
        quality.add_row(title, *(f"[bold]{cell:.3f}[/bold]" if name == "door" else f"{cell:.3f}" for cell in cells))

    facts = Table(box=None, show_header=False, padding=(0, 2))
    facts.add_row("model", f"{version.name} version [bold]{version.version}[/bold], sha256 {version.digest[:16]}…")
    gain = checks.gain
    facts.add_row(
        "gain", f"[bold]{100 * gain.gain:+.1f}[/bold] points over {checks.better}, "
        f"95 % interval {100 * gain.low:+.1f} to {100 * gain.high:+.1f} (paired bootstrap over documents)",
    )  # fmt: skip
    facts.add_row(
        "agreement",
        ", ".join(f"{way} {off:.0e}" for way, off in checks.furthest.items()) + " from the model in this process",
    )
    if report := _optimised(run):
        served = next((row["served"] for row in report["candidates"] if row.get("chosen")), None)
        facts.add_row(
            "on CPUs", f"[bold]{report['chosen']}[/bold]: [bold]{report['speedup_vs_fp32']:.1f} x[/bold] float32, F1 "
            f"{-100 * report['f1_drop']:+.2f} points ({-100 * report['f1_drop_high']:+.2f} to {-100 * report['f1_drop_low']:+.2f})"
            + (f", {served['per_second']:.0f} texts/s served" if served else ""),
        )  # fmt: skip
    for way, (p50, p99) in checks.latency_ms.items():
        facts.add_row(f"latency {way}", f"p50 {p50:.1f} ms, p99 {p99:.1f} ms over 500 requests of one text")
    facts.add_row("whole demo", f"{seconds:.0f} s")

    where = Table(title="where to look", title_justify="left", box=None, show_header=False, padding=(0, 2))
    for name, place in _places(folder, run):
        where.add_row(name, place)
    for table in (steps, quality, facts, where):
        console.print()
        console.print(table)
    console.print()


def _optimised(run: Any) -> dict[str, Any] | None:
    """What the optimiser measured, where the run has such a step."""
    try:
        file = run.outputs["optimize"].path / "report.json"
    except KeyError:
        return None
    report: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return report


def _places(folder: Path, run: Any) -> list[tuple[str, str]]:
    from roblox_ml import _stack

    up = _stack.status()
    return [
        ("report", str(folder / "report.html")),
        ("notebook", str(folder / "comment_sentiment.ipynb")),
        ("run record", str(run.path)),
        ("MLflow", f"{up['mlflow']['url']} (while the stack runs)"),
        ("endpoint", f"{up['door']['url']}/v2/models/comment-sentiment"),
        ("commands", "rml runs, rml models show comment-sentiment, rml status, rml logs agent"),
    ]
