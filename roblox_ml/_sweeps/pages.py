"""A sweep as HTML: the facts, the plots, the table. One body for the notebook, the browser and a saved page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._cards.page import page
from .._cards.tables import rows_of, to_html
from .._cards.text import escaped, number
from .._compare.plots import Axis, Point, history, lines, parallel, scatter
from .space import Choice

if TYPE_CHECKING:
    from .record import Trial
    from .result import Sweep

__all__ = ["body_of", "page_of", "plots_of"]

_ROWS = 100
_CURVES = 60
_ABOUT = 4


def page_of(sweep: Sweep) -> str:
    """A whole document."""
    known = sweep.definition
    about = f"sweep of {known.pipeline} · {known.direction} {known.metric} · {known.sampler}"
    return page(sweep.name, body_of(sweep, heading=False), about=about)


def body_of(sweep: Sweep, *, heading: bool = True) -> str:
    """Facts, plots and table as HTML; everything a user named is escaped."""
    known, trials = sweep.definition, sweep.trials
    title = f"<b>{escaped(sweep.name)}</b> · " if heading else ""
    best = sweep._best_of(trials)
    said = f"<p>{title}{sweep.state} · {escaped(sweep.counts())}</p>"
    if best is not None:
        chosen = ", ".join(f"{name} = {number(value)}" for name, value in best.params.items())
        said += (
            f"<p>best {escaped(known.metric)}: <strong>{escaped(number(best.value))}</strong> in trial {best.number} "
            f"with {escaped(chosen)} (<code>{escaped(best.run)}</code>)</p>"
        )
    said += "".join(f"<p>{escaped(note)}</p>" for note in sweep.notes)
    drawn = "".join(f"<div>{plot}</div>" for plot in plots_of(sweep) if plot)
    rows = [
        {
            "trial": row["trial"],
            "state": row["state"],
            known.metric: row[known.metric],
            **{name: row[name] for name in known.space},
            "seconds": row["seconds"],
            "note": row["reason"],
        }
        for row in sweep.table()
    ]
    table = to_html(rows_of(rows, None, _ROWS), f"{len(rows)} trials, best first") if rows else ""
    return f'<div>{said}<div class="plots">{drawn}</div>{table}</div>'


def plots_of(sweep: Sweep) -> list[str]:
    """Values by trial, reports over steps, parallel coordinates, and the metric against each numeric parameter."""
    known, trials = sweep.definition, sweep.trials
    best = sweep._best_of(trials)
    with_value = [t for t in trials if t.value is not None]
    plots = []
    if with_value:
        points = [Point(t.number, t.value or 0.0, _label(t), _mark(t, best)) for t in with_value]
        pruned = [
            Point(t.number, t.reports[-1][1], _label(t), "dim") for t in trials if t.state == "PRUNED" and t.reports
        ]
        plots.append(history([*points, *pruned], known.metric, maximize=known.direction == "maximize"))
    curves = [(_label(t), t.reports, t.state == "PRUNED") for t in trials if len(t.reports) > 1]
    if curves:
        plots.append(lines(curves[:_CURVES], known.metric))
    if len(with_value) > 1:
        axes = [_axis(sweep, name, with_value) for name in known.space]
        axes.append(Axis(known.metric, tuple(t.value for t in with_value)))
        values = [t.value for t in with_value]
        labels = [_label(t) for t in with_value]
        plots.append(parallel(axes, values, labels, maximize=known.direction == "maximize"))
        for name in [n for n, kind in known.space.items() if not isinstance(kind, Choice)][:_ABOUT]:
            logged = bool(getattr(known.space[name], "log", False))
            marks = [
                Point(float(t.params[name]), t.value or 0.0, _label(t), _mark(t, best))
                for t in with_value
                if name in t.params
            ]
            plots.append(scatter(marks, name, known.metric, log_x=logged))
    return plots


def _axis(sweep: Sweep, name: str, trials: list[Trial]) -> Axis:
    log = bool(getattr(sweep.definition.space[name], "log", False))
    return Axis(name, tuple(t.params.get(name) for t in trials), log)


def _mark(trial: Trial, best: Trial | None) -> str:
    return "best" if best is not None and trial.number == best.number else "plain"


def _label(trial: Trial) -> str:
    params = ", ".join(f"{name}={number(value)}" for name, value in trial.params.items())
    value = "" if trial.value is None else f": {number(trial.value)}"
    return f"trial {trial.number} {trial.state.lower()}{value} ({params})"
