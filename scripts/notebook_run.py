"""Execute a notebook headless and tell the terminal, as it happens, what a person in front of it would see.

A line per cell; what cells print; and while a cell runs a pipeline, a line whenever one of its steps changes state, with
the step's last words for those that take long.
"""

from __future__ import annotations

import logging
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

import roblox_ml as rml

__all__ = ["NotebookFailed", "execute"]

Say = Callable[[str], None]
_QUIET_S = 20.0


class NotebookFailed(Exception):
    """A cell raised; its message is the error as the notebook shows it."""


def execute(source: Path, say: Say, *, timeout: int = 1800) -> Any:
    """Run every cell of the notebook in its own folder; returns the executed notebook (also attached to a failure)."""
    notebook = nbformat.read(source, as_version=4)
    with _Steps(say):
        client = _Talking(notebook, say, timeout=timeout, resources={"metadata": {"path": str(source.parent)}})
        try:
            client.execute()
        except (AssertionError, DeadKernelError):
            # On Ctrl-C nbclient takes its kernel away from under its own feet.
            logging.getLogger("asyncio").setLevel(logging.CRITICAL)
            raise KeyboardInterrupt from None
        except CellExecutionError as error:
            failure = NotebookFailed(f"{error.ename}: {error.evalue}")
            failure.notebook = notebook  # type: ignore[attr-defined]
            raise failure from None
    return notebook


class _Talking(NotebookClient):  # type: ignore[misc, unused-ignore]
    """A notebook client that says which cell runs and repeats what it prints."""

    def __init__(self, notebook: Any, say: Say, **options: Any) -> None:
        super().__init__(notebook, **options)
        self._say = say
        self._sockets = tempfile.TemporaryDirectory(prefix="rml-")
        self._heading = ""
        self._shown = ""
        self.on_cell_start = self._start

    def create_kernel_manager(self) -> Any:
        """Talk to the kernel through sockets only this user can open, instead of TCP ports anybody here could."""
        manager = super().create_kernel_manager()
        manager.transport = "ipc"
        manager.ip = str(Path(self._sockets.name) / "kernel")
        return manager

    def _start(self, cell: Any, cell_index: int) -> None:
        if cell.cell_type == "markdown":
            lines = [line.lstrip("# ") for line in cell.source.splitlines() if line.startswith("#")]
            self._heading = lines[-1] if lines else self._heading
        elif self._heading != self._shown:
            self._shown = self._heading
            self._say(f"[bold]{self._heading}[/bold]")

    def process_message(self, msg: Any, cell: Any, cell_index: int) -> Any:
        if msg["msg_type"] == "stream" and msg["content"]["name"] == "stdout":
            for line in msg["content"]["text"].splitlines():
                if line.strip():
                    self._say(f"  [dim]{line.rstrip()}[/dim]")
        return super().process_message(msg, cell, cell_index)


class _Steps:
    """Follows the newest run's record from outside the kernel: it is on disk, whoever executes it."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._before = {run.id for run in rml.runs()}

    def __enter__(self) -> _Steps:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(timeout=5)

    def _follow(self) -> None:
        seen: dict[str, str] = {}
        spoke = time.monotonic()
        while not self._over.wait(0.5):
            for run in [run for run in rml.runs(limit=1) if run.id not in self._before]:
                for name, task in run.tasks.items():
                    if seen.get(name) != task.state:
                        seen[name] = task.state
                        took = f" in {task.duration:.1f} s" if task.duration and task.state != "RUNNING" else ""
                        if task.state != "PENDING":
                            self._say(f"  {task.state.lower():<10} [cyan]{name}[/cyan]{took}")
                            spoke = time.monotonic()
                running = [name for name, task in run.tasks.items() if task.state == "RUNNING"]
                if running and time.monotonic() - spoke > _QUIET_S:
                    spoke = time.monotonic()
                    for name in running:
                        words = run.logs(name).strip().splitlines()
                        self._say(f"  {'…':<10} [cyan]{name}[/cyan] [dim]{words[-1][:100] if words else ''}[/dim]")
