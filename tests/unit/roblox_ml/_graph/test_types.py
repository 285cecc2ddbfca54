"""Annotations as types, which type fits where, Python values as JSON."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

import roblox_ml as rml
from roblox_ml._graph.types import ArtifactType, ParameterType, UnsupportedType, fits, is_namedtuple, parse, to_constant

INT, FLOAT, TEXT, BOOL = (ParameterType(k) for k in ("NUMBER_INTEGER", "NUMBER_DOUBLE", "STRING", "BOOLEAN"))


class Comments(rml.Dataset):
    """A user's own kind of dataset."""


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (int, (INT, False)),
        (bool, (BOOL, False)),
        (Optional[float], (FLOAT, True)),  # noqa: UP045
        (str | None, (TEXT, True)),
        (Literal["a", "b"], (TEXT, False)),
        (Annotated[int, "epochs"], (INT, False)),
        (list, (ParameterType("LIST"), False)),
        (list[Any], (ParameterType("LIST"), False)),
        (list[int], (ParameterType("LIST", INT), False)),
        (list[list[str]], (ParameterType("LIST", ParameterType("LIST", TEXT)), False)),
        (dict[str, float], (ParameterType("STRUCT", FLOAT), False)),
        (dict, (ParameterType("STRUCT"), False)),
        (rml.Model, (ArtifactType("system.Model"), False)),
        (Comments, (ArtifactType("system.Dataset"), False)),
        (list[rml.Metrics], (ArtifactType("system.Metrics", many=True), False)),
        (rml.Metrics | None, (ArtifactType("system.Metrics"), True)),
    ],
)
def test_what_may_flow(annotation: Any, expected: Any) -> None:
    assert parse(annotation) == expected


@pytest.mark.parametrize(
    ("annotation", "advice"),
    [
        (int | str, "union"),
        (bytes, "int, float, str"),
        (Path, ".path"),
        (tuple[int, int], "NamedTuple"),
        (dict[int, str], "strings"),
        (dict[str, rml.Model], "one by one"),
        (list[list[rml.Model]], "one level"),
        (Literal[1, "a"], "one type"),
        (object, "int, float, str"),
    ],
)
def test_what_may_not_flow_says_what_to_write(annotation: Any, advice: str) -> None:
    with pytest.raises(UnsupportedType) as caught:
        parse(annotation)
    assert advice in caught.value.fix


def test_a_data_frame_is_told_to_be_a_dataset() -> None:
    import pandas as pd

    with pytest.raises(UnsupportedType) as caught:
        parse(pd.DataFrame)
    assert caught.value.shown == "DataFrame"
    assert "rml.Dataset" in caught.value.fix


def test_what_fits_where() -> None:
    model, data, anything = (ArtifactType(f"system.{k}") for k in ("Model", "Dataset", "Artifact"))
    assert fits(INT, FLOAT) and not fits(FLOAT, INT)
    assert not fits(BOOL, INT) and not fits(TEXT, INT)
    assert fits(model, anything) and not fits(anything, model) and not fits(data, model)
    assert not fits(model, INT) and not fits(INT, model)
    assert fits(ArtifactType("system.Model", many=True), ArtifactType("system.Artifact", many=True))
    assert not fits(ArtifactType("system.Model", many=True), model)
    assert fits(ParameterType("LIST"), ParameterType("LIST", INT))
    assert fits(ParameterType("LIST", INT), ParameterType("LIST", FLOAT))
    assert not fits(ParameterType("LIST", TEXT), ParameterType("LIST", INT))


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (True, INT),
        (1, BOOL),
        ("1", INT),
        (1.0, INT),
        (None, TEXT),
        (2**53 + 1, INT),
        (math.nan, FLOAT),
        ({1: 2}, ParameterType("STRUCT")),
        ([object()], ParameterType("LIST")),
        (["a"], ParameterType("LIST", INT)),
        ("{{$.inputs}}", TEXT),
        ("half \ud800", TEXT),
        ("text", ParameterType("LIST")),
    ],
)
def test_values_that_do_not_fit_are_refused(value: Any, kind: ParameterType) -> None:
    with pytest.raises(ValueError, match=r"."):
        to_constant(value, kind)


def test_values_become_what_is_declared() -> None:
    three = to_constant(3, FLOAT)
    assert three == 3.0 and isinstance(three, float)
    assert to_constant((1, 2), ParameterType("LIST", INT)) == [1, 2]
    assert to_constant({"a": (1, None)}, ParameterType("STRUCT")) == {"a": [1, None]}


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text().filter(lambda s: "{{$" not in s),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text().filter(lambda s: "{{$" not in s), inner),
    max_leaves=10,
)


@given(st.lists(json_values, max_size=4))
def test_json_passes_unchanged(value: list[Any]) -> None:
    assert to_constant(value, ParameterType("LIST")) == value


def test_named_tuples_are_told_from_tuples() -> None:
    class Pair(NamedTuple):
        a: int

    assert is_namedtuple(Pair)
    assert not is_namedtuple(tuple)
    assert not is_namedtuple(Pair(1))


def test_types_read_as_python() -> None:
    assert str(ParameterType("LIST", FLOAT)) == "list[float]"
    assert str(ParameterType("STRUCT", INT)) == "dict[str, int]"
    assert str(ArtifactType("system.Dataset", many=True)) == "list[rml.Dataset]"
