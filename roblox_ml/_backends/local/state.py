"""A run's state as a fold over its events: the one place that says what the event log means.

Nothing else is kept about a run, so whatever can be read from a log (also one cut off by a crash) can be shown, waited
for and continued. `fold` depends on the events alone; `apply` is its single step, for readers that follow a log.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

__all__ = ["DONE", "Attempt", "RunState", "TaskState", "apply", "fold"]

DONE = frozenset({"SUCCEEDED", "CACHED"})
TERMINAL = frozenset({"SUCCEEDED", "CACHED", "FAILED", "SKIPPED", "CANCELLED"})


@dataclass(frozen=True, slots=True)
class Attempt:
    """One process of a step. `exit` is the exit code (negative: the signal that ended it), `reason` why it failed."""

    number: int
    started: float
    pid: int
    identity: str
    finished: float | None = None
    exit: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class TaskState:
    """One step of a run: PENDING, RUNNING, RETRYING, SUCCEEDED, CACHED, FAILED, SKIPPED or CANCELLED."""

    name: str
    state: str = "PENDING"
    attempts: tuple[Attempt, ...] = ()
    outputs: Mapping[str, Any] | None = None
    key: str = ""
    reason: str = ""
    source: str = ""
    finished: float | None = None

    @property
    def started(self) -> float | None:
        """When the last attempt began."""
        return self.attempts[-1].started if self.attempts else None


@dataclass(slots=True)
class RunState:
    """A whole run: PENDING, RUNNING, SUCCEEDED, FAILED or CANCELLED; its steps in the order they were announced."""

    state: str = "PENDING"
    tasks: dict[str, TaskState] = field(default_factory=dict)
    seq: int = 0
    started: float | None = None
    finished: float | None = None
    executions: int = 0
    reason: str = ""


def fold(events: Iterable[Mapping[str, Any]]) -> RunState:
    """The state after these events."""
    state = RunState()
    for event in events:
        apply(state, event)
    return state


def apply(state: RunState, event: Mapping[str, Any]) -> None:
    """Bring `state` forward by one event. Kinds it does not know are passed over: an older reader meets a newer log."""
    state.seq = event["seq"]
    kind = event["event"]
    if kind == "run_started":
        _run_started(state, event)
    elif kind == "run_finished":
        state.state, state.finished, state.reason = event["state"], event["time"], event.get("reason", "")
    elif kind == "loop_started":
        _announce(state, event["tasks"])
    elif kind.startswith("task_"):
        before = state.tasks.get(event["task"]) or TaskState(event["task"])
        state.tasks[event["task"]] = _task(before, kind, event)


def _run_started(state: RunState, event: Mapping[str, Any]) -> None:
    state.state, state.finished, state.reason = "RUNNING", None, ""
    state.started = event["time"] if state.started is None else state.started
    state.executions += 1
    # What is finished stays so; everything else starts over, whatever the previous execution was doing when it ended.
    for name, task in state.tasks.items():
        if task.state not in DONE:
            attempts = tuple(_lost(attempt) for attempt in task.attempts)
            state.tasks[name] = TaskState(name, attempts=attempts)
    _announce(state, event["tasks"])


def _announce(state: RunState, names: Iterable[str]) -> None:
    for name in names:
        state.tasks.setdefault(name, TaskState(name))


def _task(task: TaskState, kind: str, event: Mapping[str, Any]) -> TaskState:
    if kind == "task_started":
        attempt = Attempt(event["attempt"], event["time"], event["pid"], event["identity"])
        attempts = (*task.attempts, attempt)
        return TaskState(task.name, "RUNNING", attempts, key=event["key"])
    if kind == "task_retrying":
        return replace(task, state="RETRYING", attempts=_ended(task, event), reason=event["reason"])
    if kind == "task_finished":
        return replace(
            task,
            state=event["state"],
            attempts=_ended(task, event),
            outputs=event.get("outputs"),
            reason=event.get("reason", ""),
            finished=event["time"],
        )
    if kind == "task_cached":
        return TaskState(
            task.name, "CACHED", (), event["outputs"], event["key"], source=event["source"], finished=event["time"]
        )
    if kind == "task_skipped":
        return TaskState(task.name, event.get("state", "SKIPPED"), task.attempts, reason=event["reason"])
    return task


def _ended(task: TaskState, event: Mapping[str, Any]) -> tuple[Attempt, ...]:
    if not task.attempts:
        return ()
    last = replace(task.attempts[-1], finished=event["time"], exit=event.get("exit"), reason=event.get("reason", ""))
    return (*task.attempts[:-1], last)


def _lost(attempt: Attempt) -> Attempt:
    """An attempt whose end nobody wrote down, because the executor died first."""
    return attempt if attempt.finished is not None else replace(attempt, reason="the executor ended before the step")
