"""Tracing: run the pipeline's function once, with stand-ins for values, and write down what it calls.

`trace(pipeline)` gives the graph and every finding. A trace never stops at the first mistake; it stops early only when
going on would loop for ever (a Python `while` on an output).
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from ..errors import Finding, GraphError
from . import interface as interfaces
from .arguments import Binder
from .handles import Comparison, Handle, Nothing, Outputs, Unknown, Value
from .model import Channel, Component, Condition, Constant, Graph, Scope, Task, task_name
from .types import ArtifactType, ParameterType, fits, to_constant
from .where import Site, here, of_function

if TYPE_CHECKING:
    from .step import Step

__all__ = ["Trace", "current", "trace"]

_current: ContextVar[Trace | None] = ContextVar("rml_trace", default=None)
# The same line misusing outputs this often is a loop that would never end.
_RUNAWAY = 100


def current() -> Trace | None:
    """The trace in progress, if any: what makes `step(...)` draw a task instead of running."""
    return _current.get()


class Trace:
    """One pipeline function being traced."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        parameters, findings = interfaces.read(function, pipeline=True)
        site = of_function(function)
        self.graph = Graph(name, parameters, Scope("root", "root", None, site), site=site)
        self.findings: list[Finding] = findings
        self.scope = self.graph.root
        self.active = False
        self._function = function
        self._names: set[str] = set()
        self._components: dict[Any, Component] = {}
        self._component_counts: Counter[str] = Counter()
        self._name_counts: Counter[str] = Counter()
        self._group_counts: Counter[str] = Counter()
        self._comparisons: list[Comparison] = []
        self._misuses: Counter[tuple[str, int, int]] = Counter()
        self._closed: dict[Scope, Scope] = {}
        self._datasets: dict[tuple[str, int | None], Any] = {}
        self._bind = Binder(self)

    # --- running -------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Call the pipeline's function with a stand-in for each parameter."""
        arguments: dict[str, Any] = {
            i.name: Value(self, Channel("parameter", i.name, i.type), None) for i in self.graph.parameters.inputs
        }
        for name, parameter in inspect.signature(self._function).parameters.items():
            # A parameter with a finding of its own still needs something to stand for it.
            if name not in arguments and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                arguments[name] = Unknown(self)
        token = _current.set(self)
        self.active = True
        try:
            self._function(**arguments)
        except GraphError as error:
            self.findings.extend(f for f in error.findings if f not in self.findings)
        except Exception:
            # With findings at hand the exception is most likely their echo; without, it is the user's own.
            if not self.findings:
                raise
        finally:
            self.active = False
            _current.reset(token)
        for comparison in self._comparisons:
            if not comparison.used:
                self._unused(comparison)

    # --- adding to the graph -------------------------------------------------------------------------------------

    def call(self, step: Step[Any, Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """`step(...)` in a pipeline: one task."""
        site = here()
        return self.add(self.component_of(step), args, kwargs, site, self.scope)

    def add(
        self,
        component: Component,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        site: Site,
        scope: Scope,
        name: str = "",
    ) -> Any:
        """A task of a component, with the stand-in(s) for its outputs."""
        task = Task(self._unique(name or component.name), component, scope, site)
        task.arguments = self._bind.call(component, args, kwargs, site)
        scope.members.append(task)
        self.graph.tasks.append(task)
        return self._result(task, component, lambda o: Channel("output", o.name, o.type, task))

    def map(self, step: Step[Any, Any], items: Any, over: str | None, fixed: Mapping[str, Any]) -> Any:
        """`step.map(items, …)`: a loop with one task, whose outputs come out as lists."""
        site = here()
        component = self.component_of(step)
        chosen = over or next((name for name in component.interface.names if name not in fixed), None)
        target = component.interface.input(chosen) if chosen else None
        if target is None and chosen in component.interface.names:
            return Unknown(self)
        if target is None:
            self.find(self._bind.no_such_input(component, over, site))
            return Unknown(self)
        bound = self._bind.items(component, target, items, site)
        self._group_counts["for-loop"] += 1
        loop = Scope("loop", f"for-loop-{self._group_counts['for-loop']}", self.scope, site, items=bound)
        loop.item = Channel("item", target.name, target.type, loop)
        task = Task(self._unique(component.name), component, loop, site)
        task.arguments = self._bind.call(component, (), fixed, site, given={target.name: loop.item})
        loop.members.append(task)
        self.scope.members.append(loop)
        self.graph.tasks.append(task)

        def collected(output: interfaces.Output) -> Channel:
            if isinstance(output.type, ArtifactType):
                return Channel("collected", output.name, ArtifactType(output.type.kfp, many=True), loop)
            return Channel("collected", output.name, ParameterType("LIST", output.type), loop)

        return self._result(loop, component, collected)

    def _result(self, node: Task | Scope, component: Component, channel: Callable[[interfaces.Output], Channel]) -> Any:
        outputs, faulty = component.interface.outputs, component.interface.faulty_outputs
        if component.interface.named:
            values: dict[str, Any] = {o.name: Value(self, channel(o), node) for o in outputs}
            return Outputs(self, node, {**values, **{name: Unknown(self) for name in faulty}})
        if faulty:
            return Unknown(self)
        if outputs:
            return Value(self, channel(outputs[0]), node)
        return Nothing(self, node)

    def component_of(self, step: Step[Any, Any]) -> Component:
        """The step's component; read (and checked) once per trace."""
        known = self._components.get(step)
        if known is None:
            read, findings = step.read()
            self.findings.extend(findings)
            known = self.adopt(step, task_name(step.__name__), read.interface, read.options, step.function)
        return known

    def adopt(
        self,
        key: Any,
        base: str,
        interface: interfaces.Interface,
        options: Any,
        function: Any,
        entry: str | None = None,
        imports: frozenset[str] = frozenset(),
        carries: tuple[str, ...] = (),
    ) -> Component:
        """A component under a name of its own (two different steps may both be called `train`)."""
        if key in self._components:
            return self._components[key]
        self._component_counts[base] += 1
        count = self._component_counts[base]
        name = base if count == 1 else f"{base}-{count}"
        while name in self.graph.components:
            count += 1
            name = f"{base}-{count}"
        component = Component(name, interface, options, function, entry, imports, carries)
        self._components[key] = component
        self.graph.components[name] = component
        return component

    def _unique(self, base: str) -> str:
        self._name_counts[base] += 1
        count = self._name_counts[base]
        name = base if count == 1 else f"{base}-{count}"
        while name in self._names:
            count += 1
            name = f"{base}-{count}"
        self._name_counts[base] = count
        self._names.add(name)
        return name

    def dataset(self, name: str, version: int | None, make: Callable[[], Any]) -> Any:
        """One task per data set and version, in the root (it reads nothing, so every scope may use it)."""
        key = (name, version)
        if key not in self._datasets:
            self._datasets[key] = make()
        return self._datasets[key]

    # --- order and conditions ------------------------------------------------------------------------------------

    def order(self, handle: Handle, others: Sequence[Any]) -> None:
        """`handle.after(*others)`."""
        site = here()
        for other in others:
            node = other._node if isinstance(other, Handle) else None
            if isinstance(other, Unknown):
                continue
            if node is None or handle._node is None:
                what = "a pipeline parameter" if isinstance(other, Handle) else type(other).__name__
                self.find(
                    Finding(
                        "order-without-task",
                        f".after() got {what}",
                        str(site),
                        "order is between tasks",
                        "pass what another step returned in this pipeline",
                        site.source(),
                    )
                )
            elif other._trace is not self:
                self.find(self._bind.foreign(other, site))
            else:
                handle._node.after.append(node)

    def comparison(self, handle: Handle, operator: str, other: Any) -> Any:
        """`output > 10` while tracing."""
        site = here()
        if not self.active and operator in ("==", "!="):
            # Outside a pipeline a stand-in is an ordinary object: equal to itself only (so that `in` and sets work).
            return (handle is other) == (operator == "==")
        problem = self._comparison_problem(handle, operator, other)
        if isinstance(other, Unknown):
            return Unknown(self)
        if problem:
            message, fix = problem
            self.misuse(
                Finding(
                    "bad-comparison", message, str(site), "KFP conditions compare JSON scalars", fix, site.source()
                ),
                site,
            )
            return Unknown(self)
        assert isinstance(handle, Value)
        if isinstance(other, Value):
            comparison = Comparison(self, handle, handle._channel, operator, other._channel, site)
        else:
            comparison = Comparison(self, handle, handle._channel, operator, Constant(other), site)
        self._comparisons.append(comparison)
        return comparison

    def _comparison_problem(self, handle: Handle, operator: str, other: Any) -> tuple[str, str] | None:
        fix = "return the number, text or bool to compare from a step as a parameter output"
        if not isinstance(handle, Value):
            return f"a comparison of {handle._shown()}, which is not one value", fix
        kind = handle._channel.type
        if isinstance(kind, ArtifactType) or kind.kfp in ("LIST", "STRUCT"):
            return f"a comparison of {handle._shown()}, which is {kind}", fix
        if isinstance(other, Value):
            right = other._channel.type
            if fits(right, kind) or fits(kind, right):
                return None
            return f"{handle._shown()} ({kind}) compared with {other._shown()} ({right})", "compare equal types"
        if isinstance(other, Handle):
            return None
        try:
            to_constant(other, kind)
        except ValueError as error:
            numeric = isinstance(other, float) and kind.kfp == "NUMBER_INTEGER"
            if not numeric:
                return f"{handle._shown()} ({kind}) compared with something else: {error}", f"compare it with {kind}"
        if kind.kfp == "BOOLEAN" and operator not in ("==", "!="):
            return f"{operator} on the bool {handle._shown()}", "use == True or == False"
        return None

    def open_condition(self, condition: Any, site: Site) -> Scope:
        """Enter `with rml.when(condition):`."""
        scope = self._group("condition", site)
        if isinstance(condition, Comparison):
            condition.used = True
            scope.condition = Condition(condition.left, condition.operator, condition.right)
        elif isinstance(condition, Value) and condition._channel.type == ParameterType("BOOLEAN"):
            scope.condition = Condition(condition._channel, "==", Constant(True))
        elif not isinstance(condition, Unknown):
            shown = condition._shown() if isinstance(condition, Handle) else repr(condition)
            self.find(
                Finding(
                    "bad-condition",
                    f"rml.when() got {shown}",
                    str(site),
                    "a condition is decided while the pipeline runs, from a step's output or a pipeline parameter",
                    "write rml.when(output > 10), or rml.when(flag) for a bool; decide constants with a Python `if`",
                    site.source(),
                )
            )
        self.scope = scope
        return scope

    def open_otherwise(self, site: Site) -> Scope:
        """Enter `with rml.otherwise():`, the negation of the last rml.when in this scope."""
        before = self._closed.pop(self.scope, None)
        scope = self._group("condition", site)
        if before is None:
            self.find(
                Finding(
                    "otherwise-without-when",
                    "rml.otherwise() without an rml.when() before it",
                    str(site),
                    "it is the other branch of the condition just above it, at the same indentation",
                    "write `with rml.when(condition):` first",
                    site.source(),
                )
            )
        elif before.condition is not None:
            condition = before.condition
            scope.condition = Condition(condition.left, condition.operator, condition.right, negate=True)
        self.scope = scope
        return scope

    def close(self, scope: Scope, *, otherwise: bool = False) -> None:
        """Leave a condition."""
        assert scope.parent is not None
        self.scope = scope.parent
        if not otherwise:
            self._closed[scope.parent] = scope
        if not scope.members:
            scope.parent.members.remove(scope)

    def _group(self, kind: str, site: Site) -> Scope:
        self._group_counts[kind] += 1
        scope = Scope(kind, f"{kind}-{self._group_counts[kind]}", self.scope, site)
        self.scope.members.append(scope)
        return scope

    # --- findings ------------------------------------------------------------------------------------------------

    def find(self, finding: Finding) -> None:
        """Keep a finding; the same one twice is one."""
        if finding not in self.findings:
            self.findings.append(finding)

    def misuse(self, finding: Finding, site: Site) -> None:
        """A stand-in used as a value: a finding, or an error when the trace is over or runs away."""
        if not self.active:
            raise GraphError(finding)
        self.find(finding)
        place = (site.filename, site.line, site.instruction)
        self._misuses[place] += 1
        if self._misuses[place] > _RUNAWAY:
            raise GraphError(finding)

    def _unused(self, comparison: Comparison) -> None:
        self.find(
            Finding(
                "comparison-outside-when",
                f"the comparison {comparison.left} {comparison.operator} … is not used as a condition",
                str(comparison.site),
                "a comparison of a value known only when the pipeline runs decides nothing by itself",
                "write `with rml.when(comparison):`, or compare inside a step and return a bool",
                comparison.site.source(),
            )
        )


def trace(name: str, function: Callable[..., Any]) -> tuple[Graph, list[Finding]]:
    """The graph of a pipeline function, and everything that was wrong while it was drawn."""
    tracing = Trace(name, function)
    tracing.run()
    return tracing.graph, tracing.findings
