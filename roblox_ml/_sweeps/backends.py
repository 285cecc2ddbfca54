"""Where trials run: here, or on Kubeflow. Both start a run, look at it, and end it; the driver knows no difference.

Here a trial's run has an id made of the sweep and the trial's number: a driver that was killed finds it again, whatever
moment it was killed at, and a second start of it is impossible.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from ..errors import RmlSdkError, RunError, RunNotFound
from .definition import read_metric
from .reports import FILE, Report, Reports, in_log

__all__ = ["STOPPED", "Backend", "Local", "Remote", "TrialRun"]

STOPPED = "the sweep was stopped"
_LOOK_BACK = 500


class TrialRun(Protocol):
    """The run of one trial."""

    @property
    def id(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def reason(self) -> str: ...
    def reports(self) -> Iterator[Report]: ...
    def cancel(self, reason: str) -> None: ...
    def value(self, metric: str) -> float: ...


class Backend(Protocol):
    """Starts trials, and finds those that somebody else started."""

    def start(self, number: int, params: Mapping[str, Any]) -> TrialRun: ...
    def adopt(self, number: int, params: Mapping[str, Any], run: str) -> TrialRun: ...


class Local:
    """Trials as runs of the local executor; what is equal in two trials runs once, through the cache."""

    def __init__(
        self, built: Any, sweep: str, prefix: str, constants: Mapping[str, Any], *, cache: bool = True
    ) -> None:
        self._built = built
        self._sweep = sweep
        self._prefix = prefix
        self._constants = constants
        self._cache = cache

    def run_id(self, number: int) -> str:
        return f"{self._prefix}-t{number:04d}"

    def start(self, number: int, params: Mapping[str, Any]) -> TrialRun:
        from .._backends.local import LocalExecutor

        run = LocalExecutor().run(
            self._built,
            {**self._constants, **params},
            wait=False,
            progress=False,
            cache=self._cache,
            run_id=self.run_id(number),
            sweep=self._sweep,
        )
        return _LocalRun(run)

    def adopt(self, number: int, params: Mapping[str, Any], run: str) -> TrialRun:
        """The trial's run as it is now: over, gone on with, or begun if it never was."""
        from .._runs import get_run

        try:
            found = get_run(self.run_id(number))
        except RunNotFound:
            return self.start(number, params)
        stopped = found.state == "CANCELLED" and found.error == STOPPED
        if stopped or found.state in ("INTERRUPTED", "PENDING"):
            # Steps that are finished stay so; the one that was at work begins again.
            found.retry(wait=False)
        return _LocalRun(found)


class _LocalRun:
    def __init__(self, run: Any) -> None:
        self.run = run
        self._reports: Reports | None = None

    @property
    def id(self) -> str:
        return str(self.run.id)

    @property
    def state(self) -> str:
        found = str(self.run.state)
        return "FAILED" if found == "INTERRUPTED" else found

    @property
    def reason(self) -> str:
        for task in self.run.tasks.values():
            if task.state == "FAILED":
                return f"{task.name}: {task.error}" + (f" ({task.last_line})" if task.last_line else "")
        return str(self.run.error)

    def reports(self) -> Iterator[Report]:
        """Of the first step that reports; a second one would speak of something else under the same steps."""
        if self._reports is None:
            found = sorted(Path(self.run.path).glob(f"tasks/*/{FILE}"), key=lambda path: path.stat().st_mtime_ns)
            if not found:
                return
            self._reports = Reports(found[0])
        yield from self._reports.new()

    def cancel(self, reason: str) -> None:
        from .._backends.local.execution import RUNNING

        execution = RUNNING.get(self.id)
        if execution is not None:
            execution.cancel(reason)

    def value(self, metric: str) -> float:
        return read_metric(self.run.outputs, metric)


class Remote:
    """Trials as runs on Kubeflow Pipelines, through the connection of `rml.connect(…)`."""

    def __init__(self, built: Any, connection: Any, sweep: str, prefix: str, constants: Mapping[str, Any]) -> None:
        self._built = built
        self._connection = connection
        self._sweep = sweep
        self._prefix = prefix
        self._constants = constants

    def start(self, number: int, params: Mapping[str, Any]) -> TrialRun:
        from .._backends.kfp import submit

        given = {**self._constants, **params}
        labels = {"rml-sweep": self._sweep, "rml-trial": str(number)}
        name = self._name(number)
        return _RemoteRun(submit(self._built, on=self._connection, run_name=name, labels=labels, arguments=given))

    def adopt(self, number: int, params: Mapping[str, Any], run: str) -> TrialRun:
        """Runs there go on without us. One whose id was not noted before the kill is looked for by its name."""
        if run:
            return _RemoteRun(self._connection.run(run))
        for found in self._connection.runs(self._built.name, limit=_LOOK_BACK):
            if found.name == self._name(number):
                return _RemoteRun(found)
        return self.start(number, params)

    def _name(self, number: int) -> str:
        return f"{self._prefix}-t{number:04d}"


class _RemoteRun:
    def __init__(self, run: Any) -> None:
        self.run = run
        self._seen = 0
        self._cancelled = ""

    @property
    def id(self) -> str:
        return str(self.run.id)

    @property
    def state(self) -> str:
        return str(self.run.state)

    @property
    def reason(self) -> str:
        return self._cancelled or str(self.run.error)

    def reports(self) -> Iterator[Report]:
        """Lines of the logs; a server that gives none now gives them later, or never, and nothing is pruned."""
        for task in self.run.tasks:
            try:
                found = in_log(self.run.logs(task))
            except (RmlSdkError, OSError):
                continue
            if found:
                yield from found[self._seen :]
                self._seen = len(found)
                return

    def cancel(self, reason: str) -> None:
        self._cancelled = reason
        if reason != STOPPED:  # what runs in a cluster goes on when the driver goes home, and is adopted later
            self.run.cancel()

    def value(self, metric: str) -> float:
        return read_metric(self.run.outputs, metric)


def backend_for(on: Any, built: Any, sweep: str, prefix: str, constants: Mapping[str, Any], *, cache: bool) -> Backend:
    """Here, or where the connection leads."""
    if on is None or on == "local":
        return Local(built, sweep, prefix, constants, cache=cache)
    if not hasattr(on, "submit") or not hasattr(on, "runs"):
        raise RunError(f"on={on!r} is no connection", fix='on=rml.connect("http://…"), or leave it out to run here')
    return Remote(built, on, sweep, prefix, constants)
