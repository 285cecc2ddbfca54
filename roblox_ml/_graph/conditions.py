"""`with rml.when(condition):` and `with rml.otherwise():`, the branches of a pipeline.

Python's own `if` cannot do this: the pipeline's function runs once, before any value exists.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

from ..errors import Finding, GraphError

__all__ = ["otherwise", "when"]


class _Branch:
    """A context manager that puts the steps called inside it under a condition."""

    def __init__(self, condition: Any, *, otherwise: bool) -> None:
        from .where import here

        self._condition = condition
        self._otherwise = otherwise
        self._site = here()
        self._trace: Any = None
        self._scope: Any = None

    def __enter__(self) -> None:
        from .trace import current

        self._trace = current()
        if self._trace is None:
            name = "rml.otherwise" if self._otherwise else "rml.when"
            raise GraphError(
                Finding(
                    "condition-outside-pipeline",
                    f"{name}() outside a pipeline",
                    str(self._site),
                    "it makes a branch of a pipeline, and no pipeline is being built here",
                    "use Python's `if` here, or move the code into an @rml.pipeline function",
                    self._site.source(),
                )
            )
        if self._otherwise:
            self._scope = self._trace.open_otherwise(self._site)
        else:
            self._scope = self._trace.open_condition(self._condition, self._site)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._trace.close(self._scope, otherwise=self._otherwise)


def when(condition: Any) -> _Branch:
    """Run the steps called inside only if `condition` holds: `with rml.when(count_rows(data) > 10): …`.

    A condition is a comparison of a step's parameter output (or a pipeline parameter) with a constant or with another
    one, or a bool output by itself. Nest for `and`.
    """
    return _Branch(condition, otherwise=False)


def otherwise() -> _Branch:
    """The other branch of the rml.when just before it."""
    return _Branch(None, otherwise=True)
