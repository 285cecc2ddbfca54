"""Signatures read user data into tensors; known answers tell a working model from one that merely answers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from roblox_ml_core.errors import Invalid, PackageError
from roblox_ml_core.package import DATATYPES, Examples, Signature, TensorSpec, compare

TEXT = Signature((TensorSpec("TEXT", "BYTES", (-1,)),), (TensorSpec("scores", "FP32", (-1, 2)),))
TWO = Signature((TensorSpec("a", "FP32", (-1, 2)), TensorSpec("b", "INT64", (-1,))), (TensorSpec("y", "FP64", (-1,)),))

SPECS = st.builds(
    lambda name, datatype, rest: TensorSpec(name, datatype, (-1, *rest)),
    st.sampled_from(["x", "TEXT", "input_ids"]),
    st.sampled_from(sorted(DATATYPES)),
    st.lists(st.sampled_from([-1, 1, 7]), max_size=3),
)


@given(SPECS, SPECS)
def test_a_signature_reads_back(a: TensorSpec, b: TensorSpec) -> None:
    signature = Signature((a,), (b,))
    assert Signature.from_json(signature.to_json()) == signature


@pytest.mark.parametrize(
    "value",
    [None, {}, {"inputs": [], "outputs": []}, {"inputs": 3, "outputs": 4},
     {"inputs": [{"name": "x", "datatype": "FLOAT", "shape": [-1]}], "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1]}]},
     {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2]}], "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1]}]},
     {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 0]}], "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1]}]},
     {"inputs": [{"name": "x y", "datatype": "FP32", "shape": [-1]}], "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1]}]}],
)  # fmt: skip
def test_what_is_no_signature_is_refused(value: object) -> None:
    with pytest.raises(PackageError):
        Signature.from_json(value)


@pytest.mark.parametrize(
    "texts",
    [
        ["a", "b"],
        np.array(["a", "b"]),
        [b"a", b"b"],
        pd.DataFrame({"TEXT": ["a", "b"]}),
        pd.DataFrame({"other": ["a", "b"]}),
        {"TEXT": ["a", "b"]},
    ],
)
def test_texts_come_in_any_of_the_usual_shapes(texts: object) -> None:
    assert TEXT.arrays(texts)["TEXT"].tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("inputs", "part"),
    [("one text", "wrap it in a list"), ([["a", "b"]], "shape"), ([1, 2], "takes texts"), ({"text": ["a"]}, "TEXT")],
)
def test_wrong_texts_are_told_what_is_right(inputs: object, part: str) -> None:
    with pytest.raises(Invalid) as caught:
        TEXT.arrays(inputs)
    assert part in str(caught.value)


def test_several_inputs_need_names_and_one_length() -> None:
    arrays = TWO.arrays({"a": [[1, 2], [3, 4]], "b": [5, 6]})
    assert (arrays["a"].dtype, arrays["b"].dtype) == (np.float32, np.int64)
    for wrong, part in (
        ([1, 2], "'a', 'b'"),
        ({"a": [[1, 2]], "b": [1, 2]}, "batch length"),
        ({"a": [[1, 2]]}, "missing"),
        ({"a": [[1, 2, 3]], "b": [1]}, "shape"),
        ({"a": [["x", "y"]], "b": [1]}, "FP32"),
        ({"a": [[1, 2]], "b": [1.5]}, "cannot hold"),
    ):
        with pytest.raises(Invalid) as caught:
            TWO.arrays(wrong)
        assert part in str(caught.value)


def test_examples_read_back_and_check() -> None:
    examples = Examples.record(TEXT, {"TEXT": ["a", "b"]}, {"scores": [[0.1, 0.9], [0.5, 0.5]]})
    again = Examples.from_json(examples.to_json())
    assert again.to_json() == examples.to_json()
    assert again.input_arrays()["TEXT"].tolist() == ["a", "b"]
    assert again.check({"scores": np.array([[0.1, 0.9], [0.5, 0.5]], np.float32)}) == []
    with pytest.raises(PackageError):
        Examples.from_json({"inputs": [{"name": "x"}], "outputs": []})


@pytest.mark.parametrize(
    ("outputs", "part"),
    [
        ({}, "missing"),
        ({"scores": np.zeros((0, 2))}, "shape"),  # what a broken stub returns with status 200
        ({"scores": np.array([[np.nan, 0.9], [0.5, 0.5]])}, "not a finite"),
        ({"scores": np.array([[0.2, 0.9], [0.5, 0.5]])}, "off by up to 0.1"),
        ({"scores": np.array([["a", "b"], ["c", "d"]])}, "not numeric"),
    ],
)
def test_a_wrong_answer_is_found(outputs: dict[str, np.ndarray], part: str) -> None:
    examples = Examples.record(TEXT, {"TEXT": ["a", "b"]}, {"scores": [[0.1, 0.9], [0.5, 0.5]]})
    found = examples.check(outputs)
    assert len(found) == 1
    assert part in found[0]


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=5), st.floats(1e-6, 1e-2), st.floats(-3, 3))
def test_the_tolerance_is_what_divides_right_from_wrong(values: list[float], tolerance: float, factor: float) -> None:
    want = np.array(values)
    shift = factor * tolerance * np.maximum(1.0, np.abs(want))
    found = compare({"y": want}, {"y": want + shift}, tolerance)
    if abs(factor) < 0.99:
        assert found == []
    elif abs(factor) > 1.01:
        assert len(found) == 1


def test_labels_must_be_equal_as_texts_or_bytes() -> None:
    want = np.array(["a", "b"], dtype=object)
    assert compare({"label": want}, {"label": np.array([b"a", b"b"], dtype=object)}, 0.1) == []
    assert "'c' instead of 'b'" in compare({"label": want}, {"label": np.array(["a", "c"], dtype=object)}, 0.1)[0]


@pytest.mark.parametrize(
    ("inputs", "part"),
    [
        ([("a", "FP32")], "input b is missing"),
        ([("a", "FP32"), ("b", "FP32")], "b is FP32, the signature says INT64"),
        ([("a", "FP32"), ("b", "INT64"), ("../c", "FP32")], "'../c' is not in the signature"),
        ([("a", "FP32"), ("b", "INT64"), ("b", "INT64")], "'b' is recorded twice"),
    ],
)
def test_examples_that_are_not_of_this_signature_are_found(inputs: list[tuple[str, str]], part: str) -> None:
    def tensor(name: str, datatype: str) -> dict[str, object]:
        return {"name": name, "datatype": datatype, "shape": [1], "data": [1]}

    outputs = [tensor("y", "FP64")]
    read = Examples.from_json({"inputs": [tensor(*one) for one in inputs], "outputs": outputs})
    (finding,) = read.findings(TWO)
    assert part in finding
    assert (
        Examples.from_json({"inputs": [tensor("a", "FP32"), tensor("b", "INT64")], "outputs": outputs}).findings(TWO)
        == []
    )
