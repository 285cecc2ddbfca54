"""What a sweep is, and everything that is wrong with it before anything starts.

The definition is what must stay the same when a sweep goes on: the space, the metric, the code. How many trials, how
many at once and how long may change from one call to the next.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from .._graph.model import task_name
from .._graph.types import ArtifactType, ParameterType, fits, to_constant
from ..errors import Finding, GraphError
from .space import Choice, Distribution, Integers, Uniform, from_json

if TYPE_CHECKING:
    from .._build import Built
    from .._graph.model import Graph
    from .._graph.where import Site

__all__ = ["DIRECTIONS", "PRUNERS", "SAMPLERS", "Definition", "check", "code_of", "read_metric"]

DIRECTIONS = ("maximize", "minimize")
SAMPLERS = ("tpe", "random", "grid")
PRUNERS = ("median", "percentile", "halving", "hyperband", "none")
_NUMBERS = ("NUMBER_INTEGER", "NUMBER_DOUBLE")


@dataclass(frozen=True, slots=True)
class Definition:
    """A sweep without its budget. `code` is a digest per step: what the trials ran."""

    pipeline: str
    space: Mapping[str, Distribution]
    constants: Mapping[str, Any]
    metric: str
    direction: str
    sampler: str
    seed: int
    code: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            **{name: value for name, value in asdict(self).items() if name != "space"},
            "space": {name: distribution.to_json() for name, distribution in self.space.items()},
        }

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Definition:
        space = {name: from_json(value) for name, value in said["space"].items()}
        return cls(**{**{name: said[name] for name in cls.__slots__}, "space": space})

    @property
    def digest(self) -> str:
        """Changes with anything that makes trials incomparable."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def differences(self, other: Definition) -> Iterator[str]:
        """What `other` has differently, as sentences."""
        mine, theirs = self.to_json(), other.to_json()
        for name in mine:
            if mine[name] == theirs[name]:
                continue
            if name == "code":
                steps = [
                    step for step in {**mine[name], **theirs[name]} if mine[name].get(step) != theirs[name].get(step)
                ]
                yield f"the code of {', '.join(sorted(steps))}"
            elif name == "space":
                axes = [
                    axis for axis in {**mine[name], **theirs[name]} if mine[name].get(axis) != theirs[name].get(axis)
                ]
                yield f"the space of {', '.join(sorted(axes))}"
            else:
                yield f"{name} ({mine[name]!r}, now {theirs[name]!r})"


def code_of(built: Built) -> dict[str, str]:
    """A digest per step of what it runs: its code, lock and entry (not the SDK that carries it)."""
    return {
        name: hashlib.sha256(f"{ref.code} {ref.lock} {ref.entry}".encode()).hexdigest()[:16]
        for name, ref in built.steps.items()
    }


def check(graph: Graph, given: Mapping[str, Any], metric: str, direction: str, site: Site) -> dict[str, Any]:
    """The constants among `given` as JSON values; raises GraphError with all that is wrong."""
    findings: list[Finding] = []

    def wrong(code: str, message: str, why: str, fix: str) -> None:
        findings.append(Finding(code, message, str(site), why, fix, site.source()))

    declared = {i.name: i for i in graph.parameters.inputs}
    constants: dict[str, Any] = {}
    for name, value in given.items():
        parameter = declared.get(name)
        if parameter is None:
            near = get_close_matches(str(name), declared, n=1)
            why = f"its parameters are {', '.join(declared) or 'none'}"
            fix = f"did you mean {near[0]!r}?" if near else "remove it, or add it to the pipeline function"
            wrong("unknown-parameter", f"the pipeline {graph.name!r} has no parameter {name!r}", why, fix)
            continue
        kind = parameter.type
        assert isinstance(kind, ParameterType), "a pipeline's parameters are JSON values"
        if isinstance(value, Choice | Uniform | Integers):
            problem = _unfit(value, kind, parameter.optional and parameter.default is None)
            if problem:
                why = "every value of the space must be one of the parameter"
                wrong("wrong-type", f"{name} = {value}: {problem}", why, _instead(kind))
            continue
        try:
            constants[name] = to_constant(value, kind)
        except ValueError as error:
            why = "a value that is no rml.choice, rml.uniform or rml.integers is a constant"
            wrong("wrong-type", f"{name}: {error}", why, f"pass {kind}, or {_instead(kind)}")
    for name, parameter in declared.items():
        if name not in given and not parameter.optional:
            wrong(
                "missing-parameter",
                f"the space lacks {name!r} ({parameter.type})",
                "it has no default",
                f'add "{name}": …',
            )
    if not any(isinstance(value, Choice | Uniform | Integers) for value in given.values()):
        fix = 'write for example {"epochs": rml.choice([1, 2, 3])}'
        wrong("empty-space", "the space holds nothing to choose", "all trials would be the same run", fix)
    if direction not in DIRECTIONS:
        wrong(
            "bad-direction",
            f"direction is {direction!r}",
            f"it is one of {', '.join(DIRECTIONS)}",
            'write direction="maximize"',
        )
    _check_metric(graph, metric, wrong)
    if findings:
        raise GraphError(findings, subject=f"the sweep of {graph.name!r}")
    return constants


def _unfit(distribution: Distribution, kind: ParameterType, may_be_none: bool) -> str:
    if isinstance(distribution, Choice):
        for value in distribution.values:
            if value is None and may_be_none:
                continue
            try:
                to_constant(value, kind)
            except ValueError as error:
                return str(error)
        return ""
    made = ParameterType("NUMBER_INTEGER" if isinstance(distribution, Integers) else "NUMBER_DOUBLE")
    return "" if fits(made, kind) else f"it gives {made}, the parameter is {kind}"


def _instead(kind: ParameterType) -> str:
    made = {
        "NUMBER_INTEGER": "rml.integers(1, 10)",
        "NUMBER_DOUBLE": "rml.uniform(0.0, 1.0)",
        "BOOLEAN": "rml.choice([True, False])",
        "STRING": 'rml.choice(["a", "b"])',
    }
    return f"for {kind} write for example {made.get(kind.kfp, 'rml.choice([…])')}"


def _check_metric(graph: Graph, metric: str, wrong: Callable[[str, str, str, str], None]) -> None:
    step, _, key = metric.partition(".") if isinstance(metric, str) else ("", "", "")
    names = [task.name for task in graph.tasks]
    task = next((t for t in graph.tasks if t.name in (step, task_name(step))), None) if step else None
    if task is None:
        near = get_close_matches(task_name(step), names, n=1) if step else []
        fix = (
            f"did you mean {near[0] + '.' + key!r}?"
            if near
            else 'write metric="step.metric", for example "evaluate.f1"'
        )
        why = f"its steps are {', '.join(names)}"
        wrong("no-such-metric", f"metric={metric!r} names no step of the pipeline {graph.name!r}", why, fix)
        return
    outputs = {output.name: output.type for output in task.component.interface.outputs}
    shown = ", ".join(f"{name}: {kind}" for name, kind in outputs.items()) or "none"
    named = outputs.get(key.partition(".")[0])
    only = next(iter(outputs.values())) if len(outputs) == 1 else None
    if _is_number(named) or (not key and _is_number(only)):
        return
    for kind in (named, only if key else None):
        if isinstance(kind, ArtifactType) or (isinstance(kind, ParameterType) and kind.kfp == "STRUCT"):
            return  # what is in it is known when a trial has run
    wrong(
        "no-such-metric",
        f"metric={metric!r} is no number that {task.name} returns",
        f"its outputs are {shown}",
        'return rml.Metrics(f1=…) or a float from the step, and name it: "step.f1" or "step"',
    )


def _is_number(kind: Any) -> bool:
    return isinstance(kind, ParameterType) and kind.kfp in _NUMBERS


def read_metric(outputs: Mapping[str, Any], metric: str) -> float:
    """The metric among a run's outputs; ValueError says what is there instead."""
    from .._artifacts import Artifact, Model

    step, _, key = metric.partition(".")
    name = next((n for n in (step, task_name(step)) if n in outputs), None)
    if name is None:
        raise ValueError(f"the step {step!r} has no outputs (it did not run)")
    value = outputs[name]
    while key:
        if isinstance(value, list):
            raise ValueError(f"{name} ran {len(value)} times: gather its outputs in a step that returns one number")
        held = (
            {**(value.metrics if isinstance(value, Model) else {}), **value.metadata}
            if isinstance(value, Artifact)
            else value
        )
        if not isinstance(held, Mapping):
            raise ValueError(f"{metric}: there is no {key!r} in {held!r:.60}")
        # A metric's own name may have a point in it.
        part = key if key in held else key.partition(".")[0]
        if part not in held:
            there = ", ".join(str(k) for k in held if not str(k).startswith("rml.")) or "nothing"
            raise ValueError(f"{metric}: {name} returned {there}")
        value, key = held[part], "" if part == key else key.partition(".")[2]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{metric} is {value!r:.60}, not a number")
    if value != value:
        raise ValueError(f"{metric} is NaN")
    return float(value)
