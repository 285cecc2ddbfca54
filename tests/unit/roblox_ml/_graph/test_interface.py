"""Signatures as interfaces, and everything that can be wrong with one."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

import roblox_ml as rml
from roblox_ml._graph.interface import Input, Output, read
from roblox_ml._graph.types import ArtifactType, ParameterType


class Prepared(NamedTuple):
    train: rml.Dataset
    rows: int


def good(
    data: rml.Dataset, epochs: int = 3, extra: rml.Metrics | None = None, names: list[str] | None = None
) -> Prepared:
    return Prepared(data, epochs)


def test_inputs_and_outputs() -> None:
    interface, findings = read(good)
    assert findings == []
    assert interface.inputs == (
        Input("data", ArtifactType("system.Dataset")),
        Input("epochs", ParameterType("NUMBER_INTEGER"), optional=True, default=3),
        Input("extra", ArtifactType("system.Metrics"), optional=True),
        Input("names", ParameterType("LIST", ParameterType("STRING")), optional=True),
    )
    assert interface.named
    assert interface.outputs == (
        Output("train", ArtifactType("system.Dataset")),
        Output("rows", ParameterType("NUMBER_INTEGER")),
    )


def test_one_value_is_called_output_and_none_is_nothing() -> None:
    def one() -> float:
        return 1.0

    def none() -> None:
        return None

    def silent():  # type: ignore[no-untyped-def]
        print("x")

    assert read(one)[0].outputs == (Output("Output", ParameterType("NUMBER_DOUBLE")),)
    assert read(none) == (read(none)[0], []) and read(none)[0].outputs == ()
    assert read(silent) == (read(silent)[0], []) and read(silent)[0].outputs == ()


def unannotated(x) -> int:  # type: ignore[no-untyped-def]
    return int(x)


def no_return_type(x: int):  # type: ignore[no-untyped-def]
    return x


def text_default(epochs: int = "3") -> None: ...  # type: ignore[assignment]


def none_default(epochs: int = None) -> None: ...  # type: ignore[assignment]  # noqa: RUF013


def mutable(xs: list[int] = []) -> None: ...


def no_default(x: int | None) -> None: ...


def artifact_default(data: rml.Dataset = rml.Dataset("x")) -> None: ...


def star(*xs: int) -> None: ...


def double_star(**xs: int) -> None: ...


def unknown_name(x: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821


def unsupported(x: bytes) -> None: ...


def optional_output() -> int | None: ...


def artifact_list() -> list[rml.Model]: ...  # type: ignore[empty-body]


def bad_output() -> set[int]: ...  # type: ignore[empty-body]


@pytest.mark.parametrize(
    ("function", "code"),
    [
        (unannotated, "missing-annotation"),
        (no_return_type, "missing-annotation"),
        (text_default, "wrong-default"),
        (none_default, "wrong-default"),
        (mutable, "mutable-default"),
        (no_default, "optional-without-default"),
        (artifact_default, "wrong-default"),
        (star, "variable-arguments"),
        (double_star, "variable-arguments"),
        (unknown_name, "unknown-annotation"),
        (unsupported, "unsupported-annotation"),
        (optional_output, "optional-output"),
        (artifact_list, "list-of-artifacts-output"),
        (bad_output, "unsupported-annotation"),
    ],
)
def test_each_mistake_is_one_finding_at_its_line(function: Any, code: str) -> None:
    _, findings = read(function)
    assert [f.code for f in findings] == [code]
    (finding,) = findings
    assert finding.where.endswith(f"test_interface.py:{function.__code__.co_firstlineno}")
    assert finding.why and finding.fix and finding.source
    assert function.__name__ in finding.message


def test_the_caret_is_under_the_parameter() -> None:
    _, findings = read(mutable)
    source, caret = (findings[0].source or "").splitlines()
    assert source[caret.index("^") :].startswith("xs")


def test_a_signature_over_several_lines() -> None:
    def long(
        first: int,
        second: bytes,
    ) -> None: ...

    _, findings = read(long)
    assert findings[0].source is not None and findings[0].source.startswith("second: bytes")


def test_types_of_the_enclosing_function_are_found() -> None:
    class Local(rml.Dataset): ...

    def step(x: Local) -> Local:
        return Local(x.path)

    assert read(step)[1] == []


def test_a_pipelines_parameters_are_json() -> None:
    def pipeline(data: rml.Dataset, xs: list[int] = [1, 2]) -> None: ...

    interface, findings = read(pipeline, pipeline=True)
    assert [f.code for f in findings] == ["artifact-parameter"]
    assert interface.inputs == (
        Input("xs", ParameterType("LIST", ParameterType("NUMBER_INTEGER")), optional=True, default=[1, 2]),
    )
