"""What a sweep looks like while it goes on: a live table in a terminal and in a notebook, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from shutil import get_terminal_size
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from .._backends.local.progress import _in_notebook
from .._cards.text import number
from .result import sign_of

if TYPE_CHECKING:
    from .result import Sweep

__all__ = ["Progress", "table"]

_SHOWN = 12
_STYLES = {"SUCCEEDED": "green", "PRUNED": "cyan", "FAILED": "red", "RUNNING": "yellow"}


class Progress:
    """A context around the driver; `update` is called often and draws now and then."""

    def __init__(self, sweep: Sweep, *, shown: bool) -> None:
        self._sweep = sweep
        self._kind = "none" if not shown else "html" if _in_notebook() else "live" if sys.stdout.isatty() else "lines"
        self._every = {"html": 1.0, "live": 0.25}.get(self._kind, 0.2)
        self._due = 0.0
        self._live: Any = None
        self._handle: Any = None
        self._said: dict[int, str] = {}

    def __enter__(self) -> Progress:
        if self._kind == "live":
            from rich.live import Live

            self._live = Live(table(self._sweep), refresh_per_second=4)
            self._live.__enter__()
        elif self._kind == "html":
            from IPython.display import HTML, display

            self._handle = display(HTML(self._sweep._repr_html_()), display_id=True)
        elif self._kind == "lines":
            print(f"sweep {self._sweep.name}", flush=True)
        return self

    def update(self) -> None:
        now = time.monotonic()
        if self._kind != "none" and now >= self._due:
            self._due = now + self._every
            self._draw()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._kind != "none":
            self._draw()
        if self._live is not None:
            self._live.__exit__(kind, error, at)
        if self._kind == "lines":
            print(repr(self._sweep), flush=True)

    def _draw(self) -> None:
        if self._live is not None:
            self._live.update(table(self._sweep))
        elif self._handle is not None:
            from IPython.display import HTML

            self._handle.update(HTML(self._sweep._repr_html_()))
        elif self._kind == "lines":
            for trial in self._sweep.trials:
                if self._said.get(trial.number) != trial.state:
                    self._said[trial.number] = trial.state
                    value = "" if trial.value is None else f" {number(trial.value)}"
                    told = f"{sign_of(trial.state)} trial {trial.number} {trial.state}{value} {dict(trial.params)} {trial.reason}"
                    print(told.rstrip(), flush=True)


def table(sweep: Sweep, rows: int = _SHOWN) -> Any:
    """The best trials and those that run, as a rich table."""
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    known = sweep.definition
    title = escape(f"{sweep.name} · {sweep.state} · {sweep.counts()}")
    drawn = Table(title=title, title_justify="left", box=None, pad_edge=False)
    names = list(known.space)
    ranked = sweep.ranked()
    running = [t for t in ranked if t.state == "RUNNING"]
    rest = [t for t in ranked if t.state != "RUNNING"]
    cells: list[list[str]] = []
    for trial in [*running, *rest[: max(0, rows - len(running))]]:
        style = _STYLES.get(trial.state, "dim")
        now = "" if trial.value is None else number(trial.value)
        if trial.value is None and trial.reports:
            now = f"({number(trial.reports[-1][1])})"
        params = [escape(number(trial.params.get(name))) for name in names]
        took = "" if trial.duration is None else f"{trial.duration:.1f} s"
        state = f"[{style}]{sign_of(trial.state)} {trial.state}[/]"
        cells.append([str(trial.number), state, now, *params, took, escape(trial.reason[:80])])
    heads = ["trial", "state", known.metric, *names, "time", ""]
    room = get_terminal_size().columns
    for index, name in enumerate(heads):
        right = name in ("trial", known.metric, "time")
        # Only the last column, why it ended, gives way on a narrow screen.
        width = min(24, max([len(name), *(len(Text.from_markup(row[index]).plain) for row in cells)]))
        room -= width + 2
        width = width if name else max(10, min(80, room + width))
        align: Literal["left", "right"] = "right" if right else "left"
        drawn.add_column(escape(name), no_wrap=True, overflow="ellipsis", justify=align, width=width)
    for row in cells:
        drawn.add_row(*row)
    return drawn
