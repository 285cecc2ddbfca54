"""Plots of reports as SVG text: where each interval lies now, how it narrowed, how latencies spread. No script, nothing to load."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from .._cards.text import escaped, number
from .showing import signed_share

__all__ = ["forest", "narrowing", "spreads"]

_WIDTH, _LEFT, _RIGHT = 640, 190, 20
_GOOD, _BAD, _OPEN, _GREY = "#2da44e", "#e5534b", "#2f81f7", "#8b949e"
_COLOURS = {"better": _GOOD, "worse": _BAD}


def forest(rows: Sequence[tuple[str, Mapping[str, Any], str]]) -> str:
    """One line for each (label, interval with estimate, low, high, decision): relative differences to control, in percent."""
    known = [(label, one, decision) for label, one, decision in rows if one.get("low") is not None]
    if not known:
        return ""
    low = min(0.0, *(float(one["low"]) for _, one, _ in known))
    high = max(0.0, *(float(one["high"]) for _, one, _ in known))
    pad = (high - low or 1.0) * 0.06
    scale = _scale(low - pad, high + pad)
    height = 34 + 28 * len(known) + 34
    parts = [_line(scale(0.0), 20, scale(0.0), height - 34, _GREY, dash=True)]
    for row, (label, one, decision) in enumerate(known):
        y = 38 + 28 * row
        colour = _COLOURS.get(decision, _OPEN)
        words = f"{label}: {_percent(one['estimate'])}, between {_percent(one['low'])} and {_percent(one['high'])}"
        parts += [
            f"<g><title>{escaped(words)}</title>",
            f'<text x="{_LEFT - 12}" y="{y + 4}" text-anchor="end" fill="currentColor">{escaped(label[:28])}</text>',
            _line(scale(float(one["low"])), y, scale(float(one["high"])), y, colour, width=3),
            f'<circle cx="{scale(float(one["estimate"])):.1f}" cy="{y}" r="5" fill="{colour}"/></g>',
        ]
    parts += _percent_ticks(scale, low - pad, high + pad, height - 34)
    parts.append(_caption("relative difference to control, with its interval", height))
    return _svg("relative differences to control with their intervals", parts, height)


def narrowing(series: Sequence[Mapping[str, Any]], label: str) -> str:
    """The interval of one relative difference as units came in."""
    # Two looks at the same units are one point: the later one knows more of their outcomes.
    points = list({float(p["units"]): p["relative"] for p in series if p["relative"].get("low") is not None}.items())
    if len(points) < 2:
        return ""
    # The first intervals are as wide as the sky: what is shown is the later half and what it needs.
    shown = points[len(points) // 4 :] if len(points) > 7 else points
    low = min(0.0, *(float(one["low"]) for _, one in shown))
    high = max(0.0, *(float(one["high"]) for _, one in shown))
    pad = (high - low or 1.0) * 0.05
    low, high = low - pad, high + pad
    height, top, bottom = 240, 30, 196
    left = 72
    first, last = shown[0][0], shown[-1][0]

    def x(units: float) -> float:
        return left + (units - first) / ((last - first) or 1.0) * (_WIDTH - left - _RIGHT)

    def y(value: float) -> float:
        return bottom - (max(low, min(high, value)) - low) / (high - low) * (bottom - top)

    upper = " ".join(f"{x(u):.1f},{y(float(one['high'])):.1f}" for u, one in shown)
    lower = " ".join(f"{x(u):.1f},{y(float(one['low'])):.1f}" for u, one in reversed(shown))
    middle = " ".join(f"{x(u):.1f},{y(float(one['estimate'])):.1f}" for u, one in shown)
    parts = [
        f'<polygon points="{upper} {lower}" fill="{_OPEN}" fill-opacity="0.18"/>',
        f'<polyline points="{middle}" fill="none" stroke="{_OPEN}" stroke-width="2"/>',
        _line(left, y(0.0), _WIDTH - _RIGHT, y(0.0), _GREY, dash=True),
    ]
    parts += [
        f'<text x="{left - 8}" y="{y(value) + 4:.1f}" text-anchor="end" fill="currentColor">{_percent(value)}</text>'
        for value in _ticks(low, high)
    ]
    for units in (first, (first + last) / 2, last):
        anchor = "start" if units == first else "end" if units == last else "middle"
        parts.append(
            f'<text x="{x(units):.1f}" y="{bottom + 18}" text-anchor="{anchor}" fill="currentColor">{number(round(units))}</text>'
        )
    parts.append(f'<text x="{left}" y="16" fill="currentColor">{escaped(f"{label}, relative difference"[:80])}</text>')
    parts.append(_caption("units in both arms", height))
    return _svg(f"{label}: the interval as units came in", parts, height)


def spreads(rows: Sequence[tuple[str, Mapping[str, float]]]) -> str:
    """Latencies on a line each: p50 to p99, in milliseconds from zero; what is beyond p99 is in the table."""
    known = [(label, one) for label, one in rows if one]
    if not known:
        return ""
    high = max(float(one["p99"]) for _, one in known) / 1000 * 1.08 or 1.0
    scale = _scale(0.0, high)
    height = 34 + 28 * len(known) + 34
    parts = [_line(_LEFT, height - 34, _WIDTH - _RIGHT, height - 34, _GREY)]
    for row, (label, one) in enumerate(known):
        y = 30 + 28 * row
        p50, p90, p99 = (float(one[q]) / 1000 for q in ("p50", "p90", "p99"))
        words = f"{label}: p50 {p50:.3g} ms, p90 {p90:.3g} ms, p99 {p99:.3g} ms"
        parts += [
            f"<g><title>{escaped(words)}</title>",
            f'<text x="{_LEFT - 12}" y="{y + 4}" text-anchor="end" fill="currentColor">{escaped(label[:28])}</text>',
            _line(scale(p50), y, scale(p99), y, _OPEN, width=2),
            _line(scale(p50), y, scale(p90), y, _OPEN, width=7),
            f'<circle cx="{scale(p50):.1f}" cy="{y}" r="5" fill="{_OPEN}"/></g>',
        ]
    parts += [
        f'<text x="{scale(value):.1f}" y="{height - 20}" text-anchor="middle" fill="currentColor">{value:.3g}</text>'
        for value in _ticks(0.0, high)
    ]
    parts.append(_caption("milliseconds: dot p50, thick to p90, thin to p99", height))
    return _svg("latency of both", parts, height)


def _scale(low: float, high: float) -> Any:
    return lambda value: _LEFT + (value - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)


def _ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers between the two."""
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw)
    first = -(-low // step) * step
    found = []
    while first <= high:
        found.append(0.0 if abs(first) < step / 1e6 else first)
        first += step
    return found


def _percent_ticks(scale: Any, low: float, high: float, y: float) -> list[str]:
    return [
        f'<text x="{scale(value):.1f}" y="{y + 14}" text-anchor="middle" fill="currentColor">{_percent(value)}</text>'
        for value in _ticks(low, high)
    ]


def _percent(value: Any) -> str:
    return "?" if value is None else signed_share(float(value)) if value else "0"


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, *, width: int = 1, dash: bool = False) -> str:
    dashes = ' stroke-dasharray="4 3"' if dash else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width}"{dashes}/>'


def _caption(text: str, height: int) -> str:
    return f'<text x="{_WIDTH - _RIGHT}" y="{height - 4}" text-anchor="end" fill="currentColor">{escaped(text)}</text>'


def _svg(label: str, parts: Sequence[str], height: int) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" role="img" '
        'style="max-width:100%;height:auto" '
        f'aria-label="{escaped(label)}" font-family="system-ui, sans-serif" font-size="12">{"".join(parts)}</svg>'
    )
