"""Plots as SVG text: no library, no script, nothing to load; they show in a notebook, a page and an image viewer.

Colours of marks are chosen to be told apart on light and dark; text takes the colour around it. Every mark says what it
is in a tooltip, and the whole in a label.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .._cards.text import escaped, number, shortened

__all__ = ["Axis", "Point", "bars", "history", "lines", "parallel", "scatter"]

WIDTH, HEIGHT = 640, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 30, 44
_PALETTE = (
    "#2f81f7",
    "#d4762c",
    "#2da44e",
    "#a371f7",
    "#bf4b8a",
    "#8a7a1f",
    "#1b8f9e",
    "#e5534b",
    "#6e7781",
    "#5b8c3a",
)
_GREY = "#8b949e"
_FAR = 1e100
_LOW, _HIGH = (47, 129, 247), (224, 112, 32)  # worst and best of a metric


@dataclass(frozen=True, slots=True)
class Point:
    """A mark: where, what it says when pointed at, and whether it stands out."""

    x: float
    y: float
    label: str
    mark: str = "plain"  # plain, best, dim


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of parallel coordinates: a name and each row's value; text and mixed values are categories."""

    name: str
    values: tuple[Any, ...]
    log: bool = False


class _Scale:
    """From values to pixels."""

    def __init__(
        self, values: Iterable[float], start: float, end: float, *, log: bool = False, margin: float = 0.04
    ) -> None:
        self._log = log
        # Beyond this the difference of two numbers may be none; such values stand at the edge.
        clipped = [max(-_FAR, min(_FAR, v)) for v in values if math.isfinite(v) and (not log or v > 0)]
        low, high = (min(clipped), max(clipped)) if clipped else (0.1, 1.0)
        if log:
            low, high = max(low, 1 / _FAR), max(high, 1 / _FAR)
        if low == high:
            pad = abs(low) * 0.1 or 1.0
            low, high = (low / 2, high * 2) if log else (low - pad, high + pad)
        self._low, self._high = self._of(low), self._of(high)
        room = (self._high - self._low) * margin  # a mark on the edge would be cut in half
        self._low, self._high = self._low - room, self._high + room
        self._start, self._end = start, end

    def __call__(self, value: float) -> float:
        share = (self._of(value) - self._low) / (self._high - self._low)
        return self._start + (self._end - self._start) * min(1.0, max(0.0, share))

    def ticks(self, count: int = 5) -> list[float]:
        """Round numbers along the axis."""
        if self._log:
            decades = range(math.floor(self._low), math.ceil(self._high) + 1)
            return [10.0**d for d in decades if self._low - 1e-9 <= d <= self._high + 1e-9] or [
                10**self._low, 10**self._high
            ]  # fmt: skip
        span = self._high - self._low
        raw = span / max(1, count)
        if not math.isfinite(raw) or raw <= 0:
            return []
        size = 10.0 ** math.floor(math.log10(raw))
        step = next(size * m for m in (1, 2, 5, 10) if size * m >= raw * 0.999)
        first = math.ceil(self._low / step) * step
        return [first + n * step for n in range(int((self._high - first) / step + 1e-9) + 1)]

    def _of(self, value: float) -> float:
        near = max(-10 * _FAR, min(10 * _FAR, value))
        return math.log10(max(near, 0.1 / _FAR)) if self._log else near


def scatter(points: Sequence[Point], x_name: str, y_name: str, *, log_x: bool = False) -> str:
    """One mark per run."""
    kept = [p for p in points if math.isfinite(p.x) and math.isfinite(p.y)]
    x = _Scale((p.x for p in kept), _LEFT, WIDTH - _RIGHT, log=log_x)
    y = _Scale((p.y for p in kept), HEIGHT - _BOTTOM, _TOP)
    marks = "".join(_mark(x(p.x), y(p.y), p) for p in kept)
    return _svg(f"{y_name} against {x_name}", _axes(x, y, x_name, y_name) + marks)


def history(points: Sequence[Point], y_name: str, *, maximize: bool) -> str:
    """Values in the order they came, with the best so far as a line."""
    kept = [p for p in points if math.isfinite(p.y)]
    x = _Scale((p.x for p in kept), _LEFT + 8, WIDTH - _RIGHT - 8)
    y = _Scale((p.y for p in kept), HEIGHT - _BOTTOM, _TOP)
    best: float | None = None
    path = []
    for p in sorted((p for p in kept if p.mark != "dim"), key=lambda p: p.x):
        better = best is None or (p.y > best if maximize else p.y < best)
        if better:
            if best is not None:
                path.append(f"L{x(p.x):.1f} {y(best):.1f}")
            path.append(f"{'L' if path else 'M'}{x(p.x):.1f} {y(p.y):.1f}")
            best = p.y
    if best is not None and kept:
        path.append(f"L{x(max(p.x for p in kept)):.1f} {y(best):.1f}")
    line = f'<path d="{"".join(path)}" fill="none" stroke="{_PALETTE[1]}" stroke-width="1.5" stroke-dasharray="4 3"/>'
    marks = "".join(_mark(x(p.x), y(p.y), p) for p in kept)
    return _svg(f"{y_name} by trial, best so far", _axes(x, y, "trial", y_name, whole=True) + line + marks)


def lines(series: Sequence[tuple[str, Sequence[tuple[float, float]], bool]], y_name: str) -> str:
    """Reported values over steps: (label, points, whether it ended early)."""
    given = [(label, [(a, b) for a, b in points if math.isfinite(b)], dim) for label, points, dim in series]
    x = _Scale((a for _, points, _ in given for a, _ in points), _LEFT, WIDTH - _RIGHT)
    y = _Scale((b for _, points, _ in given for _, b in points), HEIGHT - _BOTTOM, _TOP)
    drawn = []
    for index, (label, points, dim) in enumerate(given):
        colour = _GREY if dim else _PALETTE[index % len(_PALETTE)]
        path = "M" + "L".join(f"{x(a):.1f} {y(b):.1f}" for a, b in points) if points else ""
        last = (
            f'<circle cx="{x(points[-1][0]):.1f}" cy="{y(points[-1][1]):.1f}" r="2.5" fill="{colour}"/>'
            if points
            else ""
        )
        drawn.append(
            f'<g opacity="{0.6 if dim else 1}"><title>{escaped(label, 200)}</title>'
            f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>{last}</g>'
        )
    return _svg(f"{y_name} as reported", _axes(x, y, "reported step", y_name, whole=True) + "".join(drawn))


def bars(labels: Sequence[str], values: Sequence[float], name: str) -> str:
    """One bar per run, from zero."""
    row = 26
    height = _TOP + row * max(1, len(values)) + 10
    finite = [v for v in values if math.isfinite(v)]
    start = 200
    x = _Scale([0.0, *finite], start, WIDTH - 80, margin=0.0)
    drawn = []
    for index, (label, value) in enumerate(zip(labels, values, strict=True)):
        top = _TOP + index * row
        end = x(value) if math.isfinite(value) else x(0.0)
        left, width = min(end, x(0.0)), abs(end - x(0.0))
        drawn.append(
            f"<g><title>{escaped(label, 200)}: {escaped(number(value))}</title>"
            f'<text x="{start - 10}" y="{top + 15}" text-anchor="end" font-size="11">{escaped(_tail(label, 24))}</text>'
            f'<rect x="{left:.1f}" y="{top + 3}" width="{max(1.0, width):.1f}" height="16" rx="2" '
            f'fill="{_PALETTE[0]}"/>'
            f'<text x="{max(end, x(0.0)) + 6:.1f}" y="{top + 15}" font-size="12">{escaped(number(value))}</text></g>'
        )
    title = f'<text x="12" y="16" font-size="12" font-weight="600">{escaped(name, 60)}</text>'
    return _svg(f"{name} by run", title + "".join(drawn), height=height)


def parallel(
    axes: Sequence[Axis], colour: Sequence[float | None], labels: Sequence[str], *, maximize: bool = True
) -> str:
    """Parallel coordinates: a line per run through its values, coloured by the metric (the last axis, usually)."""
    if len(axes) < 2:
        return ""
    width = max(WIDTH, 130 * len(axes))
    top, bottom = 46, HEIGHT - 24
    gap = (width - 140) / (len(axes) - 1)
    columns = [_column(axis, bottom, top) for axis in axes]
    known = [c for c in colour if c is not None and math.isfinite(c)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    drawn: list[tuple[float, str]] = []
    for row, label in enumerate(labels):
        points = [
            (70 + n * gap, place(axis.values[row]))
            for n, (axis, (place, _)) in enumerate(zip(axes, columns, strict=True))
        ]
        path = "".join(
            f"{'M' if not n or points[n - 1][1] is None else 'L'}{px:.1f} {py:.1f}"
            for n, (px, py) in enumerate(points)
            if py is not None
        )
        value = colour[row]
        share = -1.0
        stroke, opacity = _GREY, 0.45
        if value is not None and math.isfinite(value):
            share = (value - low) / (high - low) if high > low else 1.0
            share = share if maximize else 1 - share
            stroke, opacity = _between(share), 0.85
        drawn.append(
            (share, f'<path d="{path}" fill="none" stroke="{stroke}" stroke-opacity="{opacity}" '
                    f'stroke-width="{2.6 if share == 1.0 else 1.5}"><title>{escaped(label, 200)}</title></path>')
        )  # fmt: skip
    # The good ones on top.
    body = "".join(text for _, text in sorted(drawn, key=lambda pair: pair[0]))
    for n, (axis, (_, ticks)) in enumerate(zip(axes, columns, strict=True)):
        x = 70 + n * gap
        marks = "".join(
            f'<line x1="{x - 3:.1f}" x2="{x + 3:.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke="{_GREY}"/>'
            f'<text x="{x + 6:.1f}" y="{y + 4:.1f}" font-size="11">{escaped(text, 14)}</text>'
            for y, text in ticks
        )
        body += (
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}" stroke="{_GREY}"/>{marks}'
            f'<text x="{x:.1f}" y="{top - 14}" text-anchor="middle" font-size="12" font-weight="600">{escaped(axis.name, 18)}</text>'
        )
    return _svg("parallel coordinates", body, width=int(width))


def _column(axis: Axis, bottom: float, top: float) -> tuple[Callable[[Any], float | None], list[tuple[float, str]]]:
    """How an axis places a value, and its ticks."""
    given = [v for v in axis.values if v is not None]
    if given and all(isinstance(v, int | float) and not isinstance(v, bool) for v in given):
        scale = _Scale([float(v) for v in given], bottom, top, log=axis.log)
        distinct = sorted(set(given))
        at = distinct if len(distinct) <= 6 else scale.ticks()
        return (lambda v: None if v is None else scale(float(v))), _apart([(scale(t), number(t)) for t in at])
    names = list(dict.fromkeys(str(v) for v in given))
    step = (bottom - top) / max(1, len(names) - 1)
    places = {name: bottom - n * step if len(names) > 1 else (bottom + top) / 2 for n, name in enumerate(names)}
    return (lambda v: None if v is None else places[str(v)]), [(y, name) for name, y in places.items()]


def _apart(ticks: list[tuple[float, str]]) -> list[tuple[float, str]]:
    """Only ticks that can be read beside one another."""
    kept: list[tuple[float, str]] = []
    for at, text in ticks:
        if all(abs(at - other) >= 13 for other, _ in kept):
            kept.append((at, text))
    return kept


def _axes(x: _Scale, y: _Scale, x_name: str, y_name: str, *, whole: bool = False) -> str:
    parts = []
    for tick in y.ticks():
        at = y(tick)
        parts.append(
            f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}" stroke="{_GREY}" stroke-opacity="0.25"/>'
            f'<text x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end" font-size="11">{escaped(number(tick))}</text>'
        )
    for tick in x.ticks():
        if whole and tick != int(tick):
            continue
        shown = number(int(tick)) if whole else number(tick)
        parts.append(
            f'<text x="{x(tick):.1f}" y="{HEIGHT - _BOTTOM + 18}" text-anchor="middle" font-size="11">{escaped(shown)}</text>'
        )
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(
        f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{HEIGHT - _BOTTOM}" y2="{HEIGHT - _BOTTOM}" stroke="{_GREY}"/>'
    )
    parts.append(
        f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle" font-size="12">{escaped(x_name, 60)}</text>'
    )
    parts.append(f'<text x="{_LEFT - 52}" y="16" font-size="12" font-weight="600">{escaped(y_name, 60)}</text>')
    return "".join(parts)


def _mark(x: float, y: float, point: Point) -> str:
    colour, radius, opacity = {
        "best": (_PALETTE[1], 6, 1),
        "dim": (_GREY, 3, 0.7),
    }.get(point.mark, (_PALETTE[0], 4, 0.9))
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{colour}" fill-opacity="{opacity}">'
        f"<title>{escaped(point.label, 300)}</title></circle>"
    )


def _between(share: float) -> str:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(_LOW, _HIGH, strict=True))
    return f"#{red:02x}{green:02x}{blue:02x}"


def _tail(text: str, limit: int) -> str:
    """The end of a run's id is what tells it from others."""
    clean = shortened(text, 200)
    return clean if len(clean) <= limit else "…" + clean[-(limit - 1) :]


def _svg(label: str, body: str, *, width: int = WIDTH, height: int = HEIGHT) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img" '
        f'aria-label="{escaped(label, 200)}" fill="currentColor" style="max-width:100%;height:auto" '
        f'font-family="system-ui,sans-serif">{body}</svg>'
    )
