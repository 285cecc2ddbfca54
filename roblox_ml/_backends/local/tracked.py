"""Runs mirrored into MLflow: a run per pipeline run, a child per step, with parameters, metrics, reports and cards.

A thread beside the execution reads the run's record and makes MLflow agree with it. The record is complete, so nothing
waits for MLflow and nothing is lost while it is down: a run that could not be mirrored is noted in
`$RML_HOME/spool/tracking/` and caught up by a later one.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..._runtime.tracking import FILE, Mlflow, Refused
from ..._store import home
from ..._sweeps.reports import FILE as REPORTS
from ..._sweeps.reports import Reports
from ...errors import RmlSdkError
from .record import EventReader, RunFolder, runs_folder
from .state import RunState, TaskState

__all__ = ["Mirror", "start", "tracking_url"]

_LOOK = 0.3
_AGAIN = 6.0
_AFTER_THE_END = 8.0
_CAUGHT_UP = 20
_ENDED = {"SUCCEEDED": "FINISHED", "CACHED": "FINISHED", "FAILED": "FAILED", "CANCELLED": "KILLED"}
_log = logging.getLogger("roblox_ml.tracking")
_catching_up = threading.Lock()


def tracking_url() -> str | None:
    """Where MLflow is: RML_MLFLOW_URL, or the local stack's when it runs. `RML_TRACKING=off` turns tracking off."""
    if os.environ.get("RML_TRACKING", "").lower() in ("off", "0", "false", "no"):
        return None
    if url := os.environ.get("RML_MLFLOW_URL"):
        return url.rstrip("/")
    from ..._stack import address

    return address("mlflow")


def start(folder: RunFolder, url: str, over: threading.Event) -> None:
    """Mirror a run while it goes on; returns at once."""
    spool = home() / "spool" / "tracking"
    with contextlib.suppress(OSError):
        spool.mkdir(parents=True, exist_ok=True)
        (spool / folder.id).touch()
    # Not a daemon: the last numbers of a run come when the script is at its end. It gives up by itself.
    threading.Thread(target=_follow, args=(folder, url, over), name=f"rml-track-{folder.id}", daemon=False).start()


def _follow(folder: RunFolder, url: str, over: threading.Event) -> None:
    mirror = Mirror(folder, Mlflow(url))
    reader, seen, warned, wait = EventReader(folder.events_path), -1, False, _LOOK
    deadline: float | None = None
    looked = 0.0
    while True:
        ended = over.wait(wait if deadline is None else min(wait, 0.5))
        if ended and deadline is None:
            deadline = time.monotonic() + _AFTER_THE_END
        try:
            state = reader.poll()
            # A step that runs for hours says nothing new, and is to be seen all the same.
            if state.seq != seen or time.monotonic() - looked > _AGAIN:
                mirror.agree(state)
                seen, looked = state.seq, time.monotonic()
            wait = _LOOK
            if ended and state.seq == seen and mirror.is_done(state):
                _spooled(folder.id).unlink(missing_ok=True)
                _catch_up(url)
                return
        except (OSError, RmlSdkError) as error:
            if not warned:
                warned = True
                _say(folder, f"run {folder.id} is not tracked for now: MLflow at {url} does not answer ({error})")
            wait = min(4.0, wait * 2)
        except Exception as error:
            _say(folder, f"run {folder.id} is not tracked: {type(error).__name__}: {error}")
            _spooled(folder.id).unlink(missing_ok=True)
            return
        if deadline is not None and time.monotonic() > deadline:
            _say(folder, f"run {folder.id} is tracked later: MLflow at {url} did not answer until its end")
            return


def _catch_up(url: str) -> None:
    """Mirror what could not be mirrored before, now that the server answers."""
    if not _catching_up.acquire(blocking=False):
        return
    try:
        for marker in sorted((home() / "spool" / "tracking").iterdir())[:_CAUGHT_UP]:
            folder = RunFolder(runs_folder() / marker.name)
            if not folder.events_path.is_file():
                marker.unlink(missing_ok=True)  # the run was deleted
            elif not folder.is_attended():
                Mirror(folder, Mlflow(url)).agree(EventReader(folder.events_path).poll(), interrupted=True)
                marker.unlink(missing_ok=True)
    except (OSError, RmlSdkError):
        pass  # it went away again; the markers stay
    finally:
        _catching_up.release()


class Mirror:
    """One run in MLflow. What was written is kept in the run's folder (`mlflow.json`), so it is written once."""

    def __init__(self, folder: RunFolder, server: Mlflow) -> None:
        self._folder = folder
        self._server = server
        self._about = folder.about
        self._path = folder.path / FILE
        try:
            self._known: dict[str, Any] = json.loads(self._path.read_text("utf-8"))
        except (OSError, ValueError):
            self._known = {"steps": {}}

    def agree(self, state: RunState, *, interrupted: bool = False) -> None:
        """Write what MLflow does not have yet."""
        parent = self._parent(state)
        for task in list(state.tasks.values()):
            if task.state in ("RUNNING", "RETRYING") or (task.state in _ENDED and (task.attempts or task.source)):
                self._step(task, parent)
        if (state.state in _ENDED or interrupted) and self._known.get("state") != state.state:
            metrics = [
                (f"{name}.{key}" if key else name, value, 0)
                for name, task in state.tasks.items()
                for key, value in _metrics(task)
            ]
            self._quietly(lambda: self._server.log(parent, metrics=metrics))
            self._server.end(parent, _ENDED.get(state.state, "KILLED"), state.finished)
            self._keep(state=state.state)

    def is_done(self, state: RunState) -> bool:
        return self._known.get("state") == state.state

    def _parent(self, state: RunState) -> str:
        if "run" in self._known:
            return str(self._known["run"])
        about = self._about
        experiment = self._server.experiment(str(about.get("pipeline") or "roblox_ml"))
        # Killed between making it and noting it: then it is there.
        made = self._server.find(experiment, **{"rml.run": self._folder.id, "rml.kind": "pipeline"})
        if made is None:
            git = (about.get("provenance") or {}).get("git") or {}
            tags = {
                "rml.run": self._folder.id,
                "rml.kind": "pipeline",
                "rml.pipeline": str(about.get("pipeline") or ""),
                "rml.sweep": str(about.get("sweep") or ""),
                "mlflow.source.git.commit": str(git.get("commit") or ""),
            }
            made = self._server.create(experiment, self._folder.id, tags, state.started)
            self._quietly(lambda: self._server.log(made["run_id"], params=about.get("arguments") or {}))
        self._keep(experiment=experiment, run=made["run_id"])
        return str(made["run_id"])

    def _step(self, task: TaskState, parent: str) -> None:
        known = self._known["steps"].get(task.name) or {}
        attempts = len(task.attempts)
        if known.get("attempts") != attempts:
            known = self._child(task, parent)
        if task.state in _ENDED and known.get("state") != task.state:
            run = known["run"]
            self._quietly(lambda: self._server.log(run, params=self._params(task)))
            metrics = [(key or task.name, value, 0) for key, value in _metrics(task)]
            self._quietly(lambda: self._server.log(run, metrics=[*metrics, *self._reports(task)]))
            self._card(task, run)
            self._server.end(run, _ENDED[task.state], task.finished)
            self._keep(step=(task.name, {**known, "state": task.state}))

    def _child(self, task: TaskState, parent: str) -> dict[str, Any]:
        """The step's run: the one it made for itself, or one made here. An attempt of a retry has one of its own."""
        tags = {
            "mlflow.parentRunId": parent,
            "rml.run": self._folder.id,
            "rml.task": task.name,
            "rml.cached_from": task.source,
            "rml.attempt": str(len(task.attempts) or ""),
        }
        own = self._folder.task(task.name) / FILE
        if own.is_file():
            run = str(json.loads(own.read_text("utf-8"))["run"])
            self._server.log(run, tags=tags)
        elif task.state in ("RUNNING", "RETRYING") and time.time() - (task.started or 0) < 5:
            # It may be making one at this moment; a step that is over in an instant is looked at again at its end.
            return {}
        else:
            run = self._server.create(self._known["experiment"], task.name, tags, task.started)["run_id"]
        known = {"run": run, "attempts": len(task.attempts)}
        self._keep(step=(task.name, known))
        return known

    def _params(self, task: TaskState) -> dict[str, Any]:
        folder, name = self._folder, task.name
        if task.source:
            run, _, name = task.source.partition("/")
            folder = RunFolder(runs_folder() / run)
        try:
            said = json.loads((folder.task(name) / "executor_input.json").read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return dict(said["inputs"].get("parameterValues") or {})

    def _reports(self, task: TaskState) -> Iterator[tuple[str, float, int]]:
        for report in Reports(self._folder.task(task.name) / REPORTS).new():
            yield "reported", report.value, report.step

    def _card(self, task: TaskState, run: str) -> None:
        from ..._cards.collect import FILE as CARD

        path = self._folder.task(task.name) / CARD
        if path.is_file():
            uri = str(self._server.get(run).get("artifact_uri") or "")
            self._quietly(lambda: self._server.upload(uri, CARD, path.read_bytes()))

    def _quietly(self, write: Any) -> None:
        """What the server refuses (a parameter that changed, a name it does not take) is dropped, and said."""
        try:
            write()
        except Refused as error:
            _say(self._folder, f"run {self._folder.id}: MLflow refused a part: {error}")

    def _keep(self, step: tuple[str, Mapping[str, Any]] | None = None, **facts: Any) -> None:
        self._known.update(facts)
        if step is not None:
            self._known["steps"][step[0]] = dict(step[1])
        fresh = self._path.with_name(f".{FILE}.{os.getpid()}")
        fresh.write_text(json.dumps(self._known), "utf-8")
        fresh.replace(self._path)


def _metrics(task: TaskState) -> Iterator[tuple[str, float]]:
    """The numbers a step returned; a single one is called like the step."""
    outputs = task.outputs or {}
    for name, value in (outputs.get("parameters") or {}).items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield ("" if name == "Output" else name), float(value)
    for listed in (outputs.get("artifacts") or {}).values():
        for artifact in listed:
            if (artifact.get("type") or {}).get("schemaTitle") == "system.Metrics":
                for name, value in (artifact.get("metadata") or {}).items():
                    if isinstance(value, int | float) and not isinstance(value, bool) and not name.startswith("rml."):
                        yield name, float(value)


def _spooled(run: str) -> Path:
    return home() / "spool" / "tracking" / run


def _say(folder: RunFolder, line: str) -> None:
    """One line: on the user's screen, and with the run."""
    _log.warning(line)
    with contextlib.suppress(OSError), (folder.path / "tracking.log").open("a", encoding="utf-8") as stream:
        stream.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {line}\n")
