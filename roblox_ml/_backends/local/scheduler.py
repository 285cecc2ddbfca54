"""Walk the DAG: every task as soon as what it waits for is done, nested DAGs, loops and conditions included.

Structured: a DAG is a set of coroutines, each waits for its predecessors' outcomes and returns its own. A failure
stops who depends on it and nobody else; so does a condition that is false.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from ...errors import RunError
from . import cel
from .flow import Missing, Outcome, Values, coerce, collect, task_inputs, with_defaults
from .names import Names
from .record import EventLog
from .spec import Component, Iteration, PipelineSpec, TaskSpec
from .steps import StepRunner

__all__ = ["Scheduler"]

_Path = tuple[str, ...]
_Indices = tuple[int, ...]


class Scheduler:
    """One execution of a pipeline. `run` returns the root DAG's outcome."""

    def __init__(self, spec: PipelineSpec, log: EventLog, steps: StepRunner) -> None:
        self.spec = spec
        self.log = log
        self.steps = steps
        self.names = Names(spec)

    async def run(self, arguments: Mapping[str, Any]) -> Outcome:
        scope = with_defaults(self.spec.root, Values(dict(arguments)))
        return await self._dag(self.spec.root, scope, (), ())

    async def _dag(self, component: Component, scope: Values, path: _Path, indices: _Indices) -> Outcome:
        running: dict[str, asyncio.Task[Outcome]] = {}
        ready = asyncio.Event()

        async def one(task: TaskSpec) -> Outcome:
            await ready.wait()
            before = {name: await running[name] for name in task.after}
            try:
                return await self._task(task, scope, before, path, indices)
            except RunError as error:
                return self._refuse(self.spec.components[task.component], (*path, task.name), indices, str(error))

        for name, task in component.tasks.items():
            running[name] = asyncio.ensure_future(one(task))
        ready.set()
        outcomes = {name: await work for name, work in running.items()}
        states = {outcome.state for outcome in outcomes.values()}
        for state in ("CANCELLED", "FAILED"):
            if state in states:
                return Outcome(state)
        return Outcome("SUCCEEDED", collect(component, outcomes))

    async def _task(
        self, task: TaskSpec, scope: Values, before: Mapping[str, Outcome], path: _Path, indices: _Indices
    ) -> Outcome:
        component = self.spec.components[task.component]
        here = (*path, task.name)
        # A failed predecessor stops a task unless it is declared to run whatever happens.
        stopped = [name for name, outcome in before.items() if outcome.state != "SUCCEEDED"]
        if stopped and not task.always:
            return self._skip(component, here, indices, f"{stopped[0]} {_ending(before[stopped[0]].state)}")
        try:
            inputs = task_inputs(task, component, scope, before)
            if task.condition and not cel.evaluate(task.condition, inputs.parameters):
                return self._skip(component, here, indices, f"condition is false: {_readable(task.condition)}")
        except Missing as missing:
            return self._skip(component, here, indices, f"its input {missing} has no value")
        if task.iteration is not None:
            return await self._loop(task, task.iteration, component, inputs, here, indices)
        return await self._once(task, component, inputs, here, indices)

    async def _once(
        self, task: TaskSpec, component: Component, inputs: Values, path: _Path, indices: _Indices
    ) -> Outcome:
        if component.container is None:
            return await self._dag(component, inputs, path, indices)
        return await self.steps.run(self.names.of(path, indices), task, component, inputs)

    async def _loop(
        self, task: TaskSpec, loop: Iteration, component: Component, inputs: Values, path: _Path, indices: _Indices
    ) -> Outcome:
        items = inputs.parameters[loop.source] if loop.source is not None else loop.items
        if not isinstance(items, list | tuple):
            raise RunError(f"{task.name} loops over {items!r:.80}, which is not a list")
        known = component.parameters.get(loop.item)
        tasks = [name for i in range(len(items)) for name in self.names.below(component, path, (*indices, i))]
        self.log.append("loop_started", task=self.names.of(path, indices), count=len(items), tasks=tasks)
        gate = asyncio.Semaphore(loop.limit or max(1, len(items)))

        async def one(index: int, item: Any) -> Outcome:
            value = coerce(item, known.kind) if known is not None else item
            given = Values({**inputs.parameters, loop.item: value}, inputs.artifacts)
            async with gate:
                return await self._once(task, component, given, path, (*indices, index))

        outcomes = await asyncio.gather(*(one(index, item) for index, item in enumerate(items)))
        for state in ("CANCELLED", "FAILED"):
            if any(outcome.state == state for outcome in outcomes):
                return Outcome(state)
        return Outcome("SUCCEEDED", _gathered(component, outcomes))

    def _refuse(self, component: Component, path: _Path, indices: _Indices, reason: str) -> Outcome:
        """A task whose IR makes no sense with these values (a condition on a list, a loop over a number)."""
        for name in self.names.all_below(component, path, indices):
            self.log.append("task_finished", task=name, state="FAILED", reason=reason)
        return Outcome("FAILED")

    def _skip(self, component: Component, path: _Path, indices: _Indices, reason: str) -> Outcome:
        state = "CANCELLED" if self.steps.cancelled.is_set() else "SKIPPED"
        for name in self.names.all_below(component, path, indices):
            self.log.append("task_skipped", task=name, state=state, reason=reason)
        return Outcome("SKIPPED")


def _gathered(component: Component, outcomes: list[Outcome]) -> Values:
    """Fan-in: lists in the order of the items, whatever the order they finished in."""
    values = Values()
    for name in component.output_parameters:
        values.parameters[name] = [o.values.parameters[name] for o in outcomes if name in o.values.parameters]
    for name in component.output_artifacts:
        values.artifacts[name] = [a for o in outcomes for a in o.values.artifacts.get(name, ())]
    return values


def _ending(state: str) -> str:
    return {"FAILED": "failed", "SKIPPED": "was skipped", "CANCELLED": "was cancelled"}.get(state, state.lower())


def _readable(condition: str) -> str:
    """A condition with the reader in mind: `count-Output > 10`."""
    return condition.replace("inputs.parameter_values['", "").replace("']", "").replace("pipelinechannel--", "")
