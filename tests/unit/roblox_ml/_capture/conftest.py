"""A notebook without a kernel: cells run in order into one namespace, then captured; slices run in a fresh one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from roblox_ml._capture import Slice, Source, capture, capture_name, cells_source
from roblox_ml.errors import CaptureError, Finding


@dataclass
class Notebook:
    cells: list[str] = field(default_factory=list)
    namespace: dict[str, Any] = field(default_factory=lambda: {"__name__": "__main__"})

    def run(self, *cells: str) -> Notebook:
        for cell in cells:
            self.cells.append(cell)
            exec(compile(cell, f"<cell {len(self.cells)}>", "exec", dont_inherit=True), self.namespace)
        return self

    @property
    def source(self) -> Source:
        return cells_source(self.cells, self.namespace)

    def capture(self, name: str = "step") -> Slice:
        value = self.namespace[name]
        return capture(value, self.source)

    def refusals(self, name: str = "step") -> list[Finding]:
        with pytest.raises(CaptureError) as caught:
            self.capture(name)
        return list(caught.value.findings)

    def refusal(self, name: str = "step") -> Finding:
        found = self.refusals(name)
        assert len(found) == 1, "\n".join(map(str, found))
        return found[0]


@pytest.fixture
def notebook() -> Notebook:
    return Notebook()


def text_of(slice_: Slice) -> str:
    return slice_.files["rml_step.py"].decode()


def run_slice(slice_: Slice) -> dict[str, Any]:
    """What a step's process has after importing the slice (single-file slices)."""
    namespace: dict[str, Any] = {"__name__": "rml_step"}
    exec(compile(slice_.files["rml_step.py"], "rml_step.py", "exec", dont_inherit=True), namespace)
    return namespace


@pytest.fixture
def text() -> Callable[[Slice], str]:
    return text_of


@pytest.fixture
def fresh() -> Callable[[Slice], dict[str, Any]]:
    return run_slice


@pytest.fixture
def only_text() -> Callable[..., str]:
    """Slice text of the last cell's `step` from texts alone, nothing executed."""

    def build(*cells: str) -> str:
        return text_of(capture_name("step", cells_source(cells)))

    return build
