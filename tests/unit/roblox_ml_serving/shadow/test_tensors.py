"""The three ways in which an answer travels read as the same tensors."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from roblox_ml_serving.shadow import Unreadable, read_answer
from roblox_ml_serving.text.answer import to_grpc, to_rest
from roblox_ml_serving.text.request import TextRequest
from tritonclient.grpc import service_pb2 as v2

TYPED = [
    ("BOOL", "bool_contents", [True, False]), ("INT8", "int_contents", [-3, 4]), ("UINT64", "uint64_contents", [2**63, 1]),
    ("INT64", "int64_contents", [-(2**62), 1]), ("FP32", "fp32_contents", [0.5, -1.0]), ("FP64", "fp64_contents", [0.1, 1e300]),
]  # fmt: skip


@given(
    labels=st.lists(st.text(max_size=6), min_size=1, max_size=4), binary=st.sets(st.sampled_from(["label", "scores"]))
)
def test_what_the_door_itself_answers_reads_back_in_both_protocols(labels: list[str], binary: set[str]) -> None:
    request = TextRequest("x", (b"a",) * len(labels), ("label", "scores"), frozenset(binary))
    outputs = {"label": labels, "scores": np.arange(2 * len(labels), dtype="<f4").reshape(-1, 2) / 3}
    headers, body = to_rest(request, "m", "1", outputs)
    length = dict(headers).get(b"inference-header-content-length")
    rest = read_answer("rest", body, None if length is None else int(length))
    grpc = read_answer("grpc", to_grpc(request, "m", "1", outputs))
    for found in (rest, grpc):
        assert [text.decode() for text in found["label"].array] == labels
        assert found["scores"].datatype == "FP32" and np.array_equal(found["scores"].array, outputs["scores"])


@pytest.mark.parametrize(("datatype", "field", "values"), TYPED)
def test_every_datatype_in_json_binary_and_typed_contents(datatype: str, field: str, values: list) -> None:
    tree = {"outputs": [{"name": "y", "datatype": datatype, "shape": [2], "data": values}]}
    from_json = read_answer("rest", json.dumps(tree).encode())["y"]
    message = v2.ModelInferResponse()
    output = message.outputs.add(name="y", datatype=datatype, shape=[2])
    getattr(output.contents, field).extend(values)
    typed = read_answer("grpc", message.SerializeToString())["y"]
    output.ClearField("contents")
    message.raw_output_contents.append(from_json.array.tobytes())
    raw = read_answer("grpc", message.SerializeToString())["y"]
    assert from_json.array.tolist() == values
    for other in (typed, raw):
        assert other.datatype == datatype and np.array_equal(other.array, from_json.array)


def test_nested_json_and_nulls_for_nan() -> None:
    body = {"outputs": [{"name": "y", "datatype": "FP32", "shape": [2, 2], "data": [[1, None], [2, 3]]}]}
    found = read_answer("rest", json.dumps(body).encode())["y"].array
    assert np.isnan(found[0, 1]) and found[1].tolist() == [2, 3]


BROKEN = [
    ("rest", b"", None), ("rest", b"{}", None), ("rest", b'{"error": "boom"}', None), ("rest", b"[1]", None), ("rest", b"{}", 99),
    ("rest", b'{"outputs": [{"name": "y", "datatype": "BF16", "shape": [1], "data": [1]}]}', None),
    ("rest", b'{"outputs": [{"name": "y", "datatype": "FP32", "shape": [3], "data": [1]}]}', None),
    ("rest", b'{"outputs": [{"name": "y", "datatype": "FP32", "shape": [-1], "data": [1]}]}', None),
    ("rest", b'{"outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}}]}', None),
    ("rest", b'{"outputs": 3}', None), ("rest", b'{"outputs": [3]}', None),
    ("grpc", b"\xff", None), ("grpc", v2.ModelInferResponse(raw_output_contents=[b"x"]).SerializeToString(), None),
]  # fmt: skip


@pytest.mark.parametrize(("protocol", "body", "length"), BROKEN)
def test_what_is_no_answer_says_so(protocol: str, body: bytes, length: int | None) -> None:
    with pytest.raises(Unreadable):
        read_answer(protocol, body, length)


def test_the_servers_own_error_is_the_reason() -> None:
    with pytest.raises(Unreadable, match="out of memory"):
        read_answer("rest", b'{"error": "out of memory"}')


@given(st.binary(max_size=60), st.sampled_from(["rest", "grpc"]), st.none() | st.integers(-1, 70))
def test_no_bytes_do_more_than_say_so(body: bytes, protocol: str, length: int | None) -> None:
    try:
        read_answer(protocol, body, length)
    except Unreadable as error:
        assert str(error)
