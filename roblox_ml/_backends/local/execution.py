"""One execution of a run: a thread with an event loop that schedules steps until the run is over.

A run may have several executions: the first, and one for every `retry()`. Each begins by ending what a killed
predecessor left running, and holds the run's lock while it lasts. Ending the process ends its steps (they ask the kernel
for that), so nothing runs unattended.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import threading
from collections.abc import Mapping
from typing import Any

from ..._store import home, open_store
from . import process
from .flow import Outcome
from .names import Names
from .record import EventLog, RunFolder
from .registry import control_plane_url
from .scheduler import Scheduler
from .slots import machine
from .spec import PipelineSpec
from .steps import StepRunner
from .telling import Teller
from .tracked import start as start_tracking
from .tracked import tracking_url

__all__ = ["RUNNING", "Execution"]

_LOOK_FOR_CANCEL = 0.25
_GRACE = 5.0

RUNNING: dict[str, Execution] = {}
"""Executions of this process by run id."""


class Execution(threading.Thread):
    """Drives `folder`'s run to its end. `lock` is the run's lock, released when the thread ends."""

    def __init__(self, folder: RunFolder, spec: PipelineSpec, lock: int, *, use_cache: bool = True) -> None:
        super().__init__(name=f"rml-run-{folder.id}")
        self.folder = folder
        self.spec = spec
        self.error: BaseException | None = None
        # Not `join`: interrupted by Ctrl-C, it takes the thread for ended (CPython 3.11).
        self.over = threading.Event()
        self.begun = False
        """Whether the record speaks of this execution; until then it tells how the one before it ended."""
        self._lock = lock
        self._use_cache = use_cache
        self._loop: asyncio.AbstractEventLoop | None = None
        self._steps: StepRunner | None = None
        self._wanted = True
        self._reason = "cancelled"

    def start(self) -> None:
        RUNNING[self.folder.id] = self
        super().start()

    def run(self) -> None:
        try:
            asyncio.run(self._main())
        except Exception as error:  # a bug here must reach the one who waits, not only a thread's stderr
            self.error = error
        finally:
            RUNNING.pop(self.folder.id, None)
            os.close(self._lock)
            self.over.set()

    def cancel(self, reason: str = "cancelled") -> None:
        """Stop starting steps and end those that run. Returns at once; from any thread."""
        self._wanted = False
        self._reason = reason
        loop, steps = self._loop, self._steps
        if loop is not None and steps is not None and not loop.is_closed():
            loop.call_soon_threadsafe(steps.cancelled.set)

    async def _main(self) -> None:
        about = self.folder.about
        teller = Teller(self.folder, about, self.spec)
        log = EventLog(self.folder, teller)
        grace = float(os.environ.get("RML_LOCAL_GRACE") or _GRACE)
        try:
            _end_orphans(log, grace)  # this thread has nothing else to do yet
            steps = StepRunner(
                self.folder, log, machine(), self._environment(about), use_cache=self._use_cache, grace=grace
            )
            self._loop, self._steps = asyncio.get_running_loop(), steps
            if not self._wanted:
                steps.cancelled.set()
            me = process.identity_of(os.getpid())
            log.append(
                "run_started",
                pid=os.getpid(),
                identity=me.started if me else "",
                python=sys.version.split()[0],
                tasks=Names(self.spec).below(self.spec.root, ()),
            )
            self.begun = True
            watch = asyncio.ensure_future(self._watch_for_cancel(steps))
            try:
                outcome, reason = await self._drive(log, steps, about["arguments"])
            finally:
                watch.cancel()
            log.append("run_finished", state=outcome.state, reason=reason, outputs=outcome.values.as_json())
        finally:
            # After the end was recorded: whether somebody could be told of it changes nothing about the run.
            if problem := teller.close():
                with contextlib.suppress(OSError):
                    log.append("telling_failed", reason=problem)
            log.close()

    async def _drive(self, log: EventLog, steps: StepRunner, arguments: Mapping[str, Any]) -> tuple[Outcome, str]:
        try:
            outcome = await Scheduler(self.spec, log, steps).run(arguments)
        except Exception as error:
            # Steps that still run must not outlive the execution that watches them.
            self.error = error
            steps.cancelled.set()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            await asyncio.wait(others, timeout=steps.grace * 2 + 1)
            return Outcome("FAILED"), f"{type(error).__name__}: {error}"
        if steps.cancelled.is_set():
            return Outcome("CANCELLED"), self._reason
        failed = [name for name, task in log.state.tasks.items() if task.state == "FAILED"]
        return outcome, f"{', '.join(failed)} failed" if failed else ""

    async def _watch_for_cancel(self, steps: StepRunner) -> None:
        """Another process asks for an end through a file."""
        while not self.folder.cancel_path.exists():
            await asyncio.sleep(_LOOK_FOR_CANCEL)
            if steps.cancelled.is_set():
                return  # or an end after an error would wait for this watch
        steps.cancelled.set()

    def _environment(self, about: Mapping[str, Any]) -> dict[str, str]:
        """What every step of this run is told."""
        place = home().resolve()
        provenance = about.get("provenance") or {}
        environment = {
            "RML_HOME": str(place),
            "RML_CACHE": os.environ.get("RML_CACHE") or str(place / "cache"),
            "RML_STORE": store_url(),
            "RML_RUN_ID": self.folder.id,
            "RML_PIPELINE": str(about.get("pipeline") or ""),
            "RML_REPORTS": "file",  # rml.report: somebody may read along here
        }
        if url := control_plane_url():
            environment["RML_CONTROL_URL"] = url
        if url := tracking_url():
            environment["RML_MLFLOW_URL"] = url
            start_tracking(self.folder, url, self.over)
        if token := os.environ.get("RML_TOKEN"):
            environment["RML_TOKEN"] = token
        git = {k: v for k, v in (provenance.get("git") or {}).items() if k != "patch"}
        if git:
            environment["RML_GIT"] = json.dumps(git, sort_keys=True)
        return environment


def store_url() -> str:
    """The blob store as a URL, which is all that stage 0 of a step understands."""
    store = open_store()
    folder = store.folder
    return store.url if folder is None else folder.absolute().as_uri()


def _end_orphans(log: EventLog, grace: float) -> None:
    """Processes of an execution that was killed: they would write into the outputs of their successors."""
    for task in log.state.tasks.values():
        for attempt in task.attempts:
            if attempt.finished is None:
                process.end_tree(process.Identity(attempt.pid, attempt.identity), grace)
