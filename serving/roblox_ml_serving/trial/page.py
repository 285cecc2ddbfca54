"""The measurements for people: text tables for a terminal, one self-contained page with plots. Pure."""

from __future__ import annotations

import html
from collections.abc import Sequence

from .scenarios import BASELINE
from .textbench import BATCHED, TextBench

__all__ = ["Table", "bars", "page", "tables", "text"]

# title, columns, rows
Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]


def tables(bench: TextBench) -> list[Table]:
    """Scenarios, the served path, costs, figures."""
    found = [_scenarios(bench)]
    if bench.served:
        found.append(_served(bench))
    if rows := bench.cost_rows():
        machines = list(dict.fromkeys(machine for _, _, machine in rows))
        by_name: dict[str, dict[str, float]] = {}
        for what, usd, machine in rows:
            by_name.setdefault(what, {})[machine] = usd
        prices = ", ".join(f"{m.name} {m.usd_per_hour:g} USD/h for {m.vcpus} vCPU" for m in bench.prices)
        title = f"US dollars for a million inferences, machine half loaded ({prices}); CPU time as measured here"
        found.append((title, ("", *machines), [(w, *(f"{v[m]:.3g}" for m in machines)) for w, v in by_name.items()]))
    keys = bench.keys()
    if keys:
        found.append(("Figures", ("key", "value"), [(key, f"{value:.4g}") for key, value in keys.items()]))
    return found


def _scenarios(bench: TextBench) -> Table:
    base = bench.measured.get(BASELINE)
    rows = []
    for name, found in bench.measured.items():
        says = bench.scenarios[name].says
        if name == BATCHED:
            says = f"{says} of {bench.batch}"
        if found.engine:
            says = f"{says} ({found.engine})"
        rows.append(
            (
                says,
                f"{found.p50_ms:.2f}",
                f"{found.p99_ms:.2f}",
                f"{found.cpu_ms:.2f}",
                f"{found.per_second_core:.1f}",
                f"{base.p50_ms / found.p50_ms:.1f}" if base and name != BATCHED else "",
                f"{base.cpu_ms / found.cpu_ms:.1f}" if base else "",
                f"±{50 * found.spread:.0f} %",
            )
        )
    columns = (
        "in process, one thread",
        "p50 ms",
        "p99 ms",
        "CPU ms/text",
        "texts/s/core",
        "x latency",
        "x CPU",
        "spread",
    )
    return ("One worker per core, each asking one after another; rounds take turns", columns, rows)


def _served(bench: TextBench) -> Table:
    assert bench.served is not None
    rows = []
    for name, results in bench.served.loads.items():
        ordered = sorted(results, key=lambda result: result.per_second)
        result = ordered[len(ordered) // 2]
        parts = "  ".join(
            f"{part} {1e3 * used / max(1, result.answered * result.rows):.2f}" for part, used in result.cpu.items()
        )
        rows.append(
            (
                name,
                f"{result.offered_per_second:.0f}" if result.offered_per_second else "closed",
                f"{result.per_second:.1f}",
                f"{result.p50_ms:.2f}",
                f"{result.p99_ms:.2f}",
                f"{result.cpu_ms_per_inference:.2f}",
                parts,
                f"{result.refused}/{result.failed}",
            )
        )
    columns = (
        "through door and Triton",
        "offered/s",
        "texts/s",
        "p50 ms",
        "p99 ms",
        "CPU ms/text",
        "of it",
        "refused/failed",
    )
    title = f"Served by {bench.served.instances} single-threaded instances; the clients run on the same cores"
    return (title, columns, rows)


def text(found: Sequence[Table]) -> str:
    """Tables for a terminal, first column left, the others right."""
    lines: list[str] = []
    for title, columns, rows in found:
        cells = [list(columns), *(list(row) for row in rows)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
        lines += ["", title]
        for row in cells:
            rest = "  ".join(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
            lines.append(f"{row[0].ljust(widths[0])}  {rest}".rstrip())
    return "\n".join(lines).strip("\n")


def bars(values: Sequence[tuple[str, float]], unit: str) -> str:
    """A horizontal bar for each value, as inline SVG."""
    if not values:
        return ""
    most, height, left, width = max(value for _, value in values) or 1.0, 24, 330, 420
    parts = []
    for row, (name, value) in enumerate(values):
        y = row * height
        parts.append(
            f'<text x="{left - 8}" y="{y + 16}" text-anchor="end">{html.escape(name)}</text>'
            f'<rect x="{left}" y="{y + 4}" width="{max(1.0, width * value / most):.1f}" height="{height - 8}"/>'
            f'<text x="{left + max(1.0, width * value / most) + 6:.1f}" y="{y + 16}">{value:.3g} {html.escape(unit)}</text>'
        )
    size = f'viewBox="0 0 {left + width + 110} {height * len(values)}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">{"".join(parts)}</svg>'


def page(bench: TextBench) -> str:
    """One HTML file: nothing is fetched from anywhere."""
    rows = [(bench.scenarios[name].says, found) for name, found in bench.measured.items()]
    throughput = [(says, found.per_second_core) for says, found in rows]
    latency = [(says, found.p50_ms) for says, found in rows if found.name != BATCHED]
    base = bench.measured.get(BASELINE)
    if bench.served:
        throughput.append(("served, by server CPU time", 1e3 / bench.served.server_cpu_ms))
    faster = [(says, base.p50_ms / found.p50_ms) for says, found in rows if base and found.name != BATCHED]
    told = bench.machine.get("told") or {}
    where = f"{bench.machine['cpu']}, {bench.machine['cores']} cores, {' '.join(bench.machine['flags'])}"
    if told:
        where += "; told: " + " ".join(f"{key}={value}" for key, value in told.items())
    sections = [
        f"<h1>{html.escape(bench.model)}</h1><p>{html.escape(where)}<br>{html.escape(str(bench.lengths))}</p>",
        f"<h2>Texts per second and core</h2>{bars(throughput, '/s')}",
        f"<h2>Latency of one text (median)</h2>{bars(latency, 'ms')}",
    ]
    if faster:
        sections.append(f"<h2>Times faster than BERT padded to 128</h2>{bars(faster, 'x')}")
    sections += [_html_table(table) for table in tables(bench)]
    sections += [f"<p>{html.escape(note)}</p>" for note in bench.notes]
    style = (
        "body{font:14px system-ui,sans-serif;margin:2rem auto;max-width:60rem;color:#222}svg{width:100%;font-size:12px}"
        "rect{fill:#3b6fb6}table{border-collapse:collapse;font-variant-numeric:tabular-nums}"
        "td,th{padding:.2rem .7rem;text-align:right;border-bottom:1px solid #ddd}td:first-child,th:first-child{text-align:left}"
    )
    title = html.escape(f"{bench.model}: text benchmark")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{style}</style>'
        f"<body>{''.join(sections)}</body></html>\n"
    )


def _html_table(table: Table) -> str:
    title, columns, rows = table
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<h2>{html.escape(title)}</h2><table><tr>{head}</tr>{body}</table>"
