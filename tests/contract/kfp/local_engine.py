"""An engine for the test server: runs are carried out by the local executor, and told as Kubeflow tells them.

The same bytes run, so what differs between a local run and a remote one is the way to the answer alone. Outputs are reported in the
log as a step's executor does in a pod; logs are kept where the launcher keeps them.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from roblox_ml._backends.local import LocalExecutor
from roblox_ml._backends.local.execution import RUNNING
from roblox_ml._graph.dump import dump_ir
from roblox_ml._runtime.outputs import REPORT

_WORDS = {"CACHED": "SUCCEEDED", "RETRYING": "RUNNING", "CANCELLED": "CANCELED"}
_OVER = ("SUCCEEDED", "FAILED", "CANCELLED", "INTERRUPTED")


@dataclass(frozen=True)
class _Compiled:
    name: str
    ir: bytes
    blobs: dict[str, bytes] = field(default_factory=dict)
    provenance: Any = None
    schedule: Any = None
    notify: Any = ()


class LocalEngine:
    """Give it to `kfpserver.running(engine=LocalEngine(), artifacts=folder)`."""

    def __init__(self) -> None:
        self.runs: dict[str, Any] = {}
        self.threads: list[threading.Thread] = []

    def start(self, run: Any) -> None:
        ir = dump_ir({"pipeline": run.pipeline, "platform": run.platform})
        self._thread(lambda: self._begin(run, _Compiled(run.name, ir)))

    def cancel(self, run: Any) -> None:
        if run.run_id in self.runs:
            self.runs[run.run_id].cancel()

    def retry(self, run: Any) -> None:
        here = self.runs[run.run_id]

        def again() -> None:
            here.retry(wait=False)
            self._follow(run, here)

        self._thread(again)

    def close(self) -> None:
        """Everything it started is over."""
        for run in self.runs.values():
            run.cancel()
        for thread in self.threads:
            thread.join()

    def _thread(self, work: Any) -> None:
        thread = threading.Thread(target=work, daemon=True)
        self.threads.append(thread)
        thread.start()

    def _begin(self, run: Any, compiled: _Compiled) -> None:
        here = LocalExecutor().run(compiled, run.arguments, wait=False, progress=False)
        self.runs[run.run_id] = here
        run.begin()
        self._follow(run, here)

    def _follow(self, run: Any, here: Any) -> None:
        told: dict[str, str] = {}
        while True:
            # A retry begins a moment after it was asked for: until then the record still says how it ended before.
            execution = RUNNING.get(here.id)
            over = execution.over.is_set() if execution is not None else here.state in _OVER
            for name, task in here.tasks.items():
                word = _WORDS.get(task.state, task.state)
                if told.get(name) == word or word == "PENDING":
                    continue
                told[name] = word
                if word not in ("RUNNING", "SKIPPED"):
                    run.log(name, self._log(here, name, run.pod(name)))
                if word != "SKIPPED":
                    run.report(name, word)
            if over:
                run.end(_WORDS.get(here.state, here.state))
                return
            time.sleep(0.02)

    def _log(self, here: Any, name: str, pod: str) -> str:
        made = here._reader.poll().tasks[name].outputs
        text = str(here.logs(name))
        if made is None:
            return text
        artifacts = {key: {"artifacts": listed} for key, listed in (made.get("artifacts") or {}).items()}
        report = {"parameterValues": made.get("parameters") or {}, "artifacts": artifacts, "pod": pod}
        return f"{text}{REPORT}{json.dumps(report)}\n"
