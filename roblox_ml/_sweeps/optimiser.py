"""Optuna behind a small door: which point next, is this one hopeless, what is known.

The study lies in SQLite. Optuna's journal file was tried and does not survive a torn last line: the next record is glued
to it and the file cannot be read any more. Samplers keep their random state in memory, so each trial gets a sampler of
its own, seeded by sweep and number: a resumed sweep asks what the one that was killed would have asked.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..errors import MissingExtra, RunError
from .definition import PRUNERS, Definition
from .record import SweepFolder, Trial
from .space import Choice, Distribution, Integers, grid

__all__ = ["Asked", "Optimiser", "optuna", "quiet"]

_STATES = {"COMPLETE": "SUCCEEDED", "PRUNED": "PRUNED", "FAIL": "FAILED", "RUNNING": "RUNNING", "WAITING": "WAITING"}
_SCALARS = (str, int, float)


def optuna() -> Any:
    """The module, or what to install."""
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise MissingExtra(
            "optuna is not installed", why="sweeps choose their points with it", fix="pip install optuna"
        ) from error
    return optuna


@contextmanager
def quiet() -> Iterator[None]:
    """Optuna logs every trial by itself; the sweep's table says more. The user's own level comes back."""
    logging = optuna().logging
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)


class Asked:
    """A trial to run. `params` are values of the pipeline's parameters."""

    def __init__(self, handle: Any, params: Mapping[str, Any]) -> None:
        self.handle = handle
        self.number: int = handle.number
        self.params = dict(params)


class Optimiser:
    """The study of one sweep."""

    def __init__(self, folder: SweepFolder, definition: Definition, sampler: Any, pruner: Any, parallel: int) -> None:
        self.definition = definition
        self._parallel = parallel
        self._sampler = sampler
        library = optuna()
        storage = library.storages.RDBStorage(folder.storage_url, engine_kwargs={"connect_args": {"timeout": 60}})
        self._study = library.create_study(
            storage=storage,
            study_name=folder.name,
            direction=definition.direction,
            load_if_exists=True,
            pruner=_pruner(pruner),
        )
        self._distributions = {name: _distribution(known) for name, known in definition.space.items()}
        # A study that was killed inside a question has trials without their points: `adopt` completes those.
        self._grid = list(grid(definition.space)) if definition.sampler == "grid" else None

    @property
    def size(self) -> int | None:
        """Points there are; None: without end."""
        return None if self._grid is None else len(self._grid)

    def count(self) -> int:
        """Trials that were asked for so far."""
        return len(self._frozen()) - len(self._frozen("WAITING"))

    def ask(self) -> Asked:
        """The next trial."""
        if not self._frozen("WAITING"):
            number = len(self._frozen())
            if self.definition.sampler in ("grid", "random"):
                # Our own points, stored before they are asked for: they depend on the number alone.
                self._study.enqueue_trial(self._stored(self._point(number)))
            else:
                self._study.sampler = self._sampler_for(number)
        return self._completed(self._study.ask())

    def unfinished(self) -> list[Asked]:
        """Trials that were running when the one who drove the sweep ended."""
        library = optuna()
        return [
            self._completed(library.trial.Trial(self._study, frozen._trial_id)) for frozen in self._frozen("RUNNING")
        ]

    def report(self, asked: Asked, step: int, value: float) -> bool:
        """Note an intermediate value; whether the trial is hopeless by now."""
        asked.handle.report(value, step)
        return bool(asked.handle.should_prune())

    def reported(self, asked: Asked) -> set[int]:
        """Steps whose values are noted already."""
        return next(set(t.intermediate_values) for t in self._frozen() if t.number == asked.number)

    def note(self, asked: Asked, **facts: Any) -> None:
        """Keep something with the trial."""
        for name, value in facts.items():
            asked.handle.set_user_attr(name, value)

    def tell(self, asked: Asked, state: str, value: float | None = None, reason: str = "") -> None:
        """The trial is over."""
        library = optuna()
        if reason:
            self.note(asked, reason=reason)
        states = library.trial.TrialState
        told = {"SUCCEEDED": states.COMPLETE, "PRUNED": states.PRUNED, "FAILED": states.FAIL}[state]
        self._study.tell(asked.number, value if state == "SUCCEEDED" else None, state=told)

    def trials(self) -> list[Trial]:
        """All trials that have a point, as the record has them."""
        found = []
        for frozen in self._frozen():
            state = _STATES[frozen.state.name]
            kept = frozen.user_attrs
            if state == "WAITING":
                continue
            begun, ended = frozen.datetime_start, frozen.datetime_complete
            found.append(
                Trial(
                    number=frozen.number,
                    state=state,
                    params=kept.get("params") or {},
                    run=kept.get("run") or "",
                    value=frozen.value if state == "SUCCEEDED" else None,
                    reason=kept.get("reason") or "",
                    started=begun.timestamp() if begun else None,
                    finished=ended.timestamp() if ended else None,
                    reports=tuple(sorted(frozen.intermediate_values.items())),
                )
            )
        return found

    def _frozen(self, state: str | None = None) -> list[Any]:
        states = None if state is None else [optuna().trial.TrialState[state]]
        return list(self._study.get_trials(deepcopy=False, states=states))

    def _completed(self, handle: Any) -> Asked:
        """Ask for every value that is not there yet, and keep the point as the pipeline will see it."""
        params: dict[str, Any] = {}
        for name, known in self.definition.space.items():
            made = self._distributions[name]
            if isinstance(known, Choice):
                found = handle.suggest_categorical(name, made.choices)
                params[name] = found if _plain(known) else known.values[found]
            elif isinstance(known, Integers):
                params[name] = handle.suggest_int(name, made.low, made.high, step=made.step, log=made.log)
            else:
                params[name] = handle.suggest_float(name, made.low, made.high, step=made.step, log=made.log)
        asked = Asked(handle, params)
        self.note(asked, params=params)
        return asked

    def _point(self, number: int) -> dict[str, Any]:
        if self._grid is not None:
            return self._grid[number]
        return point(self.definition, number)

    def _stored(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """A point as Optuna keeps it: values it cannot keep are numbers of the list they are chosen from."""
        stored = {}
        for name, known in self.definition.space.items():
            value = params[name]
            stored[name] = value if not isinstance(known, Choice) or _plain(known) else known.values.index(value)
        return stored

    def _sampler_for(self, number: int) -> Any:
        if self._sampler is not None:
            return self._sampler
        # Trials that still run count as bad ones, or two at a time would ask for the same point.
        return optuna().samplers.TPESampler(
            seed=_seed(self.definition, number), constant_liar=self._parallel > 1, multivariate=False
        )


def point(definition: Definition, number: int) -> dict[str, Any]:
    """The `number`th random point: a function of the definition's seed and the number, of nothing else."""
    source = random.Random(_seed(definition, number))  # noqa: S311 - points of a sweep, no secrets
    # By name: a space is the same in whatever order it is written.
    return {name: _drawn(definition.space[name], source) for name in sorted(definition.space)}


def _drawn(known: Distribution, source: random.Random) -> Any:
    import math

    if isinstance(known, Choice):
        return source.choice(known.values)
    if known.log:
        drawn = math.exp(source.uniform(math.log(known.low), math.log(known.high)))
        drawn = min(known.high, max(known.low, drawn))
        return round(drawn) if isinstance(known, Integers) else drawn
    points = known.points() if isinstance(known, Integers) or known.step is not None else None
    return source.choice(points) if points is not None else source.uniform(known.low, known.high)


def _seed(definition: Definition, number: int) -> int:
    text = json.dumps([definition.seed, number])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def _plain(known: Choice) -> bool:
    """Whether Optuna can keep these values as they are, and tell them apart (to it, 1 is True and 1.0)."""
    return len({type(value) for value in known.values}) == 1 and isinstance(known.values[0], _SCALARS)


def _distribution(known: Distribution) -> Any:
    kinds = optuna().distributions
    if isinstance(known, Choice):
        return kinds.CategoricalDistribution(known.values if _plain(known) else tuple(range(len(known.values))))
    if isinstance(known, Integers):
        # Optuna wants the last point to be the end of the range.
        high = known.low + (known.high - known.low) // known.step * known.step
        return kinds.IntDistribution(known.low, high, log=known.log, step=known.step)
    if known.step is not None:
        return kinds.FloatDistribution(known.low, (known.points() or (known.high,))[-1], step=known.step)
    return kinds.FloatDistribution(known.low, known.high, log=known.log)


def _pruner(asked: Any) -> Any:
    pruners = optuna().pruners
    if isinstance(asked, pruners.BasePruner):
        return asked
    made = {
        "median": lambda: pruners.MedianPruner(n_startup_trials=4),
        "percentile": lambda: pruners.PercentilePruner(25.0, n_startup_trials=4),
        "halving": pruners.SuccessiveHalvingPruner,
        "hyperband": pruners.HyperbandPruner,
        "none": pruners.NopPruner,
    }
    name = "none" if asked is None else asked
    if name not in made:
        raise RunError(f"pruner={asked!r} is not known", fix=f"one of {', '.join(PRUNERS)}, or a pruner of Optuna")
    return made[name]()
