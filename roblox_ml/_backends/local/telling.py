"""What a run says of itself while it goes on: its start, retries and end, as events for whoever asked to hear of them.

Follows what is written to the run's record and says the same, so an event is never of something that is not recorded. Nothing
here may harm the run: whatever fails is noted in the record and otherwise passed over.
"""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..._events import Emission, emit, flush
from ..._masking import Mask, known_secrets
from .record import RunFolder
from .spec import PipelineSpec
from .state import RunState

__all__ = ["Teller", "end_of_log", "error_line"]

_LOG = logging.getLogger(__name__)
_TAIL_BYTES = 64 * 1024
_LINES, _WIDEST, _LONGEST_LINE = 24, 500, 2000
_WAIT_S = 3.0
_ENDS = {"SUCCEEDED": "run.succeeded", "FAILED": "run.failed"}
_ERROR = re.compile(
    r"^(?:[A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt|Warning|Failed|Failure)\b.*|[A-Za-z_][\w.]*: .+)$"
)


class Teller:
    """Hears every event that was written to the record. A sweep's trials are told of by nobody: the sweep is."""

    def __init__(self, folder: RunFolder, about: Mapping[str, Any], spec: PipelineSpec) -> None:
        self._folder, self._about, self._spec = folder, about, spec
        self._silent = bool(about.get("sweep"))
        self._said: list[Emission] = []
        self.problem = ""

    def __call__(self, state: RunState, event: Mapping[str, Any]) -> None:
        """After an event was written; never raises."""
        if self._silent:
            return
        try:
            self._say(state, event)
        except Exception as error:  # telling is no part of the run
            self.problem = f"{type(error).__name__}: {error}"

    def close(self) -> str:
        """Wait briefly until what was said is on disk; what went wrong, or ''."""
        flush(_WAIT_S)
        problems = (self.problem, *(emission.trouble() for emission in self._said))
        problem = "; ".join(dict.fromkeys(one for one in problems if one))
        if problem:
            _LOG.warning("run %s goes on, but nobody may be told of it: %s", self._folder.id, problem)
        return problem

    def _say(self, state: RunState, event: Mapping[str, Any]) -> None:
        kind = event["event"]
        subject: dict[str, Any] = {
            "pipeline": str(self._about.get("pipeline") or "")[:255],
            "run": self._folder.id,
            "execution": state.executions,
        }
        if kind == "run_started":
            self._emit("run.started", subject)
        elif kind == "task_retrying":
            task = state.tasks[event["task"]]
            subject |= {"task": task.name, "attempt": len(task.attempts)}
            self._emit("run.retry", subject, step=task.name, **self._why(task.name, str(event.get("reason") or "")))
        elif kind == "run_finished" and (ended := _ENDS.get(state.state)):
            facts: dict[str, Any] = {}
            if state.started is not None and state.finished is not None:
                facts["seconds"] = round(state.finished - state.started, 3)
            if ended == "run.failed":
                facts |= self._failure(state)
            self._emit(ended, subject, **facts)

    def _failure(self, state: RunState) -> dict[str, Any]:
        """The first step that failed, its error line and the end of its log; of a run without one its own reason."""
        failed = [task for task in state.tasks.values() if task.state == "FAILED"]
        if not failed:
            return {"error": self._mask()(state.reason)[:1000]}
        first = min(failed, key=lambda task: task.finished or 0.0)
        others = [task.name for task in failed if task is not first][:10]
        return {
            "step": first.name,
            "attempt": len(first.attempts),
            **({"also_failed": others} if others else {}),
            **self._why(first.name, first.reason),
        }

    def _why(self, task: str, reason: str) -> dict[str, Any]:
        mask = self._mask()
        lines = mask("\n".join(end_of_log(self._folder.log(task)))).split("\n")
        lines = [line[:_WIDEST] for line in lines if line.strip()]
        return {"error": error_line(lines, mask(reason))[:1000], "reason": mask(reason)[:500], "log": lines[-_LINES:]}

    def _mask(self) -> Mask:
        """Made when something is told, of what is secret then: `$RML_HOME/secrets` may be filled while the run goes on."""
        containers = (c.container for c in self._spec.components.values() if c.container is not None)
        return Mask(known_secrets(variable for one in containers for variable, _, _ in one.secrets.env))

    def _emit(self, type: str, subject: Mapping[str, Any], **facts: Any) -> None:
        notify: Sequence[Any] = self._about.get("notify") or ()
        where = {"host": socket.gethostname(), "pid": os.getpid()}
        self._said.append(emit(type, subject, notify, **facts, **where))


def end_of_log(path: Path) -> list[str]:
    """The last lines of a log, as they stood on the screen."""
    try:
        with path.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - _TAIL_BYTES))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return []
    # Cut far beyond what is shown: a pattern must not work for minutes on one line of a megabyte.
    lines = [line.rstrip("\r").rpartition("\r")[2].rstrip()[:_LONGEST_LINE] for line in text.split("\n")]
    return [line for line in lines if line][-200:]


def error_line(lines: Sequence[str], reason: str) -> str:
    """The line that says what went wrong: the last that reads like an exception, else the executor's reason."""
    starts = [n for n, line in enumerate(lines) if line.startswith("Traceback (most recent call last)")]
    candidates = lines[starts[-1] :] if starts else lines[-8:]
    for line in reversed(candidates):
        if _ERROR.match(line):
            return line
    return reason or (lines[-1] if lines else "")
