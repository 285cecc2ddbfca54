"""What a step returns while a pipeline is traced: stand-ins for values that do not exist yet.

Passing a stand-in to another step draws an edge. Everything else Python would do with a real value (`if`, `for`, `+`,
an f-string) cannot work, and must not silently do the wrong thing: each such use is recorded as a finding with the line
that made it and what to write instead, and tracing goes on so that the next mistake is found too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NoReturn

from ..errors import Finding, GraphError
from .model import Channel, Constant, Scope, Task
from .types import ArtifactType
from .where import Site, here

if TYPE_CHECKING:
    from .trace import Trace

__all__ = ["Comparison", "Handle", "Nothing", "Outputs", "Unknown", "Value"]


class Handle:
    """Base of all stand-ins; knows the trace it belongs to and the node it stands for."""

    __slots__ = ("_node", "_trace")

    def __init__(self, trace: Trace, node: Task | Scope | None) -> None:
        self._trace = trace
        self._node = node

    def after(self, *others: Any) -> Any:
        """Run this task after others whose outputs it does not read. Returns itself."""
        self._trace.order(self, others)
        return self

    def _shown(self) -> str:
        if isinstance(self._node, Scope):
            return f"{self._node.body.name}.map(…)" if self._node.body else self._node.name
        return self._node.name if self._node else "a value"

    def __repr__(self) -> str:
        return f"<{self._shown()}, known when the pipeline runs>"

    def _refuse(self, code: str, what: str, why: str, fix: str) -> None:
        """Record the misuse, or raise at once when nothing is being traced any more."""
        site = here()
        finding = Finding(code, what, str(site), why, fix, site.source())
        self._trace.misuse(finding, site)

    def _late(self) -> str:
        return f"{self._shown()} has no value yet: the pipeline function runs once, before the pipeline does"

    # --- uses that need the value -------------------------------------------------------------------------------

    def __bool__(self) -> bool:
        self._refuse(
            "condition-in-python",
            f"Python's `if`, `while`, `and`, `or` or `not` on {self._shown()}",
            self._late(),
            f"write `with rml.when({self._example()}):` and `with rml.otherwise():`, or decide inside a step",
        )
        return True

    def _example(self) -> str:
        return "count > 10"

    def __iter__(self) -> Iterator[Any]:
        self._refuse(
            "loop-in-python",
            f"a Python loop (or unpacking) over {self._shown()}",
            self._late(),
            "write `results = step.map(output)`: one task for each item; several outputs are a NamedTuple",
        )
        return iter(())

    def __len__(self) -> int:
        self._refuse(
            "length-of-output",
            f"len() of {self._shown()}",
            self._late(),
            "return the length from the step as an int output, and pass that on",
        )
        return 0

    def __contains__(self, item: object) -> bool:
        self._refuse(
            "condition-in-python",
            f"`in` on {self._shown()}",
            self._late(),
            "look it up inside a step and return a bool output for rml.when",
        )
        return False

    def __getitem__(self, key: Any) -> Any:
        self._refuse(
            "index-of-output",
            f"{self._shown()}[{key!r}]",
            self._late(),
            "return the parts as fields of a NamedTuple, or index inside the next step",
        )
        return Unknown(self._trace)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._refuse(
            "change-of-output",
            f"assignment to {self._shown()}[{key!r}]",
            self._late(),
            "change it inside a step and return the new one",
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._refuse(
            "call-of-output",
            f"a call of {self._shown()}",
            self._late(),
            "call methods of the value inside a step",
        )
        return Unknown(self._trace)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        self._refuse(
            "attribute-of-output",
            f"{self._shown()}.{name}",
            self._late(),
            f"read .{name} inside a step, and return what you need as an output",
        )
        return Unknown(self._trace)

    def __str__(self) -> str:
        if not self._trace.active:
            return repr(self)
        self._refuse(
            "text-of-output",
            f"{self._shown()} used as text (f-string, str(), print)",
            self._late(),
            "pass it to the step that needs it, and format the text there",
        )
        return repr(self)

    def __format__(self, spec: str) -> str:
        return str(self)

    def __int__(self) -> int:
        self._number("int()")
        return 0

    def __float__(self) -> float:
        self._number("float()")
        return 0.0

    def __index__(self) -> int:
        self._number("use as an index or in range()")
        return 0

    def _number(self, what: str) -> None:
        self._refuse(
            "number-of-output",
            f"{what} of {self._shown()}",
            self._late(),
            "pass it to a step that takes a number; for one task per item use step.map",
        )

    def _arithmetic(self, other: Any = None) -> Any:
        self._refuse(
            "arithmetic-on-output",
            f"arithmetic on {self._shown()}",
            self._late(),
            "compute it inside a step that takes the operands as parameters",
        )
        return Unknown(self._trace)

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _arithmetic
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __pow__ = __rpow__ = __matmul__ = __rmatmul__ = _arithmetic
    __and__ = __rand__ = __or__ = __ror__ = __xor__ = __rxor__ = _arithmetic
    __neg__ = __pos__ = __abs__ = __invert__ = _arithmetic

    def _compare(self, operator: str, other: Any) -> Any:
        return self._trace.comparison(self, operator, other)

    def __gt__(self, other: Any) -> Any:
        return self._compare(">", other)

    def __ge__(self, other: Any) -> Any:
        return self._compare(">=", other)

    def __lt__(self, other: Any) -> Any:
        return self._compare("<", other)

    def __le__(self, other: Any) -> Any:
        return self._compare("<=", other)

    def __eq__(self, other: object) -> Any:
        return self._compare("==", other)

    def __ne__(self, other: object) -> Any:
        return self._compare("!=", other)

    __hash__ = object.__hash__


class Value(Handle):
    """One value: a task's output, a pipeline parameter, or the list that a fan-out's outputs make."""

    __slots__ = ("_channel",)

    def __init__(self, trace: Trace, channel: Channel, node: Task | Scope | None) -> None:
        super().__init__(trace, node)
        self._channel = channel

    def _shown(self) -> str:
        if self._channel.kind == "parameter":
            return f"the pipeline parameter {self._channel.name!r}"
        shown = super()._shown()
        return shown if self._channel.name == "Output" else f"{shown}.{self._channel.name}"

    def _example(self) -> str:
        if isinstance(self._channel.type, ArtifactType):
            return "count_rows(data) > 10"
        example = {"BOOLEAN": "True", "STRING": "'yes'"}.get(self._channel.type.kfp, "10")
        name = self._channel.name if self._channel.kind == "parameter" else "output"
        return f"{name} == {example}" if example != "10" else f"{name} > 10"

    def __repr__(self) -> str:
        return f"<{self._shown()}: {self._channel.type}, known when the pipeline runs>"


class Outputs(Handle):
    """Several values, by name: the fields of the NamedTuple a step returns (or their lists, for a fan-out)."""

    __slots__ = ("_values",)

    def __init__(self, trace: Trace, node: Task | Scope, values: dict[str, Any]) -> None:
        super().__init__(trace, node)
        self._values = values

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self._values[name]
        except KeyError:
            self._no_such_output(name)
            return Unknown(self._trace)

    def _no_such_output(self, name: str) -> None:
        from difflib import get_close_matches

        near = get_close_matches(name, self._values, n=1)
        self._refuse(
            "unknown-output",
            f"{self._shown()} has no output {name!r}",
            f"its outputs are {', '.join(self._values)}",
            f"did you mean .{near[0]}?" if near else "use one of these names",
        )

    # A NamedTuple's length is known, so unpacking and indexing work as they do on the real result.
    def __iter__(self) -> Iterator[Any]:
        return iter(self._values.values())

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, int) and -len(self._values) <= key < len(self._values):
            return list(self._values.values())[key]
        return super().__getitem__(key)


class Nothing(Handle):
    """The result of a step that returns nothing: good for `.after()` only."""

    __slots__ = ()


class Unknown(Handle):
    """Stands for the result of a misuse already reported, so that one mistake makes one finding."""

    __slots__ = ()

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace, None)

    def _refuse(self, code: str, what: str, why: str, fix: str) -> None:
        return None

    def _compare(self, operator: str, other: Any) -> Any:
        return self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self

    def after(self, *others: Any) -> Any:
        return self


class Comparison:
    """`output > 10`: meaningful only as the condition of rml.when."""

    __slots__ = ("_trace", "handle", "left", "operator", "right", "site", "used")

    def __init__(
        self, trace: Trace, handle: Value, left: Channel, operator: str, right: Channel | Constant, site: Site
    ) -> None:
        self._trace = trace
        self.handle = handle
        self.left = left
        self.operator = operator
        self.right = right
        self.site = site
        self.used = False

    def __bool__(self) -> bool:
        self.used = True
        site = here()
        right = self.right.value if isinstance(self.right, Constant) else self.right
        self._trace.misuse(
            Finding(
                "condition-in-python",
                f"Python's `if`, `while`, `and`, `or` or `not` on `{self.left} {self.operator} {right!r}`",
                str(site),
                self.handle._late(),
                f"write `with rml.when({_source_of(self)}):` and `with rml.otherwise():` (nest them for `and`)",
                site.source(),
            ),
            site,
        )
        return True

    def _combined(self, other: Any = None) -> Any:
        self.used = True
        if isinstance(other, Comparison):
            other.used = True
        site = here()
        self._trace.misuse(
            Finding(
                "combined-condition",
                "conditions combined with &, | or ~",
                str(site),
                "a pipeline condition is one comparison",
                "nest `with rml.when(…):` for `and`; compute a bool in a step for anything else",
                site.source(),
            ),
            site,
        )
        return Unknown(self._trace)

    __and__ = __rand__ = __or__ = __ror__ = __xor__ = __rxor__ = __invert__ = _combined

    def __repr__(self) -> str:
        return f"<condition {self.left} {self.operator} {self.right}>"


def _source_of(comparison: Comparison) -> str:
    """The comparison as the user wrote it, where the source is at hand; else as we know it."""
    source = comparison.site.source()
    if source and "\n" in source:
        text, carets = source.split("\n", 1)
        start = carets.find("^")
        if 0 <= start < len(text):
            return text[start : start + carets.count("^")]
    right = comparison.right.value if isinstance(comparison.right, Constant) else comparison.right
    return f"{comparison.left} {comparison.operator} {right!r}"


def raise_late(finding: Finding) -> NoReturn:
    """A stand-in was used after its pipeline had been traced."""
    raise GraphError(finding)
