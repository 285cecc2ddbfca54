"""What becomes of a run: PENDING without details, RUNNING with Argo's nodes for every step, then its end, as a real one shows it.

An engine reports steps; the nodes around them (drivers, executors, the DAGs of groups, the workflow) follow. Node ids are Argo's
hashes of the nodes' paths, so they are the ones a real workflow of this name has (proved by the recorded run).
"""

from __future__ import annotations

import re
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .rules import inner

_BODY = "iteration-iterations(@:@).iteration-item"  # of a loop, as Kubeflow compiles it to Argo's withSequence
_ENDED = ("SUCCEEDED", "FAILED", "CANCELED")


@dataclass
class _Step:
    state: str
    started: str = ""
    finished: str = ""
    error: str = ""


@dataclass
class EngineRun:
    """A run, seen by whoever carries it out. `raw` is the API's JSON without the parts that follow from the steps."""

    raw: dict[str, Any]
    spec: dict[str, Any]
    workflow: str
    artifacts: Path | None = None
    pods: dict[str, str] = field(default_factory=dict)
    steps: dict[str, _Step] = field(default_factory=dict)
    lock: Any = field(default_factory=threading.RLock)

    @property
    def run_id(self) -> str:
        return str(self.raw["run_id"])

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return str(self.pipeline["pipelineInfo"]["name"])

    @property
    def pipeline(self) -> dict[str, Any]:
        """The first document of the uploaded file."""
        return inner(self.spec)

    @property
    def platform(self) -> dict[str, Any] | None:
        """The second one, if there is any."""
        return self.spec.get("platform_spec") if "pipeline_spec" in self.spec else None

    @property
    def arguments(self) -> dict[str, Any]:
        return dict((self.raw.get("runtime_config") or {}).get("parameters") or {})

    @property
    def state(self) -> str:
        return str(self.raw["state"])

    def begin(self) -> None:
        """The workflow is made."""
        self._to("RUNNING")

    def report(self, task: str, state: str, error: str = "") -> None:
        """A step (`train`, `probe[2]`) is now RUNNING, SUCCEEDED, FAILED, SKIPPED or CANCELED."""
        with self.lock:
            if self.state == "PENDING":
                self.begin()
            step = self.steps.setdefault(task, _Step(state))
            if state == "RUNNING":
                step.started, step.finished = now(), ""
            else:
                step.started, step.finished = step.started or now(), now()
            step.state, step.error = state, error

    def log(self, task: str, text: str, *, kept: bool = True) -> None:
        """What a step printed: the server has it as its pod's log; `kept` puts it where the launcher would."""
        with self.lock:
            for path in self._paths(task):
                name = f"{self.workflow}-{'system-container-impl'}-{fnv(path)}"
                self.pods[name] = text
            if kept and self.artifacts is not None:
                (folder := self.folder(task)).mkdir(parents=True, exist_ok=True)
                (folder / "executor-logs").write_text(text, "utf-8")

    def folder(self, task: str) -> Path:
        """Where the launcher puts what this execution of the step made."""
        assert self.artifacts is not None
        attempt = uuid.uuid5(uuid.UUID(self.run_id), task)
        return self.artifacts / self.name / self.run_id / task.partition("[")[0] / str(attempt)

    def end(self, state: str) -> None:
        """SUCCEEDED, FAILED or CANCELED; steps that were not reached are listed without a state, as the real server does."""
        with self.lock:
            for name, _, _ in self._leaves():
                if not any(n == name or n.startswith(f"{name}[") for n in self.steps):
                    self.steps[name] = _Step("", now(), now())
            self._to(state)
            self.raw["finished_at"] = now()

    def again(self) -> None:
        """A retry: what failed or was left out starts over."""
        with self.lock:
            self.steps = {n: s for n, s in self.steps.items() if s.state == "SUCCEEDED"}
            self.raw["finished_at"] = "1970-01-01T00:00:00Z"
            self._to("RUNNING")

    def cancel(self) -> None:
        """Asked to stop: the engine ends it."""
        self._to("CANCELING")

    def as_json(self, *, whole: bool = True) -> dict[str, Any]:
        """As the API gives it; details appear with the workflow."""
        with self.lock:
            found = dict(self.raw)
            if whole and any(h["state"] == "RUNNING" for h in self.raw["state_history"]):
                found["run_details"] = {"task_details": sorted(self._details(), key=lambda d: str(d["task_id"]))}
            return found

    def _to(self, state: str) -> None:
        with self.lock:
            self.raw["state"] = state
            self.raw["state_history"] = [*self.raw["state_history"], {"state": state, "update_time": now()}]

    def _leaves(self) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
        """(name, path of its DAG, its task) of every step."""
        yield from _walk(self.pipeline, self.pipeline["root"]["dag"], f"{self.workflow}.root")

    def _paths(self, task: str) -> list[str]:
        base = task.partition("[")[0]
        return [f"{_inside(dag, task)}.{name}.executor" for name, dag, _ in self._leaves() if name == base]

    def pod(self, task: str) -> str:
        """The name of the pod that carries an execution out (`probe[2]`)."""
        return f"{self.workflow}-system-container-impl-{fnv(self._paths(task)[0])}"

    def _details(self) -> Iterator[dict[str, Any]]:
        whole = self.state if self.state in _ENDED else "RUNNING"
        kind = {"SUCCEEDED": "SUCCEEDED", "FAILED": "FAILED", "CANCELED": "CANCELED"}.get(whole, "RUNNING")
        created = str(self.raw["created_at"])
        end = str(self.raw["finished_at"]) if whole in _ENDED else ""
        base = f"{self.workflow}.root"
        yield self._detail(self.workflow, kind, created, end, [f"{base}-driver"], self.workflow, dag=True)
        yield self._detail("root-driver", "SUCCEEDED", created, created, [base], f"{base}-driver")
        leaves = list(self._leaves())
        first = [f"{dag}.{n}-driver" for n, dag, task in leaves if not task.get("dependentTasks") and dag == base]
        yield self._detail("root", kind, created, end, first, base, dag=True)
        for name, dag, _ in leaves:
            after = [
                f"{dag}.{n}-driver" for n, d, task in leaves if d == dag and name in (task.get("dependentTasks") or [])
            ]
            for step, found in [(n, s) for n, s in self.steps.items() if n == name or n.startswith(f"{name}[")]:
                yield from self._step(step, name, dag, found, after)

    def _step(self, step: str, name: str, dag: str, found: _Step, after: list[str]) -> Iterator[dict[str, Any]]:
        path = f"{_inside(dag, step)}.{name}"
        reached = found.state not in ("", "SKIPPED")
        driver = "SUCCEEDED" if reached else found.state
        begun, ended = found.started or now(), found.finished
        yield self._detail(f"{name}-driver", driver, begun, begun, [path], f"{path}-driver")
        yield self._detail(
            name, found.state, begun, ended, [f"{path}.executor"] if reached else [], path, dag=True, error=found.error
        )
        if reached:
            yield self._detail("executor", found.state, begun, ended, after, f"{path}.executor")

    def _detail(
        self,
        name: str,
        state: str,
        begun: str,
        ended: str,
        children: list[str],
        path: str,
        *,
        dag: bool = False,
        error: str = "",
    ) -> dict[str, Any]:
        first = "RUNNING" if dag else "PENDING"
        stamp = {"update_time": ended or begun}
        history: list[dict[str, Any]] = [{"state": first, "update_time": begun}] if state else [stamp]
        if state not in ("", first):
            history.append({"state": state, **stamp})
        found: dict[str, Any] = {
            "create_time": str(self.raw["created_at"]),
            "display_name": name,
            "run_id": self.run_id,
            "start_time": begun,
            "state_history": history,
            "task_id": str(uuid.uuid5(uuid.UUID(self.run_id), path)),
        }
        if ended:
            found["end_time"] = ended
        if state:
            found["state"] = state
        if children:
            found["child_tasks"] = [{"pod_name": f"{self.workflow}-{fnv(child)}"} for child in children]
        if error:
            found["error"] = {"code": 2, "message": error}
        return found


def _walk(spec: Mapping[str, Any], dag: Mapping[str, Any], path: str) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for name, task in (dag.get("tasks") or {}).items():
        component = (spec.get("components") or {}).get(task["componentRef"]["name"]) or {}
        if "dag" in component:
            body = f".{_BODY}" if "parameterIterator" in task else ""
            yield from _walk(spec, component["dag"], f"{path}.{name}{body}")
        else:
            yield name, path, task


def _inside(path: str, step: str) -> str:
    """The path of a DAG in the iterations that a step's name tells."""
    for index in re.findall(r"\[(\d+)\]", step):
        path = path.replace("(@:@)", f"({index}:{index})", 1)
    return path


def fnv(text: str) -> int:
    """Argo's hash: 32-bit FNV-1a."""
    value = 0x811C9DC5
    for byte in text.encode():
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return value


def now() -> str:
    """The API's times have no fractions."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
