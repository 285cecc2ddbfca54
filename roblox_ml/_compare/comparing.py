"""`rml.compare(…)`: runs beside one another, as text, HTML and plots, with what made them different.

The first run is what the others are measured against. What is the same everywhere is not shown twice: it stands under
the table, or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RunError
from .facts import Facts, facts_of

if TYPE_CHECKING:
    from .._sweeps.result import Sweep

__all__ = ["Comparison", "compare"]

_MOST = 200


def compare(*runs: Any) -> Comparison:
    """Compare runs (ids or run objects, also in a list), or the trials of a sweep (the sweep, or its name).

    `print` it, show it in a notebook, `.save("page.html")`; `.differences` says which steps' code, locks and data differ,
    `.diff("train")` how.
    """

    found: list[Facts] = []
    sweep: Sweep | None = None
    for given in _flat(runs):
        whole = _as_sweep(given)
        if whole is None:
            found.append(facts_of(_as_run(given)))
        else:
            sweep = whole
            best_first = [trial for trial in whole.ranked() if trial.run]
            found += [facts_of(whole.run(t.number), f"trial {t.number}") for t in best_first[:_MOST]]
    if not found:
        raise RunError("there is nothing to compare", fix="rml.compare(run, other), rml.compare(sweep), or ids of runs")
    if len({facts.id for facts in found}) < 2:
        raise RunError(
            f"only {found[0].id} was given; a comparison takes at least two runs", fix="list them: rml.runs()"
        )
    return Comparison(found, sweep)


class Comparison:
    """Two or more runs. `runs` are their facts, in the order they were given (a sweep's trials: best first)."""

    def __init__(self, runs: Sequence[Facts], sweep: Sweep | None = None) -> None:
        self.runs = tuple({facts.id: facts for facts in runs}.values())
        self.sweep = sweep

    @property
    def parameters(self) -> list[str]:
        """Parameters that are not the same in all runs."""
        return [
            name for name in self._names("parameters") if self._differs([r.parameters.get(name) for r in self.runs])
        ]

    @property
    def metrics(self) -> list[str]:
        """Metrics that any of the runs has."""
        return self._names("metrics")

    @property
    def differences(self) -> list[str]:
        """What made them different, other than parameters: code, locks, data, pipelines, commits; one sentence each."""
        found = []
        first = self.runs[0]
        for other in self.runs[1:]:
            found += list(_between(first, other))
        return list(dict.fromkeys(found))

    def diff(self, step: str, run: str | None = None) -> str:
        """How a step's source and lock differ between the first run and another (the second, unless it is named)."""
        from .source import source_diff

        first = self.runs[0]
        other = next((r for r in self.runs[1:] if run in (None, r.id, r.label)), None)
        if other is None:
            raise RunError(f"no run {run!r} is compared here", fix=f"one of {', '.join(r.id for r in self.runs[1:])}")
        names = {*first.steps, *other.steps}
        wanted = step if step in names else step.replace("_", "-")
        if wanted not in names:
            raise RunError(
                f"no run has a step {step!r}", fix=f"its steps are: {', '.join(sorted(names)) or 'not known'}"
            )
        return source_diff(wanted, first, other)

    def table(self) -> list[dict[str, Any]]:
        """A row per run: id, state, seconds, the parameters that differ, the metrics."""
        return [
            {
                "run": run.label,
                "state": run.state,
                "seconds": None if run.seconds is None else round(run.seconds, 2),
                **{name: run.parameters.get(name) for name in self.parameters},
                **{name: run.metrics.get(name) for name in self.metrics},
            }
            for run in self.runs
        ]

    def to_pandas(self) -> Any:
        """`table()` as a data frame."""
        from importlib import import_module

        return import_module("pandas").DataFrame(self.table())

    def save(self, path: str | Path) -> Path:
        """Table, differences and plots as one page that needs nothing else."""
        from .pages import page_of

        target = Path(path)
        target.write_text(page_of(self), encoding="utf-8")
        return target

    def __str__(self) -> str:
        from .pages import text_of

        return text_of(self)

    def __repr__(self) -> str:
        return f"<rml.Comparison of {len(self.runs)} runs>"

    def _repr_html_(self) -> str:
        from .pages import body_of

        return body_of(self)

    def _names(self, kind: str) -> list[str]:
        return list(dict.fromkeys(name for run in self.runs for name in getattr(run, kind)))

    @staticmethod
    def _differs(values: list[Any]) -> bool:
        return any(value != values[0] or type(value) is not type(values[0]) for value in values[1:])


def _between(first: Facts, other: Facts) -> Iterable[str]:
    """Sentences about what differs from the first run to another one."""
    if first.pipeline != other.pipeline:
        yield f"pipeline: {first.label} ran {first.pipeline}, {other.label} ran {other.pipeline}"
    if first.steps and other.steps:
        for name in [*first.steps, *(n for n in other.steps if n not in first.steps)]:
            old, new = first.steps.get(name), other.steps.get(name)
            if old is None or new is None:
                yield f"step {name}: only {(other if old is None else first).label} has it"
                continue
            if old.code != new.code:
                yield f"code of {name}: {other.label} has {new.code[:12]}, {first.label} {old.code[:12]} (see .diff({name!r}))"
            if old.lock != new.lock:
                yield f"packages of {name}: {other.label} has lock {new.lock[:12]}, {first.label} {old.lock[:12]}"
    for missing, holder in ((set(first.data) - set(other.data), first), (set(other.data) - set(first.data), other)):
        for data in sorted(missing):
            yield f"data: only {holder.label} used {data}"
    commits = (first.git.get("commit"), other.git.get("commit"))
    if commits[0] != commits[1]:
        yield f"commit: {other.label} at {str(commits[1] or 'none')[:12]}, {first.label} at {str(commits[0] or 'none')[:12]}"


def _flat(runs: Iterable[Any]) -> Iterable[Any]:
    for given in runs:
        if isinstance(given, list | tuple):
            yield from given
        else:
            yield given


def _as_sweep(given: Any) -> Sweep | None:
    from .._sweeps.record import SweepFolder, sweeps_folder
    from .._sweeps.result import Sweep

    if isinstance(given, Sweep):
        return given
    if isinstance(given, str) and given and (sweeps_folder() / given / "sweep.json").is_file():
        return Sweep(SweepFolder(sweeps_folder() / given))
    return None


def _as_run(given: Any) -> Any:
    if isinstance(given, str):
        from .._runs import get_run

        return get_run(given)
    if not hasattr(given, "id") or not hasattr(given, "state"):
        raise RunError(f"{given!r:.60} is no run", fix="pass runs, ids of runs, or a sweep")
    return given
