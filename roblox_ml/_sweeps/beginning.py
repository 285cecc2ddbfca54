"""`rml.sweep(…)`: check everything, find or make the record, drive it, hand back the result."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .._gc import seconds_of
from .._graph.where import here
from .._store import open_store
from ..errors import GraphError, RunError
from .definition import SAMPLERS, Definition, check, code_of
from .record import SweepFolder
from .space import Choice, Integers, Uniform

if TYPE_CHECKING:
    from .._graph.pipeline import Pipeline
    from .result import Sweep

__all__ = ["resume", "sweep"]

_LOOK_REMOTE = 2.0


def sweep(
    pipeline: Pipeline,
    space: Mapping[str, Any],
    *,
    metric: str,
    direction: str = "maximize",
    trials: int | None = None,
    parallel: int = 1,
    sampler: Any = "tpe",
    pruner: Any = "median",
    budget: float | str | None = None,
    on: Any = None,
    name: str | None = None,
    resume: bool = True,
    seed: int = 0,
    cache: bool = True,
    progress: bool = True,
) -> Sweep:
    """Run a pipeline over a space of parameters and find the best: `rml.sweep(train, {"lr": rml.uniform(1e-5, 1e-3,
    log=True)}, metric="evaluate.f1", trials=30, parallel=2)`.

    `metric` is what a step returns: `"evaluate.f1"` of rml.Metrics, `"score"` of a step that returns a number. Values of
    the space are `rml.choice`, `rml.uniform`, `rml.integers`, or constants. `sampler` is "tpe", "random" or "grid" (which
    needs no `trials`), `pruner` "median", "percentile", "halving", "hyperband" or "none" (it hears `rml.report`); both
    also take Optuna's own. `budget` ("2h") is the time in which trials are started. `on=rml.connect(…)` runs them on
    Kubeflow.

    The same call again, also after a kill, goes on where it was: finished trials are not repeated. `resume=False` begins
    anew and keeps the old one under another name. A trial that fails is noted and the sweep goes on.
    """
    from .._graph.pipeline import Pipeline

    if not isinstance(pipeline, Pipeline):
        raise TypeError(f"rml.sweep takes a pipeline, got {type(pipeline).__name__}; decorate it with @rml.pipeline")
    site = here()
    graph, found = pipeline.trace()
    if found:
        raise GraphError(found, subject=f"pipeline {pipeline.name!r}")
    constants = check(graph, space, metric, direction, site)
    axes = {key: value for key, value in space.items() if isinstance(value, Choice | Uniform | Integers)}
    points = _checked(trials, parallel, sampler, axes)
    built = pipeline.build({**constants, **{key: _first(value) for key, value in axes.items()}})
    kind = sampler if isinstance(sampler, str) else type(sampler).__name__
    definition = Definition(pipeline.name, axes, constants, metric, direction, kind, seed, code_of(built))
    folder = SweepFolder.at(name or f"{pipeline.name[:50].strip('-')}-{definition.digest[:8]}")
    if folder.exists():
        if not resume:
            folder.set_aside()
        else:
            definition = _same(folder, definition)
    if not folder.exists():
        folder.create(definition, built)
    store = open_store()
    for data in built.blobs.values():
        store.put(data)  # for `rml sweeps resume`, which has no pipeline at hand
    asked = _Asked(trials or points or 1, parallel, sampler, pruner, budget, cache, progress)
    return _drive(folder, definition, asked, built, on)


def resume(name: str, *, trials: int | None = None, parallel: int | None = None, progress: bool = True) -> Sweep:
    """Go on with a sweep by its name, with the code and settings it was begun with."""
    folder = SweepFolder.open(name)
    about = folder.about
    definition = Definition.from_json(about["definition"])
    if definition.sampler not in SAMPLERS:
        why = f"it was begun with a sampler of its own ({definition.sampler}), which is not recorded"
        raise RunError(f"sweep {name!r} cannot be resumed by name", why=why, fix="call rml.sweep(…) as it was begun")
    last = folder.asked
    if last.get("remote"):
        raise RunError(f"sweep {name!r} runs on Kubeflow", fix="call rml.sweep(pipeline, …, on=rml.connect(…)) again")
    wanted = trials or int(last["trials"])
    asked = _Asked(wanted, parallel or int(last["parallel"]), definition.sampler, last["pruner"], None, True, progress)
    return _drive(folder, definition, asked, _built(folder, about), None)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What one call wants; kept in `asked.json` so that a resume by name wants the same."""

    trials: int
    parallel: int
    sampler: Any
    pruner: Any
    budget: float | str | None
    cache: bool
    progress: bool


@dataclass(frozen=True, slots=True)
class _Built:
    """A compiled pipeline, read back from the sweep's folder; its blobs are in the store already."""

    name: str
    ir: bytes
    provenance: Mapping[str, Any]
    blobs: Mapping[str, bytes] = field(default_factory=dict)
    schedule: Any = None
    notify: Any = ()


def _drive(folder: SweepFolder, definition: Definition, asked: _Asked, built: Any, on: Any) -> Sweep:
    from .backends import backend_for
    from .driving import Driver, Limits
    from .optimiser import Optimiser, quiet
    from .progress import Progress
    from .result import Sweep

    handle = folder.lock()
    if handle is None:
        fix = f"wait for it, or look at it: rml.get_sweep({folder.name!r})"
        raise RunError(f"the sweep {folder.name!r} is being run by another process", fix=fix)
    found = Sweep(folder)
    try:
        _keep_settings(folder, asked, remote=on is not None)
        prefix = folder.about["prefix"]
        # Notifications are for runs that somebody waits for, not for each of a hundred trials.
        unheard = _Built(built.name, built.ir, built.provenance, built.blobs) if on is None else built
        backend = backend_for(on, unheard, folder.name, prefix, definition.constants, cache=asked.cache)
        with quiet():
            own = None if isinstance(asked.sampler, str) else asked.sampler
            optimiser = Optimiser(folder, definition, own, asked.pruner, asked.parallel)
            wanted = min(asked.trials, optimiser.size or asked.trials)
            seconds = None if asked.budget is None else seconds_of(asked.budget)
            limits = Limits(wanted, asked.parallel, seconds, **({} if on is None else {"look": _LOOK_REMOTE}))
            with Progress(found, shown=asked.progress) as view:
                Driver(folder, optimiser, backend, limits, view.update).run()
    finally:
        os.close(handle)
    if found.trials and all(trial.state == "FAILED" for trial in found.trials):
        first = found.trials[0]
        raise RunError(
            f"all {len(found.trials)} trials of the sweep {folder.name!r} failed",
            why=f"trial {first.number}: {first.reason}",
            fix=f"rml.get_run({first.run!r}), mend it, and sweep again with resume=False",
        )
    return found


def _checked(trials: int | None, parallel: int, sampler: Any, axes: Mapping[str, Any]) -> int | None:
    """Points of a grid (None for others); raises on settings that make no sense."""
    from .space import grid

    problems = []
    points = None
    if isinstance(sampler, str) and sampler not in SAMPLERS:
        problems.append(f"sampler={sampler!r} is not one of {', '.join(SAMPLERS)}")
    if sampler == "grid":
        try:
            points = sum(1 for _ in grid(axes))
        except ValueError as error:
            problems.append(str(error))
    elif trials is None:
        problems.append("trials= is missing: how many runs may it take?")
    if trials is not None and (isinstance(trials, bool) or not isinstance(trials, int) or trials < 1):
        problems.append(f"trials={trials!r} is not a number from 1 up")
    if isinstance(parallel, bool) or not isinstance(parallel, int) or parallel < 1:
        problems.append(f"parallel={parallel!r} is not a number from 1 up")
    if problems:
        raise RunError(
            "the sweep was not begun: " + "; ".join(problems), fix="rml.sweep(pipeline, space, metric=…, trials=20)"
        )
    return points


def _same(folder: SweepFolder, definition: Definition) -> Definition:
    """The recorded definition, if it is this one: a grid's points are numbered in the order it was written in."""
    recorded = Definition.from_json(folder.about["definition"])
    changed = list(recorded.differences(definition))
    if changed:
        raise RunError(
            f"the sweep {folder.name!r} was begun with something else: {'; '.join(changed)}",
            why="its finished trials would be compared with others of another kind",
            fix="give it another name=, or begin anew with resume=False (the old one is kept)",
        )
    return recorded


def _first(value: Any) -> Any:
    return value.values[0] if isinstance(value, Choice) else value.low


def _keep_settings(folder: SweepFolder, asked: _Asked, *, remote: bool) -> None:
    pruner = asked.pruner if asked.pruner is None or isinstance(asked.pruner, str) else "median"
    kept = {"trials": asked.trials, "parallel": asked.parallel, "pruner": pruner, "remote": remote}
    fresh = folder.path / ".asked.new"
    fresh.write_text(json.dumps(kept), "utf-8")
    fresh.replace(folder.path / "asked.json")


def _built(folder: SweepFolder, about: Mapping[str, Any]) -> _Built:
    definition = about["definition"]
    lines = json.loads((folder.path / "lines.json").read_text("utf-8"))
    provenance = {**about["provenance"], "lines": lines}
    store = open_store()
    missing = [digest for digest in about["blobs"] if not store.has(digest)]
    if missing:
        fix = "call rml.sweep(…) with its pipeline: it stores them again"
        raise RunError(f"the store no longer has {len(missing)} blobs of the sweep {folder.name!r}", fix=fix)
    return _Built(definition["pipeline"], (folder.path / "ir.yaml").read_bytes(), provenance)
