"""The loop of a sweep: keep so many trials going, read what they report, end the hopeless, note what came out.

One thread, one study, one lock. Everything it knows is in the study and in the trials' runs, so killing it loses
nothing: the next driver adopts what was running and goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ..errors import RmlSdkError
from .backends import STOPPED, Backend, TrialRun
from .optimiser import Asked, Optimiser
from .record import SweepFolder

__all__ = ["Driver", "Limits"]

_LOOK = 0.05
_PRUNED = "pruned"
_STOP_WITHIN = 30.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What one call may spend: trials in all, trials at once, seconds after which none is started."""

    trials: int
    parallel: int
    budget: float | None = None
    look: float = _LOOK


@dataclass(slots=True)
class _Active:
    """A trial that runs."""

    asked: Asked
    run: TrialRun
    reported: set[int] = field(default_factory=set)
    ending: str = ""


class Driver:
    """Drives one sweep to its end, or to the end of its budget."""

    def __init__(
        self,
        folder: SweepFolder,
        optimiser: Optimiser,
        backend: Backend,
        limits: Limits,
        show: Callable[[], None],
    ) -> None:
        self._folder = folder
        self._optimiser = optimiser
        self._backend = backend
        self._limits = limits
        self._show = show
        self._active: list[_Active] = []
        self._notes: list[str] = list(folder.state["notes"])
        self._metric = optimiser.definition.metric
        self._asked = optimiser.count()
        self._deadline = None if limits.budget is None else time.monotonic() + limits.budget

    def run(self) -> None:
        """Until every wanted trial has ended. Ctrl-C ends what runs, and a later call goes on with it."""
        try:
            for asked in self._optimiser.unfinished():
                self._begin(asked, lambda asked=asked: self._adopt(asked))  # type: ignore[misc]
            self._write("RUNNING")
            while True:
                changed = self._fill()
                if not self._active:
                    break
                changed = sum(self._look(one) for one in list(self._active)) > 0 or changed
                if changed:
                    self._write("RUNNING")
                self._show()
                time.sleep(self._limits.look)
        except BaseException:
            self._stop()
            raise
        self._write("FINISHED" if self._asked >= self._limits.trials else "STOPPED")
        self._show()

    def _fill(self) -> bool:
        """Start trials while there is room."""
        begun = False
        while len(self._active) < self._limits.parallel and self._asked < self._limits.trials:
            if self._deadline is not None and time.monotonic() >= self._deadline:
                self._say(f"no trial was started after the budget of {self._limits.budget:g} s")
                break
            asked = self._optimiser.ask()
            self._asked += 1
            self._begin(asked, lambda asked=asked: self._backend.start(asked.number, asked.params))  # type: ignore[misc]
            begun = True
        return begun

    def _begin(self, asked: Asked, start: Callable[[], TrialRun]) -> None:
        try:
            run = start()
        except (RmlSdkError, OSError) as error:
            self._optimiser.tell(asked, "FAILED", reason=f"could not start: {error}")
            return
        self._optimiser.note(asked, run=run.id)
        self._active.append(_Active(asked, run, self._optimiser.reported(asked)))

    def _adopt(self, asked: Asked) -> TrialRun:
        known = {trial.number: trial.run for trial in self._optimiser.trials()}
        return self._backend.adopt(asked.number, asked.params, known.get(asked.number, ""))

    def _look(self, one: _Active) -> bool:
        """Bring a trial up to date; whether anything changed."""
        # The state first: what is read afterwards then belongs to it.
        state = one.run.state
        changed = self._read_reports(one)
        if state in ("SUCCEEDED", "FAILED", "CANCELLED"):
            self._end(one, state)
            return True
        return changed

    def _read_reports(self, one: _Active) -> bool:
        changed = False
        for report in one.run.reports():
            if report.step in one.reported:
                continue
            one.reported.add(report.step)
            changed = True
            if self._optimiser.report(one.asked, report.step, report.value) and not one.ending:
                one.ending = f"{_PRUNED} at step {report.step}: {report.value:.4g} is hopeless beside the other trials"
                one.run.cancel(one.ending)
        return changed

    def _end(self, one: _Active, state: str) -> None:
        self._active.remove(one)
        asked = one.asked
        reason = one.run.reason
        if state == "SUCCEEDED":
            try:
                value = one.run.value(self._metric)
            except (ValueError, KeyError, RmlSdkError) as error:
                self._optimiser.tell(asked, "FAILED", reason=str(error))
            else:
                self._optimiser.tell(asked, "SUCCEEDED", value)
        elif state == "CANCELLED" and (one.ending or reason.startswith(_PRUNED)):
            # The run's own record first: a driver killed before us may have pruned it, at an earlier step than we would.
            self._optimiser.tell(asked, "PRUNED", reason=reason if reason.startswith(_PRUNED) else one.ending)
        else:
            # Its run was cancelled by somebody, or failed: the sweep goes on without it.
            self._optimiser.tell(asked, "FAILED", reason=reason or state.lower())

    def _stop(self) -> None:
        """Ctrl-C, or a mistake of ours: nothing may run unattended. The trials stay unfinished, to be gone on with."""
        for one in self._active:
            one.run.cancel(STOPPED)
        deadline = time.monotonic() + _STOP_WITHIN
        while time.monotonic() < deadline and any(one.run.state == "RUNNING" for one in self._active):
            if self._limits.look > _LOOK:
                break  # remote ones go on
            time.sleep(_LOOK)
        self._say("stopped; call it again to go on")
        self._write("STOPPED")

    def _say(self, note: str) -> None:
        if note not in self._notes:
            self._notes.append(note)

    def _write(self, state: str) -> None:
        self._folder.write_state(state, self._optimiser.trials(), self._notes, self._limits.trials)
