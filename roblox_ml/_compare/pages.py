"""A comparison as text for a terminal and as HTML for a notebook or a page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._cards.page import page
from .._cards.tables import rows_of, to_html
from .._cards.text import clean, escaped, number, shortened
from .plots import Axis, Point, bars, parallel, scatter

if TYPE_CHECKING:
    from .comparing import Comparison

__all__ = ["body_of", "page_of", "text_of"]

_ROWS = 200
_COLUMN = 30
_BARS = 30
_PLOTS = 4
_SENTENCES = 40


def text_of(comparison: Comparison) -> str:
    """A column per run while they fit beside one another, a row per run otherwise."""
    rows = comparison.table()
    names = list(rows[0])
    cells = [[_cell(row[name]) for name in names] for row in rows]
    table = [names, *cells]
    if len(rows) <= 4:
        table = [list(column) for column in zip(*table, strict=True)]
    widths = [max(len(row[n]) for row in table) for n in range(len(table[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    said = comparison.differences
    lines += ["", *(said[:_SENTENCES] or ["same code, packages and data in all of them"])]
    if len(said) > _SENTENCES:
        lines.append(f"… {len(said) - _SENTENCES} more differences")
    return "\n".join(lines)


def body_of(comparison: Comparison) -> str:
    """Table, differences, plots."""
    table = to_html(rows_of(comparison.table(), None, _ROWS), f"{len(comparison.runs)} runs")
    said = comparison.differences
    shown = "".join(f"<li>{escaped(sentence, 300)}</li>" for sentence in said[:_SENTENCES])
    more = f"<li>… {len(said) - _SENTENCES} more</li>" if len(said) > _SENTENCES else ""
    listed = f"<ul>{shown}{more}</ul>" if said else "<p>Same code, packages and data in all of them.</p>"
    drawn = "".join(f"<div>{plot}</div>" for plot in _plots(comparison) if plot)
    return f'<div>{table}<h3>What differs</h3>{listed}<div class="plots">{drawn}</div></div>'


def page_of(comparison: Comparison) -> str:
    """A whole document."""
    pipelines = ", ".join(dict.fromkeys(run.pipeline for run in comparison.runs))
    return page(f"{len(comparison.runs)} runs compared", body_of(comparison), about=pipelines)


def _plots(comparison: Comparison) -> list[str]:
    runs, metrics, parameters = comparison.runs, comparison.metrics, comparison.parameters
    chosen = comparison.sweep.definition.metric if comparison.sweep is not None else ""
    # What is the same in every run is in the table; a plot of it says nothing.
    metrics = [name for name in metrics if len({run.metrics.get(name) for run in runs}) > 1]
    metrics = sorted(metrics, key=lambda name: name != chosen)  # the metric of a sweep first
    labels = [run.label for run in runs]
    plots = []
    if metrics and parameters and len(runs) > 2:
        axes = [Axis(name, tuple(_value(run.parameters.get(name)) for run in runs)) for name in parameters]
        axes += [Axis(name, tuple(run.metrics.get(name) for run in runs)) for name in metrics[:3]]
        maximize = comparison.sweep is None or comparison.sweep.definition.direction == "maximize"
        plots.append(parallel(axes, [run.metrics.get(metrics[0]) for run in runs], labels, maximize=maximize))
    for name in metrics[:_PLOTS]:
        held = [run for run in runs if name in run.metrics][:_BARS]
        plots.append(bars([run.label for run in held], [run.metrics[name] for run in held], name))
    for name in parameters[:_PLOTS]:
        held = [run for run in runs if metrics and metrics[0] in run.metrics and _number(run.parameters.get(name))]
        if len(held) > 2:
            points = [Point(float(run.parameters[name]), run.metrics[metrics[0]], run.label) for run in held]
            plots.append(scatter(points, name, metrics[0]))
    return plots


def _cell(value: Any) -> str:
    return "" if value is None else shortened(number(value) if _number(value) else clean(value), _COLUMN)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _value(value: Any) -> Any:
    return value if value is None or _number(value) else clean(value)
