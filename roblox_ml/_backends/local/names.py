"""What tasks are called in a run: the leaf's own name, with the index of each loop around it.

`train`, `probe[2]`; a name that occurs in two DAGs of the pipeline is written with its path: `condition-1/train`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from .spec import Component, PipelineSpec

__all__ = ["Names", "base_name"]

_INDEX = re.compile(r"(\[\d+\])+$")


def base_name(task: str) -> str:
    """`probe[2]` → `probe`."""
    return _INDEX.sub("", task)


class Names:
    """Display names of one pipeline's tasks. A path is the tuple of task names from the root down."""

    def __init__(self, spec: PipelineSpec) -> None:
        self.spec = spec
        self._counts = Counter(path[-1] for path, _ in self._walk(spec.root, (), False))

    def of(self, path: tuple[str, ...], indices: tuple[int, ...] = ()) -> str:
        leaf = path[-1] if self._counts[path[-1]] <= 1 else "/".join(path)
        return leaf + "".join(f"[{index}]" for index in indices)

    def below(self, component: Component, path: tuple[str, ...], indices: tuple[int, ...] = ()) -> list[str]:
        """The leaves of a component that are known before anything runs: those not inside a further loop."""
        return [self.of(leaf, indices) for leaf, looped in self._walk(component, path, False) if not looped]

    def all_below(self, component: Component, path: tuple[str, ...], indices: tuple[int, ...] = ()) -> list[str]:
        """Every leaf of a component, loops counted once."""
        return [self.of(leaf, indices) for leaf, _ in self._walk(component, path, False)]

    def leaves(self) -> Iterator[tuple[tuple[str, ...], Component]]:
        """Every container task with its path, loops counted once."""
        for path, _ in self._walk(self.spec.root, (), False):
            component = self.spec.root
            for name in path:
                component = self.spec.components[component.tasks[name].component]
            yield path, component

    def _walk(
        self, component: Component, path: tuple[str, ...], looped: bool
    ) -> Iterator[tuple[tuple[str, ...], bool]]:
        if component.container is not None:
            yield path, looped
        for task in component.tasks.values():
            inside = looped or task.iteration is not None
            yield from self._walk(self.spec.components[task.component], (*path, task.name), inside)
