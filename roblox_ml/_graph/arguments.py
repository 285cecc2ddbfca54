"""Arguments of a call while tracing: bound to inputs, checked against their types, every mistake a finding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from .._artifacts import Artifact
from ..errors import Finding
from .handles import Comparison, Handle, Nothing, Outputs, Unknown, Value
from .interface import Input
from .model import Channel, Component, Constant, Graph
from .types import ArtifactType, ParameterType, fits, to_constant
from .where import Site, here

if TYPE_CHECKING:
    from .trace import Trace

__all__ = ["Binder", "check_arguments"]

Argument = Channel | Constant


class Binder:
    """Binds the arguments of one trace's calls."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace

    def call(
        self,
        component: Component,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        site: Site,
        given: Mapping[str, Argument] | None = None,
    ) -> dict[str, Argument]:
        """Arguments by input name. What is wrong becomes findings; `given` are bound already (a loop's item)."""
        inputs, names = component.interface.inputs, component.interface.names
        bound: dict[str, Argument] = dict(given or {})
        handled = set(bound)
        if len(args) > len(names):
            self._report(
                "too-many-arguments",
                f"{component.name} takes {len(names)} argument(s), got {len(args)}",
                site,
                f"its parameters are {', '.join(names) or 'none'}",
                "remove what is too much",
            )
        positional = dict(zip(names, args, strict=False))
        for name in kwargs:
            if name not in names:
                self._trace.find(self.no_such_input(component, name, site))
            elif name in positional or name in handled:
                self._report(
                    "argument-given-twice",
                    f"{component.name} gets {name!r} twice",
                    site,
                    "by position (or as the mapped item) and by name",
                    f"remove one of them, or say which parameter the items go to: over={name!r}"
                    if name in handled
                    else "remove one of them",
                )
        values = {**positional, **kwargs}
        for declared in inputs:
            if declared.name in handled:
                continue
            if declared.name in values:
                argument = self._argument(component, declared, values[declared.name], site)
                if argument is not None:
                    bound[declared.name] = argument
            elif not declared.optional:
                self._report(
                    "missing-argument",
                    f"{component.name} needs {declared.name!r} ({declared.type})",
                    site,
                    "it has no default",
                    f"pass {declared.name}=…",
                )
        return bound

    def items(self, component: Component, target: Input, items: Any, site: Site) -> Argument | None:
        """What a fan-out runs over: a literal list, or an output or parameter that is a list."""
        label = f"{component.name}.map()"
        if isinstance(items, Unknown):
            return None
        if isinstance(target.type, ArtifactType):
            self._report(
                "map-over-artifacts",
                f"{label} would run over {target.name!r}, which is {target.type}",
                site,
                "a fan-out runs over JSON values (numbers, names, settings)",
                "map over a list of names or shard numbers (over=…) and pass the artifact as a fixed argument",
            )
            return None
        if isinstance(items, Value):
            kind = items._channel.type
            if isinstance(kind, ArtifactType) or kind.kfp != "LIST":
                self._report(
                    "wrong-type",
                    f"{label} runs over {items._shown()}, which is {kind}",
                    site,
                    "a fan-out needs a list",
                    f"return list[{target.type}] from the step",
                )
                return None
            if kind.item is not None and not fits(kind.item, target.type):
                self._report(
                    "wrong-type",
                    f"{label}: the items of {items._shown()} are {kind.item}, {target.name!r} is {target.type}",
                    site,
                    "each item becomes one call's argument",
                    "change one of the two annotations",
                )
                return None
            return self._own(items, site)
        if isinstance(items, str | bytes | Mapping | Handle) or not hasattr(items, "__iter__"):
            shown = items._shown() if isinstance(items, Handle) else type(items).__name__
            self._report(
                "wrong-type", f"{label} got {shown}", site, "a fan-out needs a list", f"write {label[:-1]}[1, 2, 3])"
            )
            return None
        return self._literal_items(label, target, list(items), site)

    def _literal_items(self, label: str, target: Input, items: list[Any], site: Site) -> Argument | None:
        assert isinstance(target.type, ParameterType)
        if not items:
            self._report("empty-map", f"{label} over an empty list", site, "nothing would run", "give it items")
            return None
        if any(isinstance(item, Handle) for item in items):
            self._list_of_outputs(label, site)
            return None
        constants = []
        for number, item in enumerate(items):
            try:
                constants.append(to_constant(item, target.type))
            except ValueError as error:
                self._report(
                    "wrong-type",
                    f"{label}, item {number}: {error}",
                    site,
                    f"each item becomes the argument {target.name!r}, which is {target.type}",
                    "change the item or the annotation",
                )
        return Constant(constants)

    def _argument(self, component: Component, declared: Input, value: Any, site: Site) -> Argument | None:
        label = f"{component.name}({declared.name}=…)"
        kind = declared.type
        if isinstance(value, Unknown):
            return None
        if isinstance(value, Value):
            channel = self._own(value, site)
            if channel is not None and not fits(channel.type, kind):
                self._report(
                    "wrong-type",
                    f"{label} is {kind}, got {value._shown()}, which is {channel.type}",
                    site,
                    "the types of an output and of the input it goes to must agree",
                    self._advice(channel, kind, declared.name),
                )
                return None
            return channel
        problem = self._refused(component, declared, value)
        if problem is not None:
            message, why, fix = problem
            self._report("wrong-type", f"{label}: {message}", site, why, fix)
            return None
        if value is None:
            if not declared.optional:
                self._report("wrong-type", f"{label} is {kind}, got None", site, "it is not optional", f"pass {kind}")
            return None
        if isinstance(value, list | tuple) and any(isinstance(item, Handle) for item in value):
            self._list_of_outputs(label, site)
            return None
        if isinstance(kind, ArtifactType):
            self._report(
                "wrong-type",
                f"{label} is {kind}, got {type(value).__name__}",
                site,
                "an artifact is a directory made by a step; a value cannot become one",
                'pass a step\'s output, or a stored data set: rml.dataset("name")',
            )
            return None
        try:
            return Constant(to_constant(value, kind))
        except ValueError as error:
            self._report(
                "wrong-type",
                f"{label} is {kind}: {error}",
                site,
                "parameters are JSON values of the declared type",
                f"pass {kind}, or change the annotation",
            )
            return None

    def _refused(self, component: Component, declared: Input, value: Any) -> tuple[str, str, str] | None:
        """Things that look like values and are not."""
        if isinstance(value, Outputs):
            choices = ", ".join(f".{name}" for name in value._values)
            return (
                f"got all outputs of {value._shown()}",
                "it returns several, and this input takes one",
                f"choose one: {choices}",
            )
        if isinstance(value, Nothing):
            return (
                f"got the result of {value._shown()}, which returns nothing",
                "there is no value to pass",
                "return one (and annotate it), or use .after(…) for order alone",
            )
        if isinstance(value, Comparison):
            value.used = True
            return (
                "got a comparison",
                "a comparison of run-time values is a condition for rml.when, not a value",
                "return the bool from a step",
            )
        if isinstance(value, Artifact):
            return (
                f"got a local {type(value).__name__}",
                "the run happens elsewhere and later; it cannot see an object of this process",
                'store it with rml.datasets.add("name", path) and pass rml.dataset("name")',
            )
        if hasattr(value, "__rml_step__"):
            return (
                f"got the step {value.__name__} itself",
                "a step's output exists after a call",
                f"call it: {value.__name__}(…)",
            )
        return None

    def _own(self, value: Value, site: Site) -> Channel | None:
        if value._trace is not self._trace:
            self._trace.find(self.foreign(value, site))
            return None
        return value._channel

    def foreign(self, value: Handle, site: Site) -> Finding:
        """An output of another pipeline."""
        return Finding(
            "foreign-output",
            f"{value._shown()} belongs to another pipeline (or an earlier trace of this one)",
            str(site),
            "outputs flow inside one run",
            "call the step in this pipeline, or register the result and load it by name",
            site.source(),
        )

    def no_such_input(self, component: Component, name: str | None, site: Site) -> Finding:
        """An argument the step does not have."""
        names = component.interface.names
        near = get_close_matches(name or "", names, n=1)
        what = f"no parameter {name!r}" if name else "no parameter left for the items"
        return Finding(
            "unknown-argument",
            f"{component.name} has {what}",
            str(site),
            f"its parameters are {', '.join(names) or 'none'}",
            f"did you mean {near[0]}=…?" if near else "remove it, or add the parameter to the step",
            site.source(),
        )

    def _list_of_outputs(self, label: str, site: Site) -> None:
        self._report(
            "list-of-outputs",
            f"{label} got a Python list of outputs",
            site,
            "KFP fans in from a fan-out only; a hand-made list of outputs has no place in its format",
            "make them with results = step.map([…]) and pass results, or give the step one parameter for each",
        )

    def _advice(self, channel: Channel, wanted: Any, name: str) -> str:
        kind = channel.type
        if isinstance(kind, ArtifactType) and isinstance(wanted, ArtifactType):
            if kind.many and not wanted.many:
                return f"annotate the parameter {name}: list[{ArtifactType(kind.kfp)}] to take all of them"
            if wanted.many:
                return "produce the list with step.map(items)"
            return f"pass an output that is {wanted}, or annotate the parameter {name}: {kind}"
        if channel.kind == "collected":
            return f"annotate the parameter {name}: {kind} to take all of them"
        return f"change the annotation of {name} to {kind}, or return {wanted} from the step"

    def _report(self, code: str, message: str, site: Site, why: str, fix: str) -> None:
        self._trace.find(Finding(code, message, str(site), why, fix, site.source()))


def check_arguments(graph: Graph, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[Finding]]:
    """A run's parameters as JSON values, and what is wrong with them; defaults are the IR's business."""
    site = here()
    values: dict[str, Any] = {}
    findings: list[Finding] = []
    declared = {i.name: i for i in graph.parameters.inputs}

    def wrong(code: str, message: str, why: str, fix: str) -> None:
        findings.append(Finding(code, message, str(site), why, fix, site.source()))

    for name, value in given.items():
        parameter = declared.get(name)
        if parameter is None:
            near = get_close_matches(name, declared, n=1)
            wrong(
                "unknown-argument",
                f"the pipeline {graph.name!r} has no parameter {name!r}",
                f"its parameters are {', '.join(declared) or 'none'}",
                f"did you mean {near[0]}=…?" if near else "remove it, or add it to the pipeline function",
            )
            continue
        if value is None and parameter.optional and parameter.default is None:
            continue
        try:
            assert isinstance(parameter.type, ParameterType)
            values[name] = to_constant(value, parameter.type)
        except ValueError as error:
            wrong(
                "wrong-type",
                f"parameter {name!r} of pipeline {graph.name!r} is {parameter.type}: {error}",
                "a run's parameters are checked before anything starts",
                f"pass {parameter.type}",
            )
    for name, parameter in declared.items():
        if name not in given and not parameter.optional:
            wrong(
                "missing-argument",
                f"the pipeline {graph.name!r} needs {name!r} ({parameter.type})",
                "it has no default",
                f"pass {name}=…",
            )
    return values, findings
