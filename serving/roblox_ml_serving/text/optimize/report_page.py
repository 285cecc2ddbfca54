"""The report of an optimisation for people: one self-contained HTML page, plots as inline SVG. Pure."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["render"]

_COLOURS = ("#2f6db3", "#c4622d", "#3d8f5a", "#8a5fb0", "#a38a1f", "#5b6b7a")
_WIDTH, _HEIGHT = 560, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 150, 14, 36
Row = Mapping[str, Any]
_STYLE = (
    "body{font:14px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:62rem;padding:0 1rem;color:#1f2933}"
    "h1{font-size:1.4rem}h2{font-size:1.05rem;margin:2rem 0 .4rem}svg{max-width:100%;height:auto}svg text{font-size:11px;fill:#3e4c59}"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums}td,th{padding:.25rem .7rem;text-align:right;"
    "border-bottom:1px solid #dde3e8;vertical-align:top}td:first-child,th:first-child,td.why{text-align:left}"
    "td{white-space:nowrap}td.why{padding-left:2rem}"
    "tr.chosen td{background:#eaf3ea;font-weight:600}tr.refused td{color:#7b8794}.plots{display:flex;flex-wrap:wrap;gap:1.5rem}"
    "p.note{color:#52606d}.big{font-size:1.9rem;font-weight:650}.facts{display:flex;gap:2.5rem;flex-wrap:wrap;margin:1rem 0}"
)


def render(report: Mapping[str, Any]) -> str:
    """The page of a `report.json`; nothing is fetched from anywhere."""
    title = f"{report['model']} on CPUs: {report['chosen']}"
    shown = [row for row in report["candidates"] if row.get("latency_ms")]
    plots = [
        ("Latency of one text against its length, one core", _lines(shown)),
        ("Texts a second and core, by how many are computed together", _throughput(shown)),
        ("F1 lost against float32, with its 95 % interval", _drops(report)),
    ]
    figures = "".join(f"<div><h2>{html.escape(name)}</h2>{svg}</div>" for name, svg in plots if svg)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title><style>{_STYLE}</style><body>'
        f"<h1>{html.escape(title)}</h1>{_facts(report)}<p>{html.escape(_conditions(report))}</p>{_table(report)}"
        f'<div class="plots">{figures}</div>{_notes(report)}</body></html>\n'
    )


def _facts(report: Row) -> str:
    facts = [
        (f"{report['speedup_vs_fp32']:.1f} ×", "as many texts a second as float32"),
        (
            f"{100 * report['f1_drop']:+.2f}",
            f"points of F1 lost (95 %: up to {100 * report['f1_drop_high']:.2f}; budget {100 * report['budget']:.2f})",
        ),
    ]
    chosen: Row = next((row for row in report["candidates"] if row.get("chosen")), {})
    if served := chosen.get("served"):
        facts.append((f"{served['per_second']:.0f} /s", f"served on this machine, p50 {served['p50_ms']:.1f} ms"))
    return '<div class="facts">' + "".join(
        f'<div><div class="big">{html.escape(value)}</div>{html.escape(what)}</div>' for value, what in facts
    ) + "</div>"  # fmt: skip


def _conditions(report: Row) -> str:
    machine, lengths = report["machine"], report["lengths"]
    return (
        f"Chosen {report['where']} on {machine.get('cpu', 'an unnamed processor')} ({machine.get('cores', '?')} cores; "
        f"{', '.join(machine.get('flags', ())) or 'no vector extension known'}), from {report['texts']} held-out texts of "
        f"{lengths['median']:.0f} tokens in the middle (mean {lengths['mean']:.1f}, p90 {lengths.get('p90', '?')}, "
        f"p99 {lengths.get('p99', '?')}). Graph: {report.get('graph', '')}."
    )


def _table(report: Row) -> str:
    head = (
        "engine",
        "F1",
        "lost",
        "95 %",
        "agrees",
        "ECE",
        "alone/in company",
        "ms, median text",
        "texts/s/core",
        "served/s",
        "MB",
    )
    body = []
    for row in sorted(report["candidates"], key=lambda row: (not row.get("chosen"), not row.get("allowed"))):
        kind = "chosen" if row.get("chosen") else "" if row.get("allowed") else "refused"
        best = max(row.get("throughput", {}).values(), default=None)
        served = row.get("served")
        cells = (
            row["name"] + (" (chosen)" if row.get("chosen") else ""),
            _number(row.get("f1"), 4),
            _points(row.get("f1_drop")),
            _interval(row),
            _percent(row.get("agreement")),
            _number(row.get("ece"), 4),
            _scientific(row.get("bound")),
            _number(_at(row.get("latency_ms", {}), report["lengths"]["median"]), 2),
            _number(best, 0),
            _number(served["per_second"], 0) if served else "",
            _number(row["bytes"] / 1e6, 0) if row.get("bytes") else "",
        )
        body.append(f'<tr class="{kind}">' + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>")
        if row.get("refused"):
            why = f"refused: {row['refused']}"
            body.append(f'<tr class="refused"><td class="why" colspan="{len(head)}">{html.escape(why)}</td></tr>')
    names = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    return f"<table><thead><tr>{names}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def _notes(report: Row) -> str:
    needs = {row["name"]: row.get("requires") or () for row in report["candidates"]}
    lines = [
        f"{name} needs {', '.join(flags)}: on a processor without it the next engine of the plan loads, and says so."
        for name, flags in needs.items()
        if flags
    ]
    lines.append(
        "“Lost” is the F1 of float32 minus the engine's, on the same texts; the interval is a paired bootstrap over texts. "
        "“Alone/in company” is the largest change of a probability when other texts are computed beside it."
    )
    return "".join(f'<p class="note">{html.escape(line)}</p>' for line in lines)


# -- plots ---------------------------------------------------------------------------------------------------------------


def _lines(rows: Sequence[Row]) -> str:
    """Milliseconds against tokens, a line per engine."""
    series = [(row["name"], sorted((int(k), float(v)) for k, v in row["latency_ms"].items())) for row in rows]
    series = [(name, points) for name, points in series if points]
    if not series:
        return ""
    longest = max(x for _, points in series for x, _ in points)
    slowest = max(y for _, points in series for _, y in points)
    x_of, y_of = _scale(longest, _LEFT, _WIDTH - _RIGHT), _scale(slowest, _HEIGHT - _BOTTOM, _TOP)
    parts = [_axes(longest, slowest, x_of, y_of, "tokens", "ms")]
    ends: list[float] = []
    for number, (name, points) in enumerate(series):
        colour = _COLOURS[number % len(_COLOURS)]
        path = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in points)
        at = _free(y_of(points[-1][1]), ends)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
            f'<text x="{_WIDTH - _RIGHT + 8}" y="{at + 4:.1f}" style="fill:{colour}">{html.escape(name)}</text>'
        )
    return _svg(parts)


def _throughput(rows: Sequence[Row]) -> str:
    series = [(row["name"], sorted((int(k), float(v)) for k, v in row.get("throughput", {}).items())) for row in rows]
    sizes = sorted({size for _, points in series for size, _ in points})
    if not sizes:
        return ""
    most = max(y for _, points in series for _, y in points)
    y_of = _scale(most, _HEIGHT - _BOTTOM, _TOP)
    slot = (_WIDTH - _LEFT - _RIGHT) / len(sizes)
    parts = [_grid(most, y_of, "/s")]
    wide = slot * 0.8 / len(series)
    for number, (name, points) in enumerate(series):
        colour = _COLOURS[number % len(_COLOURS)]
        for size, value in points:
            x = _LEFT + sizes.index(size) * slot + slot * 0.1 + number * wide
            top = y_of(value)
            parts.append(
                f'<rect x="{x:.1f}" y="{top:.1f}" width="{wide * 0.9:.1f}" height="{y_of(0) - top:.1f}" fill="{colour}">'
                f"<title>{html.escape(name)}, {size} together: {value:.0f}/s</title></rect>"
            )
        parts.append(
            f'<text x="{_WIDTH - _RIGHT + 8}" y="{_TOP + 12 + 16 * number}" style="fill:{colour}">{html.escape(name)}</text>'
        )
    for place, size in enumerate(sizes):
        parts.append(
            f'<text x="{_LEFT + (place + 0.5) * slot:.1f}" y="{_HEIGHT - 16}" text-anchor="middle">{size}</text>'
        )
    return _svg(parts)


def _drops(report: Row) -> str:
    rows = [row for row in report["candidates"] if row.get("f1_drop") is not None]
    if not rows:
        return ""
    reach = (
        1.15 * max([report["budget"], *(abs(row[k]) for row in rows for k in ("f1_drop_low", "f1_drop_high"))]) or 1.0
    )
    left, step = 130, 26

    def x_of(drop: float) -> float:
        return left + (drop + reach) / (2 * reach) * (_WIDTH - left - 20)

    height = step * len(rows) + 40
    bottom = height - 28
    parts = []
    for value, dash in ((0.0, ""), (report["budget"], ' stroke-dasharray="4 3"')):
        name = "0" if not value else f"budget {100 * value:.2f}"
        parts.append(
            f'<line x1="{x_of(value):.1f}" x2="{x_of(value):.1f}" y1="6" y2="{bottom}" stroke="#9aa5b1"{dash}/>'
            f'<text x="{x_of(value):.1f}" y="{bottom + 16}" text-anchor="middle">{name}</text>'
        )
    for number, row in enumerate(rows):
        y = 18 + number * step
        colour = "#3d8f5a" if row.get("chosen") else "#2f6db3" if row.get("allowed") else "#c4622d"
        low, high = x_of(row["f1_drop_low"]), x_of(row["f1_drop_high"])
        parts.append(
            f'<text x="{left - 8}" y="{y + 4}" text-anchor="end">{html.escape(row["name"])}</text>'
            f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="2"/>'
            f'<circle cx="{x_of(row["f1_drop"]):.1f}" cy="{y}" r="4" fill="{colour}"/>'
        )
    return _svg(parts, height)


def _scale(most: float, start: float, end: float) -> Any:
    return lambda value: start + (end - start) * value / (most or 1.0)


def _axes(most_x: float, most_y: float, x_of: Any, y_of: Any, unit_x: str, unit_y: str) -> str:
    marks = "".join(
        f'<text x="{x_of(most_x * i / 4):.1f}" y="{_HEIGHT - 16}" text-anchor="middle">{most_x * i / 4:.0f}</text>'
        for i in range(5)
    )
    return (
        _grid(most_y, y_of, unit_y)
        + marks
        + f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 3}" text-anchor="end">{unit_x}</text>'
    )


def _grid(most: float, y_of: Any, unit: str) -> str:
    return "".join(
        f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y_of(most * i / 4):.1f}" y2="{y_of(most * i / 4):.1f}" stroke="#e4e7eb"/>'
        f'<text x="{_LEFT - 6}" y="{y_of(most * i / 4) + 4:.1f}" text-anchor="end">{most * i / 4:.3g}{" " + unit if i == 4 else ""}</text>'
        for i in range(5)
    )


def _free(y: float, taken: list[float]) -> float:
    """A place for a label that no other label has."""
    while any(abs(y - other) < 12 for other in taken):
        y += 3
    taken.append(y)
    return y


def _svg(parts: Sequence[str], height: float = _HEIGHT) -> str:
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" viewBox="0 0 {_WIDTH} {height}" role="img">{"".join(parts)}</svg>'


# -- words ---------------------------------------------------------------------------------------------------------------


def _number(value: Any, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _points(value: Any) -> str:
    return "" if value is None else f"{100 * value:+.2f}"


def _percent(value: Any) -> str:
    return "" if value is None else f"{100 * value:.2f} %"


def _scientific(value: Any) -> str:
    return "" if value is None else "0" if value == 0 else f"{value:.1e}"


def _interval(row: Row) -> str:
    if row.get("f1_drop_low") is None:
        return ""
    return f"{100 * row['f1_drop_low']:+.2f} … {100 * row['f1_drop_high']:+.2f}"


def _at(latency: Mapping[str, float], length: float) -> float | None:
    """The latency at the measured length nearest to `length`."""
    if not latency:
        return None
    return float(latency[min(latency, key=lambda key: abs(int(key) - length))])
