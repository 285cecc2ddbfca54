"""A step's or pipeline's signature as inputs and outputs, and everything that is wrong with it.

Read when a pipeline is built, not when the function is decorated: a step's module is imported inside every step, and a
wrong annotation must be reported together with everything else.
"""

from __future__ import annotations

import dis
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import Finding
from . import types
from .types import ArtifactType, Type
from .where import Site, of_function

__all__ = ["OUTPUT", "Input", "Interface", "Output", "opaque", "read"]

# The name of the output when a step returns one value, as in KFP.
OUTPUT = "Output"


@dataclass(frozen=True, slots=True)
class Input:
    """One parameter of the function. `optional`: may be left out, with `default` (JSON form) or None."""

    name: str
    type: Type
    optional: bool = False
    default: Any = None


@dataclass(frozen=True, slots=True)
class Output:
    """One result of the function."""

    name: str
    type: Type


@dataclass(frozen=True, slots=True)
class Interface:
    """What goes in and what comes out. `named`: the outputs are the fields of a NamedTuple.

    `names` are all parameters in order, `inputs` only those without a finding; `faulty_outputs` have one too.
    """

    inputs: tuple[Input, ...] = ()
    outputs: tuple[Output, ...] = ()
    named: bool = False
    names: tuple[str, ...] = ()
    faulty_outputs: tuple[str, ...] = ()

    def input(self, name: str) -> Input | None:
        """The input of that name."""
        return next((i for i in self.inputs if i.name == name), None)


def read(function: Callable[..., Any], *, pipeline: bool = False) -> tuple[Interface, list[Finding]]:
    """The interface of a function, with a finding for each thing in its signature that cannot work."""
    findings: list[Finding] = []
    name = getattr(function, "__name__", "step")
    inputs: list[Input] = []
    for parameter in inspect.signature(function).parameters.values():
        site = of_function(function, parameter.name)
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            stars = "*" if parameter.kind is parameter.VAR_POSITIONAL else "**"
            findings.append(
                _finding(
                    "variable-arguments",
                    f"{name}() takes {stars}{parameter.name}",
                    site,
                    "inputs are declared by name and type; there is no type to declare for arguments not yet known",
                    "name each parameter, or take one dict or list",
                )
            )
            continue
        read_one = _input(function, name, parameter, site, pipeline, findings)
        if read_one is not None:
            inputs.append(read_one)
    names = tuple(inspect.signature(function).parameters)
    if pipeline:
        return Interface(tuple(inputs), names=names), findings
    outputs, named, faulty = _outputs(function, name, findings)
    return Interface(tuple(inputs), outputs, named, names, faulty), findings


def opaque(function: Callable[..., Any]) -> Interface:
    """The interface of something that cannot be a step: takes what it takes, gives nothing that can be used."""
    return Interface(names=tuple(inspect.signature(function).parameters), faulty_outputs=(OUTPUT,))


def _input(
    function: Callable[..., Any],
    name: str,
    parameter: inspect.Parameter,
    site: Site,
    pipeline: bool,
    findings: list[Finding],
) -> Input | None:
    label = f"parameter {parameter.name!r} of {name}()"
    if parameter.annotation is parameter.empty:
        findings.append(
            _finding(
                "missing-annotation",
                f"{label} has no annotation",
                site,
                "what flows between steps is typed, so that a mistake shows before anything runs",
                f"write {parameter.name}: int (or float, str, bool, list, dict, rml.Dataset, rml.Model, …)",
            )
        )
        return None
    try:
        kind, nullable = types.parse(_evaluate(function, parameter.annotation))
    except types.UnsupportedType as error:
        findings.append(_unsupported(label, error, site))
        return None
    except Exception as error:
        findings.append(_unresolved(label, parameter.annotation, error, site))
        return None
    if pipeline and isinstance(kind, ArtifactType):
        findings.append(
            _finding(
                "artifact-parameter",
                f"{label} is {kind}",
                site,
                "a run is started with JSON values; artifacts are made by steps",
                'inside the pipeline, use rml.dataset("name") or a step that loads it',
            )
        )
        return None
    if parameter.default is parameter.empty:
        if nullable:
            findings.append(
                _finding(
                    "optional-without-default",
                    f"{label} may be None but has no default",
                    site,
                    "an input that is left out has no value in KFP, not even None",
                    f"give it a default: {parameter.name}: {parameter.annotation} = None",
                )
            )
        return Input(parameter.name, kind)
    return _with_default(label, parameter, kind, nullable, site, pipeline, findings)


def _with_default(
    label: str,
    parameter: inspect.Parameter,
    kind: Type,
    nullable: bool,
    site: Site,
    pipeline: bool,
    findings: list[Finding],
) -> Input:
    default = parameter.default
    if default is None:
        if not nullable:
            findings.append(
                _finding(
                    "wrong-default",
                    f"{label} is {kind}, its default is None",
                    site,
                    "a declared type is checked everywhere, also in the default",
                    f"write {parameter.name}: {kind} | None = None",
                )
            )
        return Input(parameter.name, kind, optional=True)
    if isinstance(kind, ArtifactType):
        findings.append(
            _finding(
                "wrong-default",
                f"{label} is {kind}, its default is {type(default).__name__}",
                site,
                "an artifact is made by a step; it cannot be a default",
                f"write {parameter.name}: {kind} | None = None",
            )
        )
        return Input(parameter.name, kind, optional=True)
    # A pipeline's function runs once, to be traced, and its defaults are copied into the IR: a list is safe there.
    if isinstance(default, list | dict | set) and not pipeline:
        findings.append(
            _finding(
                "mutable-default",
                f"{label} has a mutable default",
                site,
                "one object is shared by all calls in a process, and a fresh process has a fresh one",
                f"write {parameter.name}: {kind} | None = None, and make the {kind} inside",
            )
        )
        return Input(parameter.name, kind, optional=True)
    try:
        constant = types.to_constant(default, kind)
    except ValueError as error:
        findings.append(
            _finding(
                "wrong-default",
                f"the default of {label} does not fit: {error}",
                site,
                "a declared type is checked everywhere, also in the default",
                f"change the default, or the annotation {kind}",
            )
        )
        constant = None
    return Input(parameter.name, kind, optional=True, default=constant)


def _outputs(
    function: Callable[..., Any], name: str, findings: list[Finding]
) -> tuple[tuple[Output, ...], bool, tuple[str, ...]]:
    """(outputs, whether they are named, names of those with a finding)."""
    annotation = getattr(function, "__annotations__", {}).get("return", inspect.Signature.empty)
    site = of_function(function)
    label = f"the result of {name}()"
    if annotation is inspect.Signature.empty:
        if not _returns_a_value(function):
            return (), False, ()
        findings.append(
            _finding(
                "missing-annotation",
                f"{label} has no annotation",
                site,
                "what flows between steps is typed; without a type the value would be lost",
                f"write def {name}(…) -> int: (or float, str, bool, list, dict, rml.Dataset, rml.Model, …)",
            )
        )
        return (), False, (OUTPUT,)
    try:
        resolved = _evaluate(function, annotation)
    except Exception as error:
        findings.append(_unresolved(label, annotation, error, site))
        return (), False, (OUTPUT,)
    if resolved is None or resolved is type(None):
        return (), False, ()
    if not types.is_namedtuple(resolved):
        kind = _output_type(label, resolved, site, findings)
        return ((Output(OUTPUT, kind),), False, ()) if kind else ((), False, (OUTPUT,))
    outputs: list[Output] = []
    faulty: list[str] = []
    for field in resolved._fields:
        field_label = f"field {field!r} of {resolved.__name__}, {label}"
        declared = resolved.__annotations__.get(field, Any)
        try:
            declared = _evaluate(function, getattr(declared, "__forward_arg__", declared))
        except Exception as error:
            findings.append(_unresolved(field_label, declared, error, site))
            faulty.append(field)
            continue
        field_kind = _output_type(field_label, declared, site, findings)
        if field_kind:
            outputs.append(Output(field, field_kind))
        else:
            faulty.append(field)
    return tuple(outputs), True, tuple(faulty)


def _output_type(label: str, annotation: Any, site: Site, findings: list[Finding]) -> Type | None:
    try:
        kind, nullable = types.parse(annotation)
    except types.UnsupportedType as error:
        findings.append(_unsupported(label, error, site))
        return None
    if nullable:
        findings.append(
            _finding(
                "optional-output",
                f"{label} may be None",
                site,
                "the next step would have nothing to read",
                f"always return {kind}; say 'nothing' with an empty value or a second, bool output",
            )
        )
    if isinstance(kind, ArtifactType) and kind.many:
        findings.append(
            _finding(
                "list-of-artifacts-output",
                f"{label} is {kind}",
                site,
                "KFP has no output for a number of artifacts that is known only at run time",
                "return one artifact with several files, or produce them with step.map(items), which fans in as a list",
            )
        )
        return None
    return kind


def _evaluate(function: Callable[..., Any], annotation: Any) -> Any:
    """An annotation as an object; text (from `__future__ import annotations`) is read in the function's namespace."""
    if not isinstance(annotation, str):
        return annotation
    closure = inspect.getclosurevars(function).nonlocals if getattr(function, "__closure__", None) else {}
    return eval(annotation, getattr(function, "__globals__", {}), dict(closure))  # noqa: S307 - the user's own code


def _returns_a_value(function: Callable[..., Any]) -> bool:
    code = getattr(function, "__code__", None)
    if code is None:
        return False
    previous = None
    for instruction in dis.get_instructions(code):
        nothing = previous is None or (previous.opname == "LOAD_CONST" and previous.argval is None)
        if instruction.opname == "RETURN_VALUE" and not nothing:
            return True
        previous = instruction
    return False


def _finding(code: str, message: str, site: Site, why: str, fix: str) -> Finding:
    return Finding(code, message, str(site), why, fix, site.source())


def _unsupported(label: str, error: types.UnsupportedType, site: Site) -> Finding:
    return _finding(
        "unsupported-annotation",
        f"{label} is annotated {error.shown}",
        site,
        "between steps flow JSON values and artifacts; this type is neither",
        error.fix,
    )


def _unresolved(label: str, annotation: Any, error: Exception, site: Site) -> Finding:
    return _finding(
        "unknown-annotation",
        f"the annotation {annotation!r} of {label} cannot be read: {error}",
        site,
        "the name must be known where the function is defined",
        "import or define it above the function",
    )
