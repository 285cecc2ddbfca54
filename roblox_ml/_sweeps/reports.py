"""`rml.report(step, value)`: what a step says while it goes on, so that a sweep can end a hopeless trial early.

In a step of the local executor the reports are lines of a file beside the step's other working files; who drives the
trial reads along. Elsewhere (a pod) they are lines of the step's log, which every backend keeps. Nothing waits for
anybody: a step does not know whether it is part of a sweep. Standard library only.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["FILE", "Report", "Reports", "in_log", "report"]

FILE = "reports.jsonl"
_MARK = "rml-report "
_LINE = re.compile(rf"^{_MARK}(\{{.*\}})\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Report:
    """One reported value."""

    step: int
    value: float


def report(step: int, value: float) -> None:
    """Say how it goes: `rml.report(epoch, loss)`. In a sweep, the value is the metric that the sweep optimises.

    `step` counts upwards from 0; a step that was reported already is not reported again. Outside a step nothing happens.
    """
    number = step.item() if hasattr(step, "item") else step
    plain: Any = value.item() if hasattr(value, "item") else value
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise ValueError(f"rml.report: step is {step!r}, not a whole number from 0 up; write rml.report(epoch, loss)")
    if isinstance(plain, bool) or not isinstance(plain, int | float):
        raise ValueError(f"rml.report: the value is {value!r:.60}, not a number; write rml.report(epoch, float(loss))")
    # JSON has no NaN; a diverged training is what a pruner wants to hear of.
    line = json.dumps({"step": number, "value": float(plain) if math.isfinite(plain) else str(float(plain))})
    folder = os.environ.get("RML_TASK_FOLDER")
    if folder is None:
        return
    if os.environ.get("RML_REPORTS") == "file":
        # One write of a short line to a file opened for appending arrives whole, also from several processes.
        with (Path(folder) / FILE).open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")
    else:
        print(_MARK + line, flush=True)


class Reports:
    """Follows one step's file. `new` gives what was added since the last look."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0

    def new(self) -> Iterator[Report]:
        try:
            if self.path.stat().st_size < self._offset:
                self._offset = 0  # another attempt began anew
            with self.path.open("rb") as stream:
                stream.seek(self._offset)
                for line in stream:
                    if not line.endswith(b"\n"):
                        return
                    self._offset += len(line)
                    if found := _read(line.decode("utf-8", "replace")):
                        yield found
        except FileNotFoundError:
            return


def in_log(text: str) -> list[Report]:
    """The reports in a step's log."""
    return [found for match in _LINE.finditer(text) if (found := _read(match[1]))]


def _read(line: str) -> Report | None:
    try:
        said = json.loads(line)
        return Report(int(said["step"]), float(said["value"]))
    except (ValueError, KeyError, TypeError):
        return None  # a user's own line that looks like one
