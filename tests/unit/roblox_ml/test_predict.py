"""Values to tensors and back: exact for every datatype, and wrong values are explained with what the model takes."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from roblox_ml._predict import InputError, Prediction, Tensor, encode, from_rest, to_rest

NUMPY = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64, "INT8": np.int8,
    "INT16": np.int16, "INT32": np.int32, "INT64": np.int64, "FP16": np.float16, "FP32": np.float32, "FP64": np.float64,
}  # fmt: skip
TEXT = [{"name": "TEXT", "datatype": "BYTES", "shape": [-1]}]
ROWS = [{"name": "X", "datatype": "FP32", "shape": [-1, 2]}]
TWO = [{"name": "a", "datatype": "INT64", "shape": [-1]}, {"name": "b", "datatype": "BYTES", "shape": [-1]}]


@given(data=st.data(), datatype=st.sampled_from(sorted(NUMPY)), columns=st.integers(1, 3), as_list=st.booleans())
def test_numbers_are_the_bytes_numpy_has_and_come_back(data, datatype: str, columns: int, as_list: bool) -> None:
    shape = st.tuples(st.integers(1, 4), st.just(columns))
    values = data.draw(hnp.arrays(NUMPY[datatype], shape))
    (tensor,) = encode(
        values.tolist() if as_list else values, [{"name": "x", "datatype": datatype, "shape": [-1, columns]}]
    )
    assert tensor.shape == values.shape
    np.testing.assert_array_equal(np.frombuffer(tensor.raw, NUMPY[datatype]).reshape(values.shape), values)
    np.testing.assert_array_equal(np.array(tensor.values()), values)


@given(texts=st.lists(st.text(st.characters(blacklist_categories=["Cs"]))))
def test_texts_are_length_prefixed_as_the_protocol_says(texts: list[str]) -> None:
    from tritonclient.utils import serialize_byte_tensor

    (tensor,) = encode(texts, TEXT)
    serialized = serialize_byte_tensor(np.array([text.encode() for text in texts], dtype=object))
    assert tensor.raw == (serialized.item() if texts else b"")
    assert tensor.values() == texts


@given(
    texts=st.lists(st.text(st.characters(blacklist_categories=["Cs"])), max_size=4),
    numbers=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4),
)
def test_a_request_read_back_as_an_answer_is_the_same_tensors(texts, numbers) -> None:
    tensors = encode({"b": texts, "a": numbers}, TWO)
    body, head = to_rest(tensors)
    assert from_rest(body.replace(b'"inputs"', b'"outputs"', 1), head + 1) == tensors


def test_a_json_answer_is_read_too() -> None:
    label = b'{"name":"label","datatype":"BYTES","shape":[2],"data":["a","b"]}'
    body = b'{"outputs":[%b,{"name":"s","datatype":"FP32","shape":[2,1],"data":[0.5,1]}]}' % label
    assert [tensor.values() for tensor in from_rest(body, None)] == [["a", "b"], [[0.5], [1.0]]]


def test_frames_series_and_arrays() -> None:
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    assert [tensor.values() for tensor in encode(frame, TWO)] == [[1, 2], ["x", "y"]]
    assert encode(pd.DataFrame({"p": [1.0, 2], "q": [3.0, 4]}), ROWS)[0].values() == [[1.0, 3.0], [2.0, 4.0]]
    assert encode(pd.Series(["x"]), TEXT)[0].values() == ["x"]
    assert encode(np.array(["x", "yy"]), TEXT)[0].values() == ["x", "yy"]
    assert math.isnan(encode([[float("nan"), 1]], ROWS)[0].values()[0][0])


@pytest.mark.parametrize(
    ("inputs", "wanted", "words"),
    [
        ("gg", TEXT, r"predict\(\['gg'\]\)"),
        ([1], TEXT, "cannot become BYTES"),
        ([["x"]], TEXT, r"has shape \[1, 1\], the model takes \[-1\]"),
        ([[1, 2, 3]], ROWS, r"the model takes \[-1, 2\]"),
        ([[1, 2], [3]], ROWS, "rows have different lengths"),
        ([["x", "y"]], ROWS, "holds text"),
        ({"Y": []}, ROWS, "missing 'X', unknown 'Y'"),
        ([1, 2], TWO, "the model has 2 inputs"),
        ({"a": [1.5], "b": ["x"]}, TWO, "cannot become INT64"),
        ({"a": np.array([1.5]), "b": ["x"]}, TWO, "cannot become INT64"),
        ({"a": 7, "b": ["x"]}, TWO, "is a int, not a list or array"),
        ({"a": [2**63], "b": ["x"]}, TWO, "cannot become INT64"),
        ([[1]], [{"name": "x", "datatype": "BF16", "shape": [-1, 1]}], "BF16 is not supported"),
    ],
)
def test_wrong_inputs_say_what_the_model_takes(inputs, wanted, words: str) -> None:
    with pytest.raises(InputError, match=words) as refused:
        encode(inputs, wanted)
    assert "predict(" in str(refused.value)


def test_a_prediction_reads_like_a_list_of_rows() -> None:
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]], dtype=np.float64)
    labels = encode(["<b>", "no", "x"], [{"name": "label", "datatype": "BYTES", "shape": [-1]}])
    tensors = [*labels, Tensor("scores", "FP64", (3, 2), scores.tobytes())]
    prediction = Prediction(tensors, version=3, inference_id="i")
    assert prediction.labels == ["<b>", "no", "x"]
    assert prediction.scores == scores.tolist()
    assert (len(prediction), prediction[-1], prediction[1:]) == (
        3,
        {"label": "x", "scores": [0.5, 0.5]},
        list(prediction)[1:],
    )
    assert repr(prediction[:1]) == "[{'label': '<b>', 'scores': [0.9, 0.1]}]"
    assert "<td>&lt;b&gt;</td>" in prediction._repr_html_() and "version 3" in prediction._repr_html_()
    with pytest.raises(IndexError):
        prediction[3]
    with pytest.raises(AttributeError, match="no output 'label'; it has y"):
        Prediction([Tensor("y", "FP64", (3, 2), scores.tobytes())], version=None, inference_id=None).labels
