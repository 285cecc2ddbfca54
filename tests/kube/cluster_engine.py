"""Runs a compiled pipeline on a cluster, one Pod a task: the driver's part, for tests.

The order of tasks, their inputs, conditions and loops come from the IR through the local executor's own scheduler; what
differs is what a step is: a Pod as `pods.executor_pod` makes it, its outputs read from the object store. It is also an
engine for the contract server of tests/contract/kfp (`start`, `cancel`, `retry`).
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from kubernetes import client
from kubernetes.client.exceptions import ApiException
from pods import executor_pod

from roblox_ml._backends.local.flow import Outcome, Values, coerce
from roblox_ml._backends.local.scheduler import Scheduler
from roblox_ml._backends.local.spec import Component, TaskSpec, load
from roblox_ml._s3 import Bucket

_LOOK = 0.3


@dataclass(frozen=True)
class Cluster:
    """An API client, a namespace of our own, the step image, and an S3 server both sides reach."""

    api: Any
    namespace: str
    image: str
    bucket: str
    s3: dict[str, str]
    host: str | None

    @property
    def store(self) -> str:
        return f"s3://{self.bucket}/rml-{self.namespace}"


@dataclass
class Step:
    """What became of one task's pod."""

    state: str = "PENDING"
    pod: str = ""
    seconds: float = 0.0
    log: str = ""
    why: str = ""
    outputs: dict[str, Any] = field(default_factory=dict)


class ClusterRun:
    """One run of a compiled pipeline in `namespace`; artifacts go below `s3://bucket/v2/artifacts`."""

    def __init__(self, api: Any, namespace: str, bucket: str, ir: bytes, say: Callable[[str], None] = print) -> None:
        documents = [d for d in yaml.safe_load_all(ir) if d]
        self.pipeline: dict[str, Any] = documents[0]
        platform = documents[1] if len(documents) > 1 else {}
        self.platform: dict[str, Any] = (
            platform.get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {}).get("executors", {})
        )
        self.spec = load(ir)
        self.api, self.namespace, self.bucket, self.say = api, namespace, bucket, say
        self.id = str(uuid.uuid4())
        self.steps: dict[str, Step] = {}
        self.on_step: Callable[[str, Step], None] = lambda name, step: None
        self.cancelled = False
        self._starts = 0

    def run(self, arguments: Mapping[str, Any] | None = None) -> str:
        """Until every task has ended; the run's state."""
        self._starts += 1
        state = asyncio.run(self._drive(dict(arguments or {}))).state
        return "CANCELLED" if self.cancelled else state

    def cancel(self) -> None:
        """Start nothing more and end the pods that run; from any thread."""
        self.cancelled = True
        for step in list(self.steps.values()):
            if step.state == "RUNNING":
                self.api.delete_namespaced_pod(step.pod, self.namespace, grace_period_seconds=0)

    async def _drive(self, arguments: dict[str, Any]) -> Outcome:
        runner = _PodRunner(self)
        return await Scheduler(self.spec, _Record(self), runner).run(arguments)  # type: ignore[arg-type]


class _Record:
    """The scheduler's record: pods keep their own, what is left out has none."""

    def __init__(self, run: ClusterRun) -> None:
        self.owner = run

    def append(self, kind: str, **facts: Any) -> None:
        if kind == "task_skipped":
            self.owner.on_step(facts["task"], Step("SKIPPED", why=str(facts.get("reason") or "")))


class _PodRunner:
    """What the scheduler asks of steps: run one, and say how it ended."""

    def __init__(self, run: ClusterRun) -> None:
        self.owner = run
        self.cancelled = asyncio.Event()

    async def run(self, name: str, task: TaskSpec, component: Component, inputs: Values) -> Outcome:
        known = self.owner.steps.get(name)
        if known is not None and known.state == "SUCCEEDED":  # of an earlier start of this run
            return Outcome("SUCCEEDED", Values(known.outputs["parameters"], known.outputs["artifacts"]))
        outcome = Outcome("CANCELLED")
        for attempt in range(task.retry.limit + 1):
            if self.owner.cancelled:
                return Outcome("CANCELLED")
            outcome = await asyncio.to_thread(self._attempt, name, attempt, task, component, inputs)
            if outcome.state == "SUCCEEDED":
                break
        return outcome

    def _attempt(self, name: str, attempt: int, task: TaskSpec, component: Component, inputs: Values) -> Outcome:
        owner = self.owner
        described = owner.pipeline["components"][component.name]
        label = described["executorLabel"]
        container = owner.pipeline["deploymentSpec"]["executors"][label]["container"]
        place = f"{owner.bucket}/v2/artifacts/{owner.spec.name}/{owner.id}/{task.name}/{uuid.uuid4()}"
        executor_input = _executor_input(place, component, inputs)
        pod_name = re.sub(
            r"[^a-z0-9-]+", "-", f"{owner.spec.name}-{name}-{owner.id[:5]}-{owner._starts}-{attempt}".lower()
        ).strip("-")[:63]
        body = executor_pod(
            pod_name, container, owner.platform.get(label) or {}, executor_input, described,
            pipeline=owner.spec.name, run_id=owner.id,
        )  # fmt: skip
        step = owner.steps.setdefault(name, Step())
        step.pod, step.state, started = pod_name, "RUNNING", time.monotonic()
        owner.api.create_namespaced_pod(owner.namespace, body)
        owner.on_step(name, step)
        phase, step.why = self._wait(pod_name)
        step.seconds = time.monotonic() - started
        step.log = self._log(pod_name)
        step.state = "SUCCEEDED" if phase == "Succeeded" else "FAILED"
        owner.say(f"{name}: {step.state} after {step.seconds:.1f} s {step.why}")
        if step.state == "SUCCEEDED":
            step.outputs = _read(place, component, executor_input)
        owner.on_step(name, step)
        if step.state == "FAILED":
            return Outcome("FAILED")
        return Outcome("SUCCEEDED", Values(step.outputs["parameters"], step.outputs["artifacts"]))

    def _wait(self, pod: str) -> tuple[str, str]:
        """(phase, why it did not end well). A pod that can never start is ended here, as a person would."""
        while True:
            try:
                status = self.owner.api.read_namespaced_pod(pod, self.owner.namespace).status
            except ApiException as error:
                if error.status != 404:
                    raise
                return "Failed", "the pod was deleted"
            if status.phase in ("Succeeded", "Failed"):
                return status.phase, status.reason or ""
            for one in [*(status.init_container_statuses or []), *(status.container_statuses or [])]:
                waiting = one.state.waiting
                if waiting and waiting.reason in (
                    "CreateContainerConfigError",
                    "ErrImageNeverPull",
                    "ImagePullBackOff",
                    "CreateContainerError",
                    "RunContainerError",
                ):
                    return "Failed", f"{waiting.reason}: {waiting.message}"
            time.sleep(_LOOK)

    def _log(self, pod: str) -> str:
        try:
            return str(self.owner.api.read_namespaced_pod_log(pod, self.owner.namespace, container="main"))
        except ApiException as error:
            return f"(no log: {error.reason})"


def _executor_input(place: str, component: Component, inputs: Values) -> dict[str, Any]:
    """What the driver of 2.17 hands to the launcher, field by field as recorded."""
    given: dict[str, Any] = {}
    if inputs.parameters:
        given["parameterValues"] = inputs.parameters
    if inputs.artifacts:
        given["artifacts"] = {name: {"artifacts": listed} for name, listed in inputs.artifacts.items()}
    outputs: dict[str, Any] = {"outputFile": f"/minio/{place}/output_metadata.json"}
    if component.output_parameters:
        outputs["parameters"] = {n: {"outputFile": f"/tmp/kfp/outputs/{n}"} for n in component.output_parameters}
    if component.output_artifacts:
        outputs["artifacts"] = {
            name: {"artifacts": [{"name": name, "type": declared["artifactType"], "uri": f"minio://{place}/{name}"}]}
            for name, declared in component.output_artifacts.items()
        }
    return {"inputs": given, "outputs": outputs}


def _read(place: str, component: Component, executor_input: Mapping[str, Any]) -> dict[str, Any]:
    """A finished task's outputs: parameters from their files, artifacts with the metadata the step gave them."""
    bucket, _, prefix = place.partition("/")
    with Bucket(bucket).get(f"{prefix}/executor_output.json") as stream:
        said = json.loads(stream.read())
    parameters = {}
    for name, text in said["parameterFiles"].items():
        kind = component.output_parameters[name]
        parameters[name] = coerce(text if kind == "STRING" else json.loads(text), kind)
    artifacts = {}
    for name, listed in (executor_input["outputs"].get("artifacts") or {}).items():
        told = ((said.get("artifacts") or {}).get(name) or {}).get("artifacts") or [{}]
        artifacts[name] = [{**listed["artifacts"][0], "metadata": told[0].get("metadata") or {}}]
    return {"parameters": parameters, "artifacts": artifacts}


class PodEngine:
    """Carries out the runs of the contract server (tests/contract/kfp/kfpserver) as pods."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.runs: dict[str, ClusterRun] = {}
        self._threads: list[threading.Thread] = []

    def start(self, run: Any) -> None:
        """A run was made: carry it out in the background."""
        documents = [run.pipeline, *([run.platform] if run.platform else [])]
        ours = ClusterRun(
            self.cluster.api, self.cluster.namespace, self.cluster.bucket, yaml.safe_dump_all(documents).encode()
        )
        ours.id = run.run_id
        self.runs[run.run_id] = ours
        self._go(run, ours)

    def cancel(self, run_id: Any) -> None:
        """Asked to stop."""
        self.runs[getattr(run_id, "run_id", run_id)].cancel()

    def retry(self, run: Any) -> None:
        """What failed, once more."""
        ours = self.runs[run.run_id]
        ours.steps = {name: step for name, step in ours.steps.items() if step.state == "SUCCEEDED"}
        self._go(run, ours)

    def join(self) -> None:
        """Until nothing runs."""
        for thread in self._threads:
            thread.join(120)

    def _go(self, run: Any, ours: ClusterRun) -> None:
        def told(name: str, step: Step) -> None:
            if step.log:
                run.log(name, step.log)
            run.report(name, step.state, step.why)

        def carry_out() -> None:
            run.begin() if run.state == "PENDING" else None
            state = ours.run(run.arguments)
            run.end({"CANCELLED": "CANCELED"}.get(state, state))

        ours.on_step = told
        thread = threading.Thread(target=carry_out, daemon=True)
        self._threads.append(thread)
        thread.start()


def core_api(kubeconfig: str) -> Any:
    """A client of the core API for this kubeconfig."""
    from kubernetes import config

    return client.CoreV1Api(config.new_client_from_config(kubeconfig))
