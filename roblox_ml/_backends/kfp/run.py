"""A run on Kubeflow, with the words of a local one: state, tasks, logs, outputs, wait, cancel, retry.

It holds an address and an id; every property asks the server, so that two kernels see the same run. What the server cannot tell
(why a step failed, what it returned) is read from the step's log and from the object store.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ..._run_protocol import ENDED, Task, excerpt, named
from ...errors import RunError, RunFailed
from . import logs, outputs
from .api import silent, told
from .tasks import Node, nodes, seconds, state_of

if TYPE_CHECKING:
    from .connection import Kubeflow

__all__ = ["RemoteRun"]

_POLL = 1.0
_TAIL = 400
_LABELS = "labels: "


class RemoteRun:
    """A run on Kubeflow Pipelines. Made by `pipeline.submit()`, `connection.runs()` and `rml.get_run("kfp:<id>")`."""

    path = None

    def __init__(
        self,
        connection: Kubeflow,
        id: str,
        *,
        seen: Mapping[str, Any] | None = None,
        spec: Mapping[str, Any] | None = None,
    ) -> None:
        self.id = id
        self._connection = connection
        self._spec = dict(spec) if spec is not None else None
        self._held: Mapping[str, Any] | None = None
        # What never changes about a run was perhaps seen already, in a list or when it was made.
        self._about = seen
        self._lines: dict[str, str] = {}

    @property
    def host(self) -> str:
        return self._connection.host

    @property
    def url(self) -> str:
        """The run's page in Kubeflow's own pages."""
        return f"{self._connection.public_url}/#/runs/details/{self.id}"

    @property
    def pipeline(self) -> str:
        return str((self.spec.get("pipelineInfo") or {}).get("name") or self.name)

    @property
    def name(self) -> str:
        """The run's own name, as Kubeflow shows it."""
        return str(self._fixed().get("display_name") or self.id)

    @property
    def arguments(self) -> Mapping[str, Any]:
        return dict((self._fixed().get("runtime_config") or {}).get("parameters") or {})

    @property
    def labels(self) -> Mapping[str, str]:
        """What `submit(run_labels=…)` gave it. Kept in the run's description: a run of KFP 2.17 has no labels."""
        last = str(self._fixed().get("description") or "").rpartition("\n")[2]
        if not last.startswith(_LABELS):
            return {}
        try:
            found = json.loads(last.removeprefix(_LABELS))
        except ValueError:
            return {}
        return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}

    @property
    def created(self) -> datetime:
        return datetime.fromtimestamp(seconds(self._fixed().get("created_at")) or 0, UTC)

    @property
    def experiment_id(self) -> str:
        return str(self._fixed().get("experiment_id") or "")

    @property
    def pipeline_id(self) -> str:
        return str(self._reference.get("pipeline_id") or "")

    @property
    def version_id(self) -> str:
        return str(self._reference.get("pipeline_version_id") or "")

    @property
    def spec(self) -> Mapping[str, Any]:
        """The pipeline's spec as the server has it; empty when its version was deleted."""
        if self._spec is None:
            self._spec = dict(self._connection.spec_of(self._fixed()))
        return self._spec

    @property
    def state(self) -> str:
        """PENDING, RUNNING, SUCCEEDED, FAILED or CANCELLED."""
        return state_of(self._look().get("state"))

    @property
    def duration(self) -> float | None:
        """Seconds from the first step's start to the end, or until now; None before it starts."""
        run = self._look()
        started = [n.started for n in nodes(run, self.spec) if n.started is not None]
        first = seconds(run.get("scheduled_at")) or seconds(run.get("created_at"))
        if not started or first is None:
            return None
        return (seconds(run.get("finished_at")) or time.time()) - min(first, *started)

    @property
    def error(self) -> str:
        """Why the run failed: the server's word, else its first failed step's; empty when it did not fail."""
        run = self._look()
        if state_of(run.get("state")) != "FAILED":
            return ""
        said = str((run.get("error") or {}).get("message") or "")
        failed = [task for task in self.tasks.values() if task.state == "FAILED"]
        return said or "; ".join(f"step {task.name}: {task.error}" for task in failed) or "the run failed"

    @property
    def tasks(self) -> dict[str, Task]:
        """The steps by name, in the order of the pipeline; a fanned-out one is `probe[0]`, `probe[1]`, … by start."""
        return {node.name: self._task(node) for node in nodes(self._look(), self.spec)}

    @property
    def outputs(self) -> Mapping[str, Any]:
        """What the steps returned: `run.outputs["train"]` is a value, an artifact, or a mapping of several outputs."""
        return outputs.read(self)

    def logs(self, task: str, follow: bool = False) -> str:
        """What a step printed: from its pod while there is one, else from what Kubeflow kept of it."""
        found = self._nodes_named(task)
        if follow:
            return logs.follow(self, found[0])
        parts = [(node.name, logs.read(self, node)) for node in found]
        if len(parts) == 1:
            return parts[0][1]
        return "".join(f"=== {name} ===\n{text}" for name, text in parts)

    def wait(self, timeout: float | None = None, *, progress: bool = False) -> RemoteRun:
        """Until the run is over; raises RunFailed when it did not succeed. Ctrl-C stops waiting, the run goes on."""
        deadline = None if timeout is None else time.monotonic() + timeout

        def done(pause: float) -> bool:
            # The first look costs no pause: a run that is over is over.
            if self._held is not None:
                time.sleep(
                    max(pause, _POLL) if deadline is None else min(_POLL, max(0.01, deadline - time.monotonic()))
                )
            self._held = None
            self._held = self._look()
            return state_of(self._held.get("state")) in ENDED

        try:
            if progress and deadline is None:
                from ..local.progress import watch

                watch(self, done)
            while not done(_POLL):
                if deadline is not None and time.monotonic() >= deadline:
                    raise TimeoutError(f"run {self.id} is not over after {timeout:g} s; it goes on")
            if self.state != "SUCCEEDED":
                raise self._failure()
        finally:
            self._held = None
        return self

    def cancel(self) -> None:
        """Stop the run. One that is over stays as it is."""
        if self.state in ENDED:
            return
        with told(self.host), silent():
            self._connection.client.terminate_run(self.id)

    def retry(self, *, wait: bool = True, progress: bool = True) -> RemoteRun:
        """Run what failed again; finished steps keep their outputs. The server refuses while the run has not started."""
        if self.state == "SUCCEEDED":
            raise RunError(f"run {self.id} succeeded: there is nothing to retry", fix="start a new run")
        with told(self.host), silent():
            self._connection.client._run_api.run_service_retry_run(run_id=self.id)
        self._lines.clear()
        return self.wait(progress=progress) if wait else self

    def delete(self) -> None:
        """Remove the run from Kubeflow's lists. Its artifacts stay in the object store."""
        with told(self.host), silent():
            self._connection.client.delete_run(self.id)

    def archive(self) -> None:
        """Move the run out of the way; Kubeflow's pages can bring it back."""
        with told(self.host), silent():
            self._connection.client.archive_run(self.id)

    def debug(self, task: str) -> Any:
        """Only for runs on this machine."""
        raise RunError(
            f"run {self.id} ran on {self.host}: its steps cannot be debugged here",
            why="their inputs are in the cluster's object store",
            fix="run the pipeline here with .run(…), and debug that run",
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemoteRun) and (self.id, self.host) == (other.id, other.host)

    def __hash__(self) -> int:
        return hash((self.id, self.host))

    def __repr__(self) -> str:
        return f"<rml.RemoteRun {self.id} {self.state}>"

    def _repr_html_(self) -> str:
        import html

        from ..local.progress import as_html

        self._held = self._look()
        try:
            link = html.escape(self.url, quote=True)
            return f'{as_html(self)}<a href="{link}" target="_blank">{html.escape(self.id)} on Kubeflow</a>'
        finally:
            self._held = None

    @property
    def _reference(self) -> Mapping[str, Any]:
        return self._fixed().get("pipeline_version_reference") or {}

    def _look(self) -> Mapping[str, Any]:
        """The run as the server has it now; while one question is answered, the same answer throughout."""
        if self._held is not None:
            return self._held
        self._about = self._connection.raw_run(self.id)
        return self._about

    def _fixed(self) -> Mapping[str, Any]:
        return self._about if self._about is not None else self._look()

    def _nodes_named(self, task: str) -> list[Node]:
        found = {node.name: node for node in nodes(self._look(), self.spec)}
        return [found[name] for name in named(self.id, list(found), task)]

    def _task(self, node: Node) -> Task:
        duration = None if node.started is None else (node.finished or time.time()) - node.started
        error, last = node.error, ""
        if node.state == "FAILED":
            last = self._last_line(node)
            error = error or last or "the step failed and left no log"
        return Task(node.name, node.state, duration, int(node.attempts), False, error, last)

    def _last_line(self, node: Node) -> str:
        """The end of a failed step's log: asked for once, it does not change any more."""
        if node.name not in self._lines:
            lines = [line for line in logs.read(self, node, quietly=True).splitlines() if line.strip()]
            self._lines[node.name] = lines[-1].strip() if lines else ""
        return self._lines[node.name]

    def _failure(self) -> RunFailed:
        look = f"rml.get_run('kfp:{self.id}')"
        if self.state == "CANCELLED":
            return RunFailed(f"run {self.id} was cancelled", run=self, where=self.url, fix=f"{look}.retry()")
        failed = [node for node in nodes(self._look(), self.spec) if node.state == "FAILED"]
        lines = [f"run {self.id} failed"]
        for node in failed:
            lines.append(f"step {node.name}: {self._task(node).error}")
            text = logs.read(self, node, quietly=True).splitlines()[-_TAIL:]
            lines += [f"    {line}" for line in excerpt(text)]
        name = failed[0].name if failed else "STEP"
        fix = f"{look}.logs({name!r}) · .retry() · rml runs logs kfp:{self.id} {name}"
        return RunFailed("\n".join(lines), run=self, where=self.url, fix=fix)
