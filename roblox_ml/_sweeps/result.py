"""A sweep as a user meets it: its trials, the best one, a table, plots. `rml.sweep()` returns one, `rml.get_sweep(name)` too.

Like a run, it holds a folder and nothing else: what it says is read from the record there, from any process.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RunError
from .definition import Definition
from .record import SweepFolder, Trial

if TYPE_CHECKING:
    from .._runs import Run

__all__ = ["Sweep", "SweepList", "get_sweep", "sweeps"]

_SIGNS = {"SUCCEEDED": "✓", "PRUNED": "✂", "FAILED": "✗", "RUNNING": "▸", "WAITING": "·"}


class Sweep:
    """One sweep. Made by `rml.sweep(…)`, `rml.sweeps()` and `rml.get_sweep(name)`."""

    def __init__(self, folder: SweepFolder) -> None:
        self._folder = folder
        self._about = folder.about
        self.definition = Definition.from_json(self._about["definition"])

    @property
    def name(self) -> str:
        return self._folder.name

    @property
    def path(self) -> Path:
        """The sweep's folder: sweep.json, state.json, ir.yaml, study.db (Optuna's)."""
        return self._folder.path

    @property
    def state(self) -> str:
        """RUNNING, FINISHED, STOPPED (budget, Ctrl-C), or INTERRUPTED: who drove it is gone and did not say why."""
        state = str(self._folder.state["state"])
        if state != "RUNNING" or self._folder.is_attended():
            return state
        again = str(self._folder.state["state"])
        return "INTERRUPTED" if again == "RUNNING" else again

    @property
    def trials(self) -> list[Trial]:
        """Every trial so far, in the order they were begun."""
        return self._folder.trials

    @property
    def wanted(self) -> int:
        """How many trials it is to have."""
        return int(self._folder.state.get("wanted") or len(self.trials))

    @property
    def notes(self) -> list[str]:
        """What else is worth knowing (a spent budget, an interruption)."""
        return list(self._folder.state["notes"])

    @property
    def best(self) -> Trial:
        """The trial with the best value; of equal ones the first."""
        found = self._best_of(self.trials)
        if found is None:
            raise RunError(f"no trial of the sweep {self.name!r} has succeeded yet", fix="look at them: .trials")
        return found

    @property
    def best_params(self) -> Mapping[str, Any]:
        return dict(self.best.params)

    @property
    def best_run(self) -> Run:
        """The run of the best trial: its outputs, its logs, its cards."""
        return self.run(self.best.number)

    def run(self, number: int) -> Run:
        """A trial's run."""
        from .._runs import get_run

        trial = next((t for t in self.trials if t.number == number), None)
        if trial is None or not trial.run:
            raise RunError(f"the sweep {self.name!r} has no trial {number} with a run")
        return get_run(f"kfp:{trial.run}" if self._folder.is_remote else trial.run)

    def table(self) -> list[dict[str, Any]]:
        """A row per trial, best first: number, state, the metric, the parameters, seconds, run, reason."""
        return [
            {
                "trial": trial.number,
                "state": trial.state,
                self.definition.metric: trial.value,
                **{name: trial.params.get(name) for name in self.definition.space},
                "seconds": None if trial.duration is None else round(trial.duration, 2),
                "run": trial.run,
                "reason": trial.reason,
            }
            for trial in self.ranked()
        ]

    def ranked(self) -> list[Trial]:
        """The trials, best first; those without a value after those with one."""
        sign = -1 if self.definition.direction == "maximize" else 1
        return sorted(self.trials, key=lambda t: (t.value is None, sign * (t.value or 0.0), t.number))

    def to_pandas(self) -> Any:
        """`table()` as a data frame."""
        from importlib import import_module

        return import_module("pandas").DataFrame(self.table())

    def resume(self, *, trials: int | None = None, parallel: int | None = None) -> Sweep:
        """Go on where it was, with the code it was begun with; more `trials` make it longer."""
        from .beginning import resume

        return resume(self.name, trials=trials, parallel=parallel)

    def save(self, path: str | Path) -> Path:
        """Table and plots as one page that needs nothing else."""
        from .pages import page_of

        target = Path(path)
        target.write_text(page_of(self), encoding="utf-8")
        return target

    def counts(self) -> str:
        """`12 of 20 trials, 3 pruned, 1 failed`."""
        trials = self.trials
        ended = [t for t in trials if t.state in ("SUCCEEDED", "PRUNED", "FAILED")]
        parts = [f"{len(ended)} of {max(self.wanted, len(trials))} trials"]
        for state, word in (("PRUNED", "pruned"), ("FAILED", "failed")):
            count = sum(t.state == state for t in trials)
            parts += [f"{count} {word}"] if count else []
        return ", ".join(parts)

    def __repr__(self) -> str:
        best = self._best_of(self.trials)
        said = "" if best is None else f", best {self.definition.metric} {best.value:.4g} with {dict(best.params)}"
        return f"<rml.Sweep {self.name} {self.state}, {self.counts()}{said}>"

    def _repr_html_(self) -> str:
        from .pages import body_of

        return body_of(self)

    def _best_of(self, trials: list[Trial]) -> Trial | None:
        done = [t for t in trials if t.state == "SUCCEEDED" and t.value is not None]
        if not done:
            return None
        sign = -1 if self.definition.direction == "maximize" else 1
        return min(done, key=lambda t: (sign * (t.value or 0.0), t.number))


class SweepList(list[Sweep]):
    """Sweeps, newest first; a table in a notebook."""

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td><code>{html.escape(one.name)}</code></td><td>{html.escape(one.definition.pipeline)}</td>"
            f"<td>{one.state}</td><td>{html.escape(one.counts())}</td></tr>"
            for one in self
        )
        head = "".join(f"<th>{name}</th>" for name in ("sweep", "pipeline", "state", "trials"))
        return f"<table><tr>{head}</tr>{rows}</table>"


def sweeps(pipeline: str | None = None, limit: int = 20) -> SweepList:
    """The sweeps of this machine, newest first; only those of `pipeline` when it is named."""
    found = SweepList()
    for folder in SweepFolder.all():
        one = Sweep(folder)
        if pipeline is None or one.definition.pipeline == pipeline:
            found.append(one)
        if len(found) >= limit:
            break
    return found


def get_sweep(name: str) -> Sweep:
    """The sweep of this name, whatever process runs it."""
    return Sweep(SweepFolder.open(name))


def sign_of(state: str) -> str:
    """`✓` and its like."""
    return _SIGNS.get(state, "·")
