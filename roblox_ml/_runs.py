"""Runs as a user meets them: state, outputs, logs, retry, debug. `rml.runs()`, `rml.get_run(id)`, and what `.run()` returns.

A `Run` holds a folder and nothing else: everything it says is read from the record there, so a run looks the same while
it goes on, after the kernel restarted, and from another process.
"""

from __future__ import annotations

import html
import time
from collections import deque
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from ._artifacts import Artifact, load_artifact
from ._backends.local.names import base_name
from ._backends.local.record import EventReader, RunFolder, runs_folder
from ._backends.local.state import RunState, TaskState
from ._run_protocol import AnyRun, Task, excerpt, named
from .errors import RunError, RunFailed, RunNotFound

if TYPE_CHECKING:
    from ._cards.saved import Cards

__all__ = ["AnyRun", "Run", "RunList", "Task", "excerpt", "get_run", "runs"]

_POLL = 0.1
_LONGEST = 400
_REMOTE = "kfp:"
_ENDED = ("SUCCEEDED", "FAILED", "CANCELLED")


class Run:
    """One run of a pipeline. Made by `pipeline.run()`, `rml.runs()` and `rml.get_run(id)`."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._reader = EventReader(folder.events_path)
        self._about = folder.about

    @property
    def id(self) -> str:
        return self._folder.id

    @property
    def path(self) -> Path:
        """The run's folder: run.json, ir.yaml, events.jsonl, logs/, artifacts/."""
        return self._folder.path

    @property
    def url(self) -> str:
        """The folder as an address."""
        return self.path.as_uri()

    @property
    def pipeline(self) -> str:
        return str(self._about["pipeline"])

    @property
    def arguments(self) -> Mapping[str, Any]:
        return dict(self._about["arguments"])

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Git state, source, Python and SDK version at the time of the run."""
        return dict(self._about.get("provenance") or {})

    @property
    def created(self) -> datetime:
        return datetime.fromtimestamp(self._about["created"], UTC)

    @property
    def ir(self) -> str:
        """The pipeline's IR, exactly as compiled."""
        return (self._folder.path / "ir.yaml").read_text("utf-8")

    @property
    def state(self) -> str:
        """PENDING, RUNNING, SUCCEEDED, FAILED, CANCELLED, or INTERRUPTED: its executor is gone and did not say why."""
        from ._backends.local.execution import RUNNING

        execution = RUNNING.get(self.id)
        resumed = execution is not None and not execution.begun
        state = self._reader.poll().state
        if resumed and state in _ENDED:
            return "RUNNING"  # the record still tells how the execution before this one ended
        if state in _ENDED or self._folder.is_attended():
            return state
        # It may have ended between the two looks.
        state = self._reader.poll().state
        return state if state in _ENDED else "INTERRUPTED"

    @property
    def duration(self) -> float | None:
        """Seconds from the first start to the end, or until now; None before it starts."""
        state = self._reader.poll()
        return None if state.started is None else (state.finished or time.time()) - state.started

    @property
    def error(self) -> str:
        """Why the run failed; empty when it did not."""
        return self._reader.poll().reason

    @property
    def tasks(self) -> dict[str, Task]:
        """The steps by name, in the order of the pipeline; a fanned-out one is `probe[0]`, `probe[1]`, …"""
        return {name: self._task(task) for name, task in list(self._reader.poll().tasks.items())}

    @property
    def outputs(self) -> Outputs:
        """What the steps returned: `run.outputs["train"]` is a value, an artifact, or a mapping of several outputs."""
        return Outputs(self._reader.poll())

    @property
    def cards(self) -> Cards:
        """What the steps showed with `rml.card`, by step; of a cached step, what it showed when it ran."""
        from ._cards.saved import Cards

        return Cards(list(self._reader.poll().tasks), self._card)

    def logs(self, task: str, follow: bool = False) -> str:
        """What a step printed. `follow=True` prints it as it comes until the step ends, and returns it all."""
        names = self._named(task)
        if follow:
            for line in self._follow(names[0]):
                print(line, end="", flush=True)
        parts = [(name, self._log_text(name)) for name in names]
        if len(parts) == 1:
            return parts[0][1]
        return "".join(f"=== {name} ===\n{text}" for name, text in parts)

    def wait(self, timeout: float | None = None, *, progress: bool = False) -> Run:
        """Until the run is over; raises RunFailed when it did not succeed. Ctrl-C cancels the run."""
        from ._backends.local.execution import RUNNING

        deadline = None if timeout is None else time.monotonic() + timeout
        execution = RUNNING.get(self.id)

        def done(seconds: float) -> bool:
            if execution is None:
                if self.state in (*_ENDED, "INTERRUPTED"):
                    return True
                time.sleep(seconds)
                return False
            return execution.over.wait(seconds)

        try:
            if progress and deadline is None:
                from ._backends.local.progress import watch

                watch(self, done)
            while not done(_POLL):
                if deadline is not None and time.monotonic() > deadline:
                    raise TimeoutError(f"run {self.id} is not over after {timeout:g} s; it goes on")
        except KeyboardInterrupt:
            self.cancel()
            while not done(_POLL):
                pass
            raise
        if execution is not None and execution.error is not None:
            raise RunError(f"run {self.id} could not be carried out: {execution.error}") from execution.error
        if self.state != "SUCCEEDED":
            raise self._failure()
        return self

    def cancel(self, reason: str = "cancelled") -> None:
        """Ask the run to stop; its running steps are ended with all they started. `reason` is told by `error`."""
        from ._backends.local.execution import RUNNING

        execution = RUNNING.get(self.id)
        if execution is not None:
            execution.cancel(reason)
        elif self.state == "RUNNING":
            self._folder.cancel_path.touch()

    def retry(self, *, wait: bool = True, progress: bool = True) -> Run:
        """Go on where the run failed, was cancelled or was killed: finished steps keep their outputs."""
        from ._backends.local import resume

        if self.state == "SUCCEEDED":
            raise RunError(f"run {self.id} succeeded: there is nothing to retry", fix="start a new run")
        resume(self._folder)
        return self.wait(progress=progress) if wait else self

    def debug(self, task: str) -> Any:
        """Run one step in this process, on the inputs it had, with its outputs in a temporary folder.

        Breakpoints, `pdb` and the debugger of an IDE work; the files are those of the step's bundle. Returns what the
        step's function returns. The packages are this process's, not those of the step's lock.
        """
        from ._backends.local.debugging import run_here

        (name, *others) = self._named(task)
        if others:
            raise RunError(f"{task!r} ran {len(others) + 1} times", fix=f"name one: run.debug({name!r})")
        return run_here(self._folder, name)

    def __repr__(self) -> str:
        return f"<rml.Run {self.id} {self.state}>"

    def _repr_html_(self) -> str:
        from ._backends.local.progress import as_html

        return as_html(self)

    def _task(self, task: TaskState) -> Task:
        duration = None
        if task.started is not None:
            ended = task.attempts[-1].finished
            running = task.state in ("RUNNING", "RETRYING")
            duration = ended - task.started if ended else time.time() - task.started if running else None
        error = task.reason if task.state in ("FAILED", "SKIPPED", "CANCELLED", "RETRYING") else ""
        last = self._last_lines(task.name, 1) if task.attempts else []
        cached = task.state == "CACHED"
        return Task(task.name, task.state, duration, len(task.attempts), cached, error, last[0] if last else "")

    def _named(self, task: str) -> list[str]:
        """The steps meant by a name: itself, or all of a fanned-out one."""
        return named(self.id, list(self._reader.poll().tasks), task)

    def _log_text(self, task: str) -> str:
        try:
            return self._folder.log(task).read_text("utf-8", "replace")
        except FileNotFoundError:
            task_state = self._reader.poll().tasks[task]
            if task_state.source:
                run, _, name = task_state.source.partition("/")
                try:
                    return RunFolder.open(run).log(name).read_text("utf-8", "replace")
                except (RunNotFound, OSError):
                    return ""
            return ""

    def _card(self, task: str) -> Path | None:
        from ._cards.collect import FILE

        folder, name = self._folder, task
        if source := self._reader.poll().tasks[task].source:
            run, _, name = source.partition("/")
            folder = RunFolder(runs_folder() / run)
        path = folder.task(name) / FILE
        return path if path.is_file() else None

    def _last_lines(self, task: str, count: int) -> list[str]:
        try:
            with self._folder.log(task).open("rb") as stream:
                stream.seek(0, 2)
                stream.seek(max(0, stream.tell() - 65536))
                text = stream.read().decode("utf-8", "replace")
        except OSError:
            return []
        # A progress bar redraws its line: what follows the last return is what is on the screen.
        lines = (line.rstrip("\r").rpartition("\r")[2].rstrip() for line in text.split("\n"))
        return list(deque((line for line in lines if line), maxlen=count))

    def _follow(self, task: str) -> Iterator[str]:
        path, offset = self._folder.log(task), 0
        while True:
            state = self._reader.poll().tasks[task].state
            over = state not in ("PENDING", "RUNNING", "RETRYING") or self.state in (*_ENDED, "INTERRUPTED")
            if path.is_file():
                with path.open("r", encoding="utf-8", errors="replace") as stream:
                    stream.seek(offset)
                    yield from stream
                    offset = stream.tell()
            if over:
                return
            time.sleep(_POLL)

    def _failure(self) -> RunFailed:
        state = self.state
        if state == "CANCELLED":
            return RunFailed(f"run {self.id} was cancelled", run=self, fix=self._call("retry()"))
        if state == "INTERRUPTED":
            why = "its executor ended before it did"
            return RunFailed(f"run {self.id} was interrupted", run=self, why=why, fix=self._call("retry()"))
        failed = [task for task in self._reader.poll().tasks.values() if task.state == "FAILED"]
        lines = [f"run {self.id} failed"]
        for task in failed:
            tries = f" (attempt {len(task.attempts)})" if len(task.attempts) > 1 else ""
            lines.append(f"step {task.name}{tries}: {task.reason}")
            lines += [f"    {line}" for line in excerpt(self._last_lines(task.name, _LONGEST))]
        if not failed:
            lines.append(self.error)
        name = failed[0].name if failed else "STEP"
        fix = f"{self._call(f'logs({name!r})')} · .debug({name!r}) · .retry() · rml runs logs {self.id} {name}"
        return RunFailed("\n".join(lines), run=self, fix=fix)

    def _call(self, method: str) -> str:
        return f"rml.get_run({self.id!r}).{method}"


class Outputs(Mapping[str, Any]):
    """Outputs of a run's finished steps, by step."""

    def __init__(self, state: RunState) -> None:
        self._tasks = {
            n: t for n, t in state.tasks.items() if t.outputs is not None and t.state in ("SUCCEEDED", "CACHED")
        }

    def __getitem__(self, task: str) -> Any:
        if task in self._tasks:
            return _values(self._tasks[task].outputs or {})
        several = [n for n in self._tasks if base_name(n) == task]
        if several:
            several.sort(key=_indices)
            return [_values(self._tasks[n].outputs or {}) for n in several]
        raise KeyError(f"no outputs of {task!r}; there are outputs of: {', '.join(self._tasks) or 'no step'}")

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(base_name(name) for name in self._tasks))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __repr__(self) -> str:
        return f"Outputs({', '.join(self)})"


class RunList(list[Any]):
    """Runs, newest first, wherever they are; a table in a notebook."""

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td><code>{html.escape(run.id)}</code></td><td>{html.escape(run.pipeline)}</td>"
            f"<td>{run.state}</td><td>{'' if run.duration is None else f'{run.duration:.1f} s'}</td>"
            f"<td>{run.created:%Y-%m-%d %H:%M}</td></tr>"
            for run in self
        )
        head = "".join(f"<th>{name}</th>" for name in ("run", "pipeline", "state", "took", "started"))
        return f"<table><tr>{head}</tr>{rows}</table>"


def runs(pipeline: str | None = None, limit: int = 20) -> RunList:
    """The recorded runs on this machine, newest first; only those of `pipeline` when it is named."""
    found = RunList()
    folder = runs_folder()
    paths = [p.parent for p in folder.glob("*/run.json") if not p.parent.name.startswith(".")]
    for path in sorted(paths, key=lambda p: (p / "run.json").stat().st_mtime_ns, reverse=True):
        run = Run(RunFolder(path))
        if pipeline is None or run.pipeline == pipeline:
            found.append(run)
        if len(found) >= limit:
            break
    return found


@overload
def get_run(id: str) -> Run: ...
@overload
def get_run(id: str, *, on: Any) -> AnyRun: ...
def get_run(id: str, *, on: Any = None) -> Any:
    """The run of this id, whatever process started it; `kfp:<id>` is one on Kubeflow (`on`: a connection of `rml.connect`)."""
    if on is not None:
        return on.run(id.removeprefix(_REMOTE))
    if id.startswith(_REMOTE):
        from ._backends.kfp import current

        return current().run(id.removeprefix(_REMOTE))
    return Run(RunFolder.open(id))


def _values(outputs: Mapping[str, Any]) -> Any:
    """One output is itself; several are a mapping by field that also answers to attributes."""
    named: dict[str, Any] = dict(outputs.get("parameters") or {})
    for name, listed in (outputs.get("artifacts") or {}).items():
        loaded = [_artifact(artifact) for artifact in listed]
        named[name] = loaded[0] if len(loaded) == 1 else loaded
    return named["Output"] if list(named) == ["Output"] else Fields(named)


class Fields(dict[str, Any]):
    """A step's several outputs: `run.outputs["prepare"]["train"]` or `run.outputs["prepare"].train`."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"no output {name!r}; there are: {', '.join(self)}") from None


def _artifact(recorded: Mapping[str, Any]) -> Artifact:
    uri = str(recorded["uri"])
    title = str(recorded["type"].get("schemaTitle") or "system.Artifact")
    return load_artifact(title, uri, name=str(recorded["name"]), uri=uri, metadata=recorded.get("metadata") or {})


def _indices(name: str) -> tuple[int, ...]:
    return tuple(int(part.rstrip("]")) for part in name.split("[")[1:])
