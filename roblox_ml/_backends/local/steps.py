"""One step of a run: found in the record, found in the cache, or run as a process with its retries and time-out."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..._store import home
from ...errors import RunError
from . import process, secrets
from .cache import Cache, intact, step_key, tree_digest, tree_stamp
from .flights import begin, end
from .flow import Outcome, Values, coerce
from .placeholders import resolve
from .record import EventLog, RunFolder
from .slots import Lease, Slots
from .spec import Component, Container, TaskSpec
from .state import DONE

__all__ = ["StepRunner"]

# The kernel refuses a single argument of 128 KiB; a longer executor input goes through a file.
_LONGEST_ARGUMENT = 100_000
_STAGE0_MARK = "--executor_input"


@dataclass(frozen=True, slots=True)
class _Ended:
    """How an attempt ended: an exit code, and a reason when it failed; `final` when another attempt would not help."""

    exit: int
    reason: str = ""
    final: bool = False


class StepRunner:
    """Runs container tasks for one execution of a run; used from the execution's event loop."""

    def __init__(
        self,
        folder: RunFolder,
        log: EventLog,
        slots: Slots,
        environment: Mapping[str, str],
        *,
        use_cache: bool,
        grace: float,
    ) -> None:
        self.folder = folder
        self.log = log
        self.slots = slots
        self.environment = environment
        self.cache = Cache() if use_cache else None
        self.grace = grace
        self.cancelled = asyncio.Event()
        self.stamps: dict[str, object] = {}
        self.shares = bool(folder.about.get("sweep"))

    async def run(self, name: str, task: TaskSpec, component: Component, inputs: Values) -> Outcome:
        """Bring one task to its end; every step on the way is in the log before it counts."""
        key = step_key(component, inputs.parameters, inputs.artifacts)
        known = await self._known(name, task, key)
        if known is not None:
            return known
        if self.cache is None or not task.cache or not self.shares:
            return await self._run(name, task, component, inputs, key)
        flights = home() / "cache" / "flights"
        flight = await begin(flights, key, self.cancelled)
        try:
            # Who was at it before us may have left what we need.
            known = await self._known(name, task, key)
            return known or await self._run(name, task, component, inputs, key)
        finally:
            if flight is not None:
                end(flights, key, flight)

    async def _run(self, name: str, task: TaskSpec, component: Component, inputs: Values, key: str) -> Outcome:
        """The process, again while it fails and may be tried again."""
        container = component.container
        assert container is not None, "only containers run"
        before = len(self.log.state.tasks[name].attempts) if name in self.log.state.tasks else 0
        last = task.retry.limit + 1
        for attempt in range(1, last + 1):
            lease = await self._or_cancelled(self.slots.acquire(container.memory, container.gpus))
            if lease is None:
                break
            try:
                values, ended = await self._attempt(name, before + attempt, component, container, inputs, key, lease)
            finally:
                self.slots.release(lease)
            if values is not None:
                self.log.append("task_finished", task=name, state="SUCCEEDED", exit=0, outputs=values.as_json())
                if self.cache is not None and task.cache:
                    self.cache.put(key, f"{self.folder.id}/{name}", values.as_json())
                return Outcome("SUCCEEDED", values)
            if self.cancelled.is_set():
                self.log.append("task_finished", task=name, state="CANCELLED", exit=ended.exit, reason="cancelled")
                return Outcome("CANCELLED")
            if attempt == last or ended.final:
                self.log.append("task_finished", task=name, state="FAILED", exit=ended.exit, reason=ended.reason)
                return Outcome("FAILED")
            delay = task.retry.before(attempt + 1)
            self.log.append("task_retrying", task=name, exit=ended.exit, reason=ended.reason, delay=delay)
            await self._or_cancelled(asyncio.sleep(delay))
            if self.cancelled.is_set():
                break
        self.log.append("task_skipped", task=name, state="CANCELLED", reason="cancelled")
        return Outcome("CANCELLED")

    async def _known(self, name: str, task: TaskSpec, key: str) -> Outcome | None:
        """The outcome of an earlier execution of this run, or of any run that did the same."""
        recorded = self.log.state.tasks.get(name)
        outputs = recorded.outputs if recorded is not None else None
        done = recorded is not None and recorded.state in DONE and recorded.key == key
        if done and outputs is not None and await self._in_thread(intact, outputs):
            return Outcome("SUCCEEDED", Values.of(outputs))
        if self.cache is None or not task.cache:
            return None
        entry = await self._in_thread(self.cache.get, key)
        if entry is None:
            return None
        self.log.append("task_cached", task=name, key=key, source=entry["source"], outputs=entry["outputs"])
        return Outcome("SUCCEEDED", Values.of(entry["outputs"]))

    async def _attempt(
        self, name: str, number: int, component: Component, container: Container, inputs: Values, key: str, lease: Lease
    ) -> tuple[Values | None, _Ended]:
        if changed := await self._in_thread(self._changed_inputs, inputs):
            return None, _Ended(1, f"not started: another step wrote into its input {changed}", final=True)
        try:
            secret = secrets.resolve(container.secrets)
        except RunError as error:
            return None, _Ended(1, f"not started: {error}", final=True)
        executor_input = self._prepare(name, component, inputs)
        command = self._command(name, container, executor_input)
        environment = process.step_environment({**self.environment, **container.env, "RML_TASK": name})
        # What another step's secret is called is no variable of this one, whoever set it.
        environment = {k: v for k, v in environment.items() if k not in container.secrets.hidden} | secret
        if "--code" in container.args[:-1]:
            lines = self.folder.lines(container.args[container.args.index("--code") + 1])
            if lines.is_file():
                environment["RML_LINES"] = str(lines)
        if self.slots.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, lease.gpus))
        log = self.folder.log(name)
        if number > 1:
            with log.open("a", encoding="utf-8") as stream:
                stream.write(f"--- attempt {number} ---\n")
        try:
            child = process.start(command, environment, log, self.folder.task(name) / "work")
        except OSError as error:
            return None, _Ended(127, f"could not start {command[0]}: {error}")
        who = process.identity_of(child.pid) or process.Identity(child.pid, "gone")
        self.log.append("task_started", task=name, attempt=number, pid=who.pid, identity=who.started, key=key)
        ended = await self._wait(child, who, container.timeout)
        if changed := await self._in_thread(self._changed_inputs, inputs):
            why = (
                f"its input {changed} was written to while it ran. Inputs belong to the step that made them and to every step "
                "that reads them: write into a new rml.Dataset() instead"
            )
            return None, _Ended(ended.exit, why, final=True)
        if ended.reason:
            return None, ended
        try:
            values = await self._in_thread(_read_outputs, component, executor_input)
        except (OSError, ValueError, KeyError) as error:
            return None, _Ended(0, f"ended well but left no readable outputs: {type(error).__name__}: {error}")
        return values, ended

    async def _wait(self, child: subprocess.Popen[bytes], who: process.Identity, timeout: float) -> _Ended:
        """Until the process ends, its time is up or the run is cancelled; then nothing it started is left."""
        exited = asyncio.ensure_future(self._in_thread(child.wait))
        stop = asyncio.ensure_future(self.cancelled.wait())
        await asyncio.wait({exited, stop}, timeout=timeout or None, return_when=asyncio.FIRST_COMPLETED)
        reason = ""
        if not exited.done():
            reason = "cancelled" if self.cancelled.is_set() else f"ran longer than its time-out of {timeout:g} s"
            await self._in_thread(process.end_tree, who, self.grace)
        stop.cancel()
        code: int = await exited
        if not reason:
            # A step is over when its process is: what it left running would write into the next step's inputs.
            await self._in_thread(process.end_tree, who, self.grace)
        return _Ended(code, reason or _why(code))

    def _changed_inputs(self, inputs: Values) -> str:
        """The names of artifacts that are no longer what this execution saw first: what read them must not be believed."""
        changed = []
        for name, listed in inputs.artifacts.items():
            for artifact in listed:
                uri = str(artifact["uri"])
                stamp = tree_stamp(Path(uri))
                if self.stamps.setdefault(uri, stamp) != stamp:
                    changed.append(repr(name))
        return ", ".join(dict.fromkeys(changed))

    def _prepare(self, name: str, component: Component, inputs: Values) -> dict[str, Any]:
        """Clean folders for the outputs, and the executor input that names them."""
        work, artifacts = self.folder.task(name), self.folder.artifacts(name)
        shutil.rmtree(work, ignore_errors=True)
        shutil.rmtree(artifacts, ignore_errors=True)
        work.mkdir(parents=True)
        artifacts.mkdir(parents=True)
        given: dict[str, Any] = {}
        if inputs.parameters:
            given["parameterValues"] = inputs.parameters
        if inputs.artifacts:
            given["artifacts"] = {k: {"artifacts": [_runtime(a) for a in v]} for k, v in inputs.artifacts.items()}
        outputs: dict[str, Any] = {"outputFile": str(work / "executor_output.json")}
        if component.output_parameters:
            outputs["parameters"] = {k: {"outputFile": str(work / "outputs" / k)} for k in component.output_parameters}
        if component.output_artifacts:
            outputs["artifacts"] = {
                k: {"artifacts": [{"name": k, "type": d["artifactType"], "uri": str(artifacts / k), "metadata": {}}]}
                for k, d in component.output_artifacts.items()
            }
        executor_input = {"inputs": given, "outputs": outputs}
        (work / "executor_input.json").write_text(json.dumps(executor_input), "utf-8")
        return executor_input

    def _command(self, name: str, container: Container, executor_input: Mapping[str, Any]) -> list[str]:
        text = json.dumps(executor_input)
        if len(text.encode()) > _LONGEST_ARGUMENT and _STAGE0_MARK in container.args:
            text = f"@{self.folder.task(name) / 'executor_input.json'}"
        names = {
            "{{$.pipeline_job_name}}": self.folder.id,
            "{{$.pipeline_job_resource_name}}": self.folder.id,
            "{{$.pipeline_job_uuid}}": self.folder.id,
            "{{$.pipeline_task_name}}": name,
            "{{$.pipeline_task_uuid}}": name,
            "{{$.pipeline_root}}": str(self.folder.path / "artifacts"),
        }
        return resolve([*container.command, *container.args], executor_input, names, text)

    async def _or_cancelled(self, work: Any) -> Any:
        """The result of an awaitable, or None when the run is cancelled first."""
        task = asyncio.ensure_future(work)
        stop = asyncio.ensure_future(self.cancelled.wait())
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if task.done() and not self.cancelled.is_set():
            return task.result()
        if task.done():
            result = task.result()
            if isinstance(result, Lease):
                self.slots.release(result)
            return None
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return None

    async def _in_thread(self, function: Any, *arguments: Any) -> Any:
        """Waiting for a process and hashing files block; each running step needs at most two such threads.

        Not an executor: Python closes those as soon as a script's last line has run, when runs of `wait=False` go on.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()

        def work() -> None:
            try:
                settle, result = done.set_result, function(*arguments)
            except BaseException as error:
                settle, result = done.set_exception, error
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(lambda: done.done() or settle(result))

        threading.Thread(target=work, name="rml-step", daemon=True).start()
        return await done


def _read_outputs(component: Component, executor_input: Mapping[str, Any]) -> Values:
    """The executor output, or the output parameters' files; artifacts with the digest of what they hold."""
    declared = executor_input["outputs"]
    file = Path(declared["outputFile"])
    said = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    values = Values()
    for name, kind in component.output_parameters.items():
        given = said.get("parameterValues") or {}
        value = given[name] if name in given else _from_file(declared["parameters"][name]["outputFile"], kind)
        values.parameters[name] = coerce(value, kind)
    for name in component.output_artifacts:
        artifact = dict(declared["artifacts"][name]["artifacts"][0])
        for reported in (said.get("artifacts") or {}).get(name, {}).get("artifacts") or []:
            artifact.update({k: reported[k] for k in ("uri", "metadata") if k in reported})
        path = Path(artifact["uri"])
        if not path.exists():
            path.mkdir(parents=True)  # metadata alone is an artifact too
        values.artifacts[name] = [{**artifact, "digest": tree_digest(path)}]
    return values


def _from_file(path: str, kind: str) -> Any:
    text = Path(path).read_text("utf-8")
    if kind == "STRING":
        return text
    return json.loads(text.lower() if kind == "BOOLEAN" else text)


def _runtime(artifact: Mapping[str, Any]) -> dict[str, Any]:
    """A KFP runtime artifact: the record's digest is ours."""
    return {k: v for k, v in artifact.items() if k != "digest"}


def _why(code: int) -> str:
    if code == 0:
        return ""
    if code > 0:
        return f"exit code {code}"
    hint = ", perhaps for lack of memory" if code == -9 else ""
    return f"ended by signal {-code}{hint}"
