"""What IPython ran and how far it came. Its own history keeps the text of a cell, not that the cell stopped half-way.

The SDK is imported into the kernel, so from then on each executed cell tells its number and, when it failed, the line at which it
stopped; capture leaves out what never ran. Standard library only, and silent outside IPython: this module is imported everywhere.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

NEVER_RAN = 0
"""The line of a failure before the first statement: a syntax error, a magic that does not exist."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Where a cell stopped: the line that failed, counted in the code IPython ran, and the exception's name.

    `body` is the line inside a cell under ``%%time``, whose code is compiled on its own.
    """

    line: int
    error: str
    body: int | None = None


class History:
    """The cells of one shell since the SDK was imported: how each ended, by its number. `since` is the first one watched."""

    def __init__(self, since: int) -> None:
        self.since = since
        self.stops: dict[int, Stop] = {}

    def finished(self, result: Any) -> None:
        """IPython's `post_run_cell`."""
        number = getattr(result, "execution_count", None)
        if number is None:
            return
        self.stops.pop(number, None)
        error = getattr(result, "error_before_exec", None)
        if error is not None:
            self.stops[number] = Stop(NEVER_RAN, type(error).__name__)
            return
        error = getattr(result, "error_in_exec", None)
        if error is not None:
            self.stops[number] = _stop(error)


def _stop(error: BaseException) -> Stop:
    """The first frame of module code is the cell's; a second one under a name like ``<timed exec>`` is a magic's."""
    lines: list[tuple[str, int]] = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_name == "<module>" or code.co_name.startswith("<cell line"):
            lines.append((code.co_filename, trace.tb_lineno))
        trace = trace.tb_next
    line = lines[0][1] if lines else NEVER_RAN
    body = next((number for name, number in lines[1:2] if name.startswith("<timed")), None)
    return Stop(line, type(error).__name__, body)


def history_of(shell: Any) -> History | None:
    """What is known of `shell`'s cells, if the SDK was imported in it."""
    found = getattr(shell, "_roblox_ml_history", None)
    return found if isinstance(found, History) else None


def watch() -> None:
    """Begin to watch the running IPython shell, if there is one."""
    core = sys.modules.get("IPython.core.getipython")
    shell = core.get_ipython() if core is not None else None
    if shell is None or history_of(shell) is not None:
        return
    shell._roblox_ml_history = History(getattr(shell, "execution_count", 1))
    shell.events.register("post_run_cell", shell._roblox_ml_history.finished)
