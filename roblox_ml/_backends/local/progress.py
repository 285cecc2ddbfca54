"""What a run looks like while it goes on: a live table in a terminal and in a notebook, plain lines elsewhere.

All three show the same rows, read from the record; a running step shows the last line of its log.
"""

from __future__ import annotations

import html
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..._run_protocol import AnyRun, Task

__all__ = ["as_html", "note_of", "watch"]

_TERMINAL = 0.2
_NOTEBOOK = 0.5
_MANY = 40
_STYLES = {
    "SUCCEEDED": ("✓", "green", "#1f883d"),
    "CACHED": ("✓", "cyan", "#1786a6"),
    "FAILED": ("✗", "red", "#cf222e"),
    "RUNNING": ("▸", "yellow", "#9a6700"),
    "RETRYING": ("↻", "yellow", "#9a6700"),
    "SKIPPED": ("-", "dim", "#6e7781"),
    "CANCELLED": ("-", "red", "#cf222e"),
    "PENDING": ("·", "dim", "#6e7781"),
}


def watch(run: AnyRun, done: Callable[[float], bool]) -> None:
    """Show the run until `done(seconds)` (which waits at most so long) says it is over."""
    if _in_notebook():
        _watch_notebook(run, done)
    elif sys.stdout.isatty():
        _watch_terminal(run, done)
    else:
        _watch_lines(run, done)


def note_of(task: Task) -> str:
    """What is worth saying about a step beside its state: why it failed, or what it is doing."""
    tries = f"attempt {task.attempts}  " if task.attempts > 1 else ""
    return tries + (task.error or (task.last_line if task.state == "RUNNING" else ""))


def as_html(run: AnyRun) -> str:
    """The run as an HTML table, with the end of the log where a step failed."""
    rows = []
    for task in _shown(run):
        sign, _, colour = _STYLES[task.state]
        rows.append(
            f'<tr><td>{html.escape(task.name)}</td><td style="color:{colour}">{sign} {task.state}</td>'
            f'<td style="text-align:right">{_took(task)}</td>'
            f'<td style="text-align:left"><code>{html.escape(note_of(task)[:160])}</code></td></tr>'
        )
        if task.state == "FAILED":
            tail = "\n".join(run.logs(task.name).splitlines()[-15:])
            rows.append(f'<tr><td colspan="4" style="text-align:left"><pre>{html.escape(tail)}</pre></td></tr>')
    hidden = len(run.tasks) - len(_shown(run))
    more = f"<tr><td colspan='4'>… and {hidden} more</td></tr>" if hidden > 0 else ""
    took = "" if run.duration is None else f" · {run.duration:.1f} s"
    head = f"<b>{html.escape(run.pipeline)}</b> · {run.state}{took} · <code>{html.escape(run.id)}</code>"
    return f"<div>{head}<table>{''.join(rows)}{more}</table></div>"


def _watch_terminal(run: AnyRun, done: Callable[[float], bool]) -> None:
    if done(_TERMINAL):  # a run from the cache is over before a table is drawn
        from rich.console import Console

        Console().print(_table(run))
        return
    from rich.live import Live

    with Live(_table(run), refresh_per_second=8, transient=False) as live:
        over = False
        while not over:
            over = done(_TERMINAL)
            live.update(_table(run))


def _table(run: AnyRun) -> Any:
    from rich.markup import escape
    from rich.table import Table

    took = "" if run.duration is None else f" · {run.duration:.1f} s"
    table = Table(
        title=f"{run.pipeline} · {run.state}{took} · {run.id}", title_justify="left", box=None, pad_edge=False
    )
    for name in ("step", "state", "time", ""):
        table.add_column(name, no_wrap=True, justify="right" if name == "time" else "left", overflow="ellipsis")
    for task in _shown(run):
        sign, style, _ = _STYLES[task.state]
        table.add_row(escape(task.name), f"[{style}]{sign} {task.state}[/]", _took(task), escape(note_of(task)))
    return table


def _watch_notebook(run: AnyRun, done: Callable[[float], bool]) -> None:
    from IPython.display import HTML, display

    handle = display(HTML(as_html(run)), display_id=True)
    over = False
    while not over:
        over = done(_NOTEBOOK)
        if handle is not None:
            handle.update(HTML(as_html(run)))


def _watch_lines(run: AnyRun, done: Callable[[float], bool]) -> None:
    """One line per change of state: for logs of CI and for pipes."""
    print(f"run {run.id}", flush=True)
    before: dict[str, str] = {}
    over = False
    while not over:
        over = done(_TERMINAL)
        for task in run.tasks.values():
            if task.state not in ("PENDING", before.get(task.name)):
                before[task.name] = task.state
                sign = _STYLES[task.state][0]
                print(f"{sign} {task.name} {task.state} {_took(task)} {task.error}".rstrip(), flush=True)
    print(f"run {run.id} {run.state} {run.duration or 0:.1f} s", flush=True)


def _shown(run: AnyRun) -> list[Task]:
    """At most so many rows: of a large run those that run or failed, and the last ones that changed."""
    tasks = list(run.tasks.values())
    if len(tasks) <= _MANY:
        return tasks
    order = {"FAILED": 0, "RUNNING": 1, "RETRYING": 1, "PENDING": 3}
    chosen = {t.name for t in sorted(tasks, key=lambda t: order.get(t.state, 2))[:_MANY]}
    return [task for task in tasks if task.name in chosen]


def _took(task: Task) -> str:
    if task.cached:
        return "cached"
    return "" if task.duration is None else f"{task.duration:.1f} s"


def _in_notebook() -> bool:
    """Whether a kernel with a front end is asking (not IPython in a terminal)."""
    shell = sys.modules.get("IPython")
    active = shell.get_ipython() if shell is not None else None
    return active is not None and type(active).__name__ == "ZMQInteractiveShell"
