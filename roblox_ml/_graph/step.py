"""`@rml.step`: a plain function that a pipeline can run anywhere.

Outside a pipeline a step is its function: call it, test it, debug it. While a pipeline is traced a call draws a task.
Decorating only notes what was asked, nothing is checked or imported: this module runs in every step as well.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from ..errors import Finding

if TYPE_CHECKING:
    from .cluster import Secret, Toleration
    from .interface import Interface
    from .options import Options
    from .where import Site

__all__ = ["Step", "step"]

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class _Read:
    interface: Interface
    options: Options


class Step(Generic[P, R]):
    """A function with what it asks for. Made by `@rml.step`."""

    __rml_step__ = True

    def __init__(self, function: Callable[P, R], asked: Mapping[str, Any], site: Site | None) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.asked = dict(asked)
        self.site = site
        self.__name__: str = getattr(function, "__name__", type(function).__name__)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        tracing = _tracing()
        if tracing is None:
            return self.function(*args, **kwargs)
        result: R = tracing.call(self, args, kwargs)
        return result

    def map(self, items: Any, /, *, over: str | None = None, **fixed: Any) -> Any:
        """Fan out: one task per item. `items` go to the first parameter not in `fixed` (or to `over`).

        The result stands for the list of all results and fits a list-typed parameter of another step. Outside a
        pipeline it is that list.
        """
        tracing = _tracing()
        if tracing is not None:
            return tracing.map(self, items, over, fixed)
        if over is None:
            import inspect

            names = [n for n in inspect.signature(self.function).parameters if n not in fixed]
            over = names[0] if names else "items"
        call: Callable[..., R] = self.function
        results = [call(**{over: item, **fixed}) for item in items]
        if results and isinstance(results[0], tuple) and hasattr(results[0], "_fields"):
            fields: Iterable[Any] = zip(*[tuple(r) for r in results if isinstance(r, tuple)], strict=True)
            return type(results[0])(*[list(column) for column in fields])
        return results

    def read(self) -> tuple[_Read, list[Finding]]:
        """Interface and options, and every finding about them."""
        from . import interface, options, where

        at = self.site or where.of_function(self.function)
        asked, wrong = options.read(self.asked, self.__name__, at)
        if self.__name__ == "<lambda>":
            # Capture says why not; what it takes and gives would be findings about the same thing.
            return _Read(interface.opaque(self.function), asked), wrong
        signature, findings = interface.read(self.function)
        return _Read(signature, asked), findings + wrong

    def __repr__(self) -> str:
        return f"<rml.step {self.__name__}>"


def _tracing() -> Any:
    """The trace in progress. Without tracing ever having been loaded there is none, and it need not be loaded."""
    import sys

    module = sys.modules.get(f"{__package__}.trace")
    return module.current() if module is not None else None


@overload
def step(function: Callable[P, R], /) -> Step[P, R]: ...
@overload
def step(
    *,
    cpu: float | str | None = None,
    memory: str | None = None,
    gpu: int | str | None = None,
    priority: str | None = None,
    spot: bool = False,
    retries: int = 0,
    timeout: str | int | None = None,
    cache: bool = True,
    packages: list[str] | tuple[str, ...] = (),
    system_packages: list[str] | tuple[str, ...] = (),
    labels: Mapping[str, str] | None = None,
    node_selector: Mapping[str, str] | None = None,
    tolerations: Sequence[Toleration] = (),
    secrets: Sequence[Secret] = (),
    queue: str | None = None,
    shm: str | None = None,
    ephemeral_storage: str | None = None,
    image: str | None = None,
) -> Callable[[Callable[P, R]], Step[P, R]]: ...
def step(function: Any = None, /, **asked: Any) -> Any:
    """Make a function a step: `@rml.step` or `@rml.step(cpu=2, memory="4Gi", …)`.

    cpu: cores (2, 0.5, "500m"). memory: "4Gi". gpu: count, or "amd.com/gpu:1". shm: size of /dev/shm. ephemeral_storage:
    room for temporary files. spot: may run on interruptible machines. node_selector, tolerations: where else it may run.
    queue, priority: Kueue's LocalQueue and priority class. secrets: rml.secret(…), by reference. retries: further
    attempts, with back-off. timeout: "90s", "1h30m". cache: reuse outputs of the same code, lock and inputs. packages:
    pins that differ from this kernel's. image: another one than RML_STEP_IMAGE. labels: put on the pod. A mistake in
    these is reported when a pipeline with the step is built.
    """
    if function is not None:
        return _make(function, {}, None)
    from .where import here

    site = here()
    return lambda decorated: _make(decorated, asked, site)


def _make(function: Any, asked: Mapping[str, Any], site: Any) -> Step[Any, Any]:
    if isinstance(function, Step):
        return Step(function.function, {**function.asked, **asked}, site or function.site)
    if not isinstance(function, FunctionType):
        raise TypeError(
            f"@rml.step decorates a function, got {type(function).__name__}; write `@rml.step` above a `def`"
        )
    return Step(function, asked, site)
