"""What every run answers, wherever it runs: the words that a local run and one on Kubeflow share.

A program written against `AnyRun` does not care which it has; one conformance suite is run against both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

from ._backends.local.names import base_name
from .errors import RunNotFound

__all__ = ["ENDED", "AnyRun", "Task", "excerpt", "named"]

ENDED = ("SUCCEEDED", "FAILED", "CANCELLED")
_TAIL = 12
_HEAD = 4


@dataclass(frozen=True, slots=True)
class Task:
    """One step of a run. `duration` in seconds (of the last attempt), `error` why it failed or was skipped."""

    name: str
    state: str
    duration: float | None
    attempts: int
    cached: bool
    error: str
    last_line: str = ""

    @property
    def reason(self) -> str:
        """Why it failed, as one line: "exit code 1" alone tells nobody anything, so its log's last line goes with it."""
        if self.state != "FAILED" or not self.last_line or self.last_line in self.error:
            return self.error
        return f"{self.error}: {self.last_line}" if self.error else self.last_line


@runtime_checkable
class AnyRun(Protocol):
    """A run. `path` is its folder on this machine, None for a remote one; `url` is where a person sees it."""

    @property
    def id(self) -> str: ...
    @property
    def path(self) -> Path | None: ...
    @property
    def url(self) -> str: ...
    @property
    def pipeline(self) -> str: ...
    @property
    def arguments(self) -> Mapping[str, Any]: ...
    @property
    def created(self) -> datetime: ...
    @property
    def state(self) -> str: ...
    @property
    def duration(self) -> float | None: ...
    @property
    def error(self) -> str: ...
    @property
    def tasks(self) -> dict[str, Task]: ...
    @property
    def outputs(self) -> Mapping[str, Any]: ...
    def logs(self, task: str, follow: bool = False) -> str: ...
    def wait(self, timeout: float | None = None, *, progress: bool = False) -> Self: ...
    def cancel(self) -> None: ...
    def retry(self, *, wait: bool = True, progress: bool = True) -> Self: ...
    def _repr_html_(self) -> str: ...


def named(run: str, known: list[str], task: str) -> list[str]:
    """The steps meant by a name: itself, or all of a fanned-out one; RunNotFound with a suggestion when there is none."""
    found = [task] if task in known else [n for n in known if base_name(n) == task]
    if found:
        return found
    from difflib import get_close_matches

    near = get_close_matches(task, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"its steps are: {', '.join(known) or 'none yet'}"
    raise RunNotFound(f"run {run} has no step {task!r}", fix=hint)


def excerpt(lines: list[str], count: int = _TAIL) -> list[str]:
    """The last lines of a log; of a traceback longer than that also how it begins, which is where the user's line is."""
    starts = [n for n, line in enumerate(lines) if line.startswith("Traceback (most recent call last)")]
    if not starts or len(lines) - starts[-1] <= count:
        return lines[-count:]
    head = lines[starts[-1] : starts[-1] + _HEAD]
    return [*head, "  …", *lines[-(count - _HEAD) :]]
