"""The graph: components, tasks, scopes and the channels between them. Plain records, no behaviour of their own.

A scope is a KFP sub-DAG: the root, a loop (one per `step.map`) or a condition (one per `rml.when`/`rml.otherwise`).
A channel is a value that exists only while a run runs: a task's output, a pipeline parameter, a loop's item or the
list a loop's outputs fan in to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .interface import Interface
from .options import Options
from .types import Type
from .where import Site

__all__ = ["Channel", "Component", "Condition", "Constant", "Graph", "Scope", "Task", "task_name"]


@dataclass(frozen=True, slots=True, eq=False)
class Component:
    """A step as the graph knows it. `entry` is set for system steps, `function` for the user's.

    A system step may need an environment (`imports`, top-level names) and code that is not in the SDK's zip (`carries`,
    packages of this project); most need neither.
    """

    name: str
    interface: Interface
    options: Options
    function: Any = None
    entry: str | None = None
    imports: frozenset[str] = frozenset()
    carries: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Constant:
    """A JSON value known while tracing."""

    value: Any


@dataclass(frozen=True, slots=True, eq=False)
class Channel:
    """A value known only in a run; there is one object for each.

    `kind`: the 'output' of a task, a pipeline 'parameter', the 'item' of a loop or what a loop has 'collected'.
    """

    kind: str
    name: str
    type: Type
    producer: Task | Scope | None = None

    def __str__(self) -> str:
        if isinstance(self.producer, Task):
            return f"{self.producer.name}.{self.name}"
        if isinstance(self.producer, Scope) and self.producer.body is not None:
            return f"{self.producer.body.name}.{self.name} (all of them)"
        return self.name


@dataclass(frozen=True, slots=True)
class Condition:
    """`left operator right`, where left is a channel and right a channel or constant. `negate` for rml.otherwise."""

    left: Channel
    operator: str
    right: Channel | Constant
    negate: bool = False

    def channels(self) -> tuple[Channel, ...]:
        """The run-time values it reads."""
        return (self.left, self.right) if isinstance(self.right, Channel) else (self.left,)

    def __str__(self) -> str:
        right = self.right if isinstance(self.right, Channel) else repr(self.right.value)
        text = f"{self.left} {self.operator} {right}"
        return f"not ({text})" if self.negate else text


@dataclass(slots=True, eq=False)
class Task:
    """One use of a component. `arguments` maps input names to what they get."""

    name: str
    component: Component
    scope: Scope
    site: Site
    arguments: dict[str, Channel | Constant] = field(default_factory=dict)
    after: list[Task | Scope] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Scope:
    """A DAG: the root, a loop over `items` (with `item` as the loop variable) or a condition."""

    kind: str
    name: str
    parent: Scope | None
    site: Site
    members: list[Task | Scope] = field(default_factory=list)
    items: Channel | Constant | None = None
    item: Channel | None = None
    condition: Condition | None = None
    after: list[Task | Scope] = field(default_factory=list)

    @property
    def body(self) -> Task | None:
        """A loop's one task."""
        first = self.members[0] if self.kind == "loop" and self.members else None
        return first if isinstance(first, Task) else None

    def lineage(self) -> Iterator[Scope]:
        """This scope, its parent, … up to the root."""
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.parent


@dataclass(slots=True, eq=False)
class Graph:
    """A traced pipeline."""

    name: str
    parameters: Interface
    root: Scope
    tasks: list[Task] = field(default_factory=list)
    components: dict[str, Component] = field(default_factory=dict)
    site: Site = field(default_factory=lambda: Site("<unknown>", 0))
    # Tasks that load a data set of which no version was named, with its name: a run by schedule loads the newest one then.
    newest: dict[str, str] = field(default_factory=dict)

    def scopes(self) -> Iterator[Scope]:
        """Every scope, parents before children."""
        pending = [self.root]
        while pending:
            scope = pending.pop(0)
            yield scope
            pending.extend(m for m in scope.members if isinstance(m, Scope))


def task_name(function_name: str) -> str:
    """A name Kubernetes accepts: 'count_rows' → 'count-rows'."""
    name = "".join(c if c.isascii() and c.isalnum() else "-" for c in function_name.lower())
    while "--" in name:
        name = name.replace("--", "-")
    return name.strip("-") or "step"
