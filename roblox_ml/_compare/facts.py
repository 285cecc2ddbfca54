"""What there is to compare about a run, read from what every run has: arguments, outputs, its IR, its provenance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .._artifacts import Artifact, Model
from .._backends.local.spec import load
from ..errors import RmlSdkError

__all__ = ["Facts", "Step", "facts_of", "metrics_of"]


@dataclass(frozen=True, slots=True)
class Step:
    """What a step of a run would do: digests of its code and lock, and the name of its function."""

    code: str
    lock: str
    entry: str


@dataclass(frozen=True, slots=True)
class Facts:
    """One run as columns. Missing is empty, never guessed."""

    id: str
    pipeline: str
    state: str
    seconds: float | None
    parameters: Mapping[str, Any]
    metrics: Mapping[str, float]
    seconds_of: Mapping[str, float] = field(default_factory=dict)
    steps: Mapping[str, Step] = field(default_factory=dict)
    data: tuple[str, ...] = ()
    git: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""


def facts_of(run: Any, label: str = "") -> Facts:
    """Read a run, a local one or one on a cluster."""
    outputs = getattr(run, "outputs", None) or {}
    tasks = getattr(run, "tasks", None) or {}
    listed = tasks.values() if isinstance(tasks, Mapping) else ()
    return Facts(
        id=str(run.id),
        pipeline=str(getattr(run, "pipeline", "")),
        state=str(run.state),
        seconds=getattr(run, "duration", None),
        parameters=_parameters(run),
        metrics=metrics_of(outputs),
        seconds_of={task.name: task.duration for task in listed if task.duration is not None},
        steps=_steps(run),
        data=tuple(sorted(_data(outputs))),
        git={k: v for k, v in ((getattr(run, "provenance", None) or {}).get("git") or {}).items() if k != "patch"},
        label=label or str(run.id),
    )


def metrics_of(outputs: Mapping[str, Any]) -> dict[str, float]:
    """Every number the steps returned: `evaluate.f1` of metrics, `score` of a step that returns a number."""
    found: dict[str, float] = {}
    for name in outputs:
        try:
            value = outputs[name]
        except (KeyError, OSError):
            continue
        found.update(_numbers(name, value))
    return found


def _numbers(name: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, Model):
        try:
            yield from _numbers(name, value.metrics)
        except (OSError, ValueError):
            return  # the files of an old model are gone; what is recorded stays
    elif isinstance(value, Artifact):
        if value.SCHEMA_TITLE == "system.Metrics":
            yield from _numbers(name, {k: v for k, v in value.metadata.items() if not str(k).startswith("rml.")})
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _numbers(f"{name}.{key}", inner)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, float(value)


def _parameters(run: Any) -> dict[str, Any]:
    """The arguments, with the pipeline's defaults where none was given: two runs may differ in what neither says."""
    given = dict(getattr(run, "arguments", None) or {})
    try:
        declared = load(run.ir.encode()).root.parameters
    except (AttributeError, RmlSdkError, KeyError, ValueError, OSError):
        return given
    return {**{name: known.default for name, known in declared.items()}, **given}


def _steps(run: Any) -> dict[str, Step]:
    try:
        components = load(run.ir.encode()).components
    except (AttributeError, RmlSdkError, KeyError, ValueError, OSError):
        return {}
    found = {}
    for name, component in components.items():
        if component.container is None:
            continue
        args = component.container.args
        said = dict(zip(args[::2], args[1::2], strict=False))
        step = Step(said.get("--code", ""), said.get("--lock", ""), said.get("--entry", ""))
        found[name.removeprefix("comp-")] = step
    return found


def _data(outputs: Mapping[str, Any]) -> Iterator[str]:
    for name in outputs:
        try:
            pending = [outputs[name]]
        except (KeyError, OSError):
            continue
        while pending:
            value = pending.pop()
            if isinstance(value, Artifact):
                yield from map(str, value.metadata.get("rml.data") or [])
            elif isinstance(value, Mapping):
                pending.extend(value.values())
            elif isinstance(value, list):
                pending.extend(value)
