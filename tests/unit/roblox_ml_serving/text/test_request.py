"""What clients send: read as Triton reads it, and every mistake answered with a sentence, never with anything else."""

from __future__ import annotations

import copy
import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from roblox_ml_serving.text import request as module
from roblox_ml_serving.text.request import MAX_TEXTS, OUTPUTS, BadRequest, TextRequest, from_grpc, from_rest
from tritonclient import grpc as client_grpc
from tritonclient import http as client_http
from tritonclient.grpc import service_pb2 as v2

BOTH = ("label", "scores")
TENSOR: dict[str, Any] = {"name": "TEXT", "datatype": "BYTES", "shape": [2], "data": ["a", "b"]}


def raw(*texts: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def rest(tree: object, tail: bytes = b"", outputs: tuple[str, ...] = BOTH) -> TextRequest:
    head = tree if isinstance(tree, bytes) else json.dumps(tree).encode()
    return from_rest(head + tail, len(head) if tail else None, outputs)


def with_tensor(**fields: Any) -> dict[str, Any]:
    return {"inputs": [{name: value for name, value in (TENSOR | fields).items() if value is not None}]}


def binary(size: int, shape: int = 2, **fields: Any) -> dict[str, Any]:
    return with_tensor(data=None, shape=[shape], parameters={"binary_data_size": size}, **fields)


def message(**fields: Any) -> v2.ModelInferRequest:
    request = v2.ModelInferRequest(model_name="e", id=fields.get("id", ""))
    for name in fields.get("names", ["TEXT"]):
        request.inputs.add(name=name, datatype=fields.get("datatype", "BYTES"), shape=fields.get("shape", [2]))
    if "contents" in fields:
        request.inputs[0].contents.CopyFrom(v2.InferTensorContents(**fields["contents"]))
    request.raw_input_contents.extend(fields.get("raw", []))
    for name in fields.get("outputs", []):
        request.outputs.add(name=name)
    return request


def grpc(outputs_known: tuple[str, ...] = BOTH, **fields: Any) -> TextRequest:
    return from_grpc(message(**fields).SerializeToString(), outputs_known)


def test_a_plain_json_request_asks_for_everything() -> None:
    assert rest({"inputs": [TENSOR]}) == TextRequest("", (b"a", b"b"), BOTH, frozenset())
    assert rest({"id": "7", "inputs": [TENSOR], "outputs": [], "parameters": {}}).id == "7"
    assert rest({"inputs": [TENSOR]}, outputs=OUTPUTS["token"]).outputs == ("entities",)


def test_outputs_are_those_wanted_in_that_order_once() -> None:
    wanted = [{"name": "scores"}, {"name": "label"}, {"name": "scores"}]
    assert rest({"inputs": [TENSOR], "outputs": wanted}).outputs == ("scores", "label")
    assert grpc(raw=[raw(b"a", b"b")], outputs=["scores", "scores"]).outputs == ("scores",)


@pytest.mark.parametrize(
    ("all_binary", "entries", "expected"),
    [
        (True, [], {"label", "scores"}),
        (False, [], set()),
        (False, [{"name": "scores", "parameters": {"binary_data": True}}, {"name": "label"}], {"scores"}),
        (True, [{"name": "scores", "parameters": {"binary_data": True}}, {"name": "label"}], {"scores"}),
    ],
)
def test_which_outputs_are_binary(all_binary: bool, entries: list[Any], expected: set[str]) -> None:
    tree = {"inputs": [TENSOR], "outputs": entries, "parameters": {"binary_data_output": all_binary}}
    assert rest(tree).binary == expected


def test_texts_may_be_any_bytes_in_binary_and_any_characters_in_json() -> None:
    texts = (b"", b"\xff\x00", "😀".encode())
    assert rest(binary(len(raw(*texts)), 3), raw(*texts)).texts == texts
    assert grpc(shape=[3], raw=[raw(*texts)]).texts == texts
    assert grpc(shape=[3], contents={"bytes_contents": texts}).texts == texts
    assert rest(with_tensor(data=["", "a\0b"])).texts == (b"", b"a\0b")
    assert rest(b'{"inputs":[{"name":"TEXT","datatype":"BYTES","shape":[1],"data":["\xff"]}]}').texts == (
        "\ufffd".encode(),
    )
    assert rest(b'{"inputs":[{"name":"TEXT","datatype":"BYTES","shape":[2],"data":["\\ud800x","\\ud83d\\ude00"]}]}').texts == (
        "\ufffdx".encode(), "😀".encode(),
    )  # fmt: skip


def test_no_text_at_all_is_a_request_and_nested_lists_are_flat() -> None:
    assert rest(with_tensor(shape=[0], data=[])).texts == ()
    assert grpc(shape=[0]).texts == ()
    assert rest(with_tensor(data=[["a"], ["b"]])).texts == (b"a", b"b")


def test_ten_thousand_texts_are_one_request_and_too_many_are_refused() -> None:
    texts = [f"text {n}" for n in range(10_000)]
    assert rest(with_tensor(shape=[10_000], data=texts)).texts == tuple(text.encode() for text in texts)
    many = MAX_TEXTS + 1
    with pytest.raises(BadRequest, match="send several requests"):
        rest(binary(4 * many, many), bytes(4 * many))


@settings(max_examples=50, deadline=None)
@given(texts=st.lists(st.binary(max_size=9), max_size=5), binary_in=st.booleans(), binary_out=st.booleans())
def test_what_tritons_client_sends_is_read(texts: list[bytes], binary_in: bool, binary_out: bool) -> None:
    array = np.empty(len(texts), dtype=np.object_)
    array[:] = [text if binary_in else text.decode("utf-8", "replace").encode() for text in texts]
    sent = client_http.InferInput("TEXT", [len(texts)], "BYTES")
    sent.set_data_from_numpy(array, binary_data=binary_in)
    wanted = [client_http.InferRequestedOutput("scores", binary_data=binary_out)]
    body, length = client_http.InferenceServerClient.generate_request_body([sent], outputs=wanted, request_id="x")
    expected = ("x", tuple(array), ("scores",))
    read = from_rest(bytes(body), length, BOTH)
    assert (read[:3], read.binary) == (expected, {"scores"} if binary_out else set())

    over_grpc = client_grpc.InferInput("TEXT", [len(texts)], "BYTES")
    over_grpc.set_data_from_numpy(array)
    request = v2.ModelInferRequest(model_name="e", id="x", inputs=[over_grpc._get_tensor()])
    request.raw_input_contents.append(over_grpc._get_content() or b"")
    request.outputs.append(client_grpc.InferRequestedOutput("scores")._get_tensor())
    assert from_grpc(request.SerializeToString(), BOTH)[:3] == expected


@pytest.mark.parametrize(
    ("tree", "tail", "words"),
    [
        (b"", b"", "the body is empty"),
        (b"{", b"", "not JSON"),
        (b"[" * 100_000, b"", "nested too deeply"),
        (b'{"inputs":' + b"9" * 5000 + b"}", b"", "not JSON"),
        ([], b"", "the request must be a JSON object"),
        ({}, b"", "inputs must be a list"),
        ({"inputs": []}, b"", "names no tensor"),
        ({"inputs": [3]}, b"", "every entry of inputs"),
        ({"inputs": [TENSOR, TENSOR]}, b"", "2 times"),
        ({"inputs": [TENSOR, TENSOR | {"name": "X"}]}, b"", "'X': the model takes 'TEXT' alone"),
        (b'{"inputs": [], "inputs": []}', b"", "'inputs' twice"),
        (with_tensor(datatype="FP32"), b"", "must be BYTES"),
        (with_tensor(shape=[2, 1]), b"", "one dimension"),
        (with_tensor(shape=[]), b"", "one dimension"),
        (with_tensor(shape=[-1]), b"", "[number of texts]"),
        (with_tensor(shape=[2.0]), b"", "[number of texts]"),
        (with_tensor(shape=[True]), b"", "[number of texts]"),
        (with_tensor(shape="2"), b"", "[number of texts]"),
        (with_tensor(shape=[3]), b"", "holds 2 texts, its shape says 3: make shape [2]"),
        (with_tensor(data=["a", 1]), b"", "holds 1: every text"),
        (with_tensor(data=["a", None]), b"", "holds None"),
        (with_tensor(data="ab"), b"", "must be a list of strings"),
        (with_tensor(data=None), b"", "neither data nor"),
        (with_tensor(parameters={"binary_data_size": 3}), b"abc", "both data and binary_data_size"),
        (with_tensor(parameters=3), b"", "parameters of input 'TEXT'"),
        (with_tensor(parameters={"shared_memory_region": "r"}), b"", "shared memory"),
        ({"inputs": [TENSOR], "id": 5}, b"", "id must be a string"),
        ({"inputs": [TENSOR], "outputs": {}}, b"", "outputs must be a list"),
        ({"inputs": [TENSOR], "outputs": [{"name": "x"}]}, b"", "no output 'x': it answers 'label', 'scores'"),
        ({"inputs": [TENSOR], "outputs": [{"name": ["x"]}]}, b"", "no output ['x']"),
        ({"inputs": [TENSOR], "outputs": [{"name": "label", "parameters": {"classification": 2}}]}, b"", "classification"),
        ({"inputs": [TENSOR], "outputs": [{"name": "label", "parameters": {"binary_data": 1}}]}, b"", "true or false"),
        ({"inputs": [TENSOR], "parameters": {"binary_data_output": "yes"}}, b"", "true or false"),
        ({"inputs": [TENSOR]}, b"abc", "no binary_data_size"),
        (binary(9), raw(b"a", b"b"), "binary_data_size of input 'TEXT' is 9, but 10 bytes"),
        (binary(10), raw(b"a", b"b") + b"z", "but 11 bytes"),
        (binary(True), raw(b"a"), "is True"),
        (binary(12), raw(b"a", b"b") + b"zz", "2 bytes behind the 2 texts"),
        (binary(7), raw(b"a") + b"zz", "inside the length of text 1"),
        (binary(10), raw(b"a") + struct.pack("<I", 9) + b"b", "text 1 has 9 bytes, but 1 are left"),
        (binary(5), raw(b"a"), "holds 1 texts, its shape says 2"),
    ],
)  # fmt: skip
def test_every_mistake_over_rest_has_its_sentence(tree: object, tail: bytes, words: str) -> None:
    with pytest.raises(BadRequest) as refused:
        rest(tree, tail)
    assert words in str(refused.value)


@pytest.mark.parametrize("length", [0, -1, 10**9])
def test_a_header_that_lies_about_the_json_is_refused(length: int) -> None:
    with pytest.raises(BadRequest, match="Inference-Header-Content-Length"):
        from_rest(json.dumps({"inputs": [TENSOR]}).encode(), length)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"names": []}, "names no tensor"),
        ({"names": ["TEXT", "TEXT"]}, "2 times"),
        ({"names": ["text"]}, "takes 'TEXT' alone"),
        ({"datatype": "INT32"}, "must be BYTES"),
        ({"shape": [1, 2]}, "one dimension"),
        ({"shape": [-2]}, "[number of texts]"),
        ({}, "holds 0 texts, its shape says 2"),
        ({"contents": {"bytes_contents": [b"a"]}}, "holds 1 texts"),
        ({"contents": {"int_contents": [1]}}, "texts go into bytes_contents"),
        ({"contents": {"bytes_contents": [b"a", b"b"]}, "raw": [raw(b"a", b"b")]}, "both contents and raw"),
        ({"raw": [raw(b"a"), raw(b"b")]}, "has 2 entries for one input"),
        ({"raw": [b"\xff\xff\xff\xff"]}, "text 0 has 4294967295 bytes"),
        ({"raw": [raw(b"a", b"b", b"c")]}, "behind the 2 texts"),
        ({"raw": [raw(b"a", b"b")], "outputs": ["x"]}, "no output 'x'"),
    ],
)
def test_every_mistake_over_grpc_has_its_sentence(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequest) as refused:
        grpc(**fields)
    assert words in str(refused.value)


def test_parameters_that_grpc_cannot_honour_are_refused() -> None:
    request = message(raw=[raw(b"a", b"b")], outputs=["scores"])
    request.outputs[0].parameters["classification"].int64_param = 1
    with pytest.raises(BadRequest, match="classification"):
        from_grpc(request.SerializeToString())
    shared = message()
    shared.inputs[0].parameters["shared_memory_region"].string_param = "r"
    with pytest.raises(BadRequest, match="shared memory"):
        from_grpc(shared.SerializeToString())


GOOD = (
    json.dumps(
        {"id": "1", "inputs": [TENSOR], "outputs": [{"name": "label"}], "parameters": {"binary_data_output": True}}
    ).encode(),
    json.dumps(binary(10)).encode() + raw(b"a", b"b"),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=5,
)


EDITS = st.lists(st.tuples(st.integers(0, 250), st.binary(max_size=3)), max_size=4)


def paths(tree: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [at, *(path for key, value in inner for path in paths(value, (*at, key)))]


def outcome(body: bytes, length: int | None) -> TextRequest | None:
    """The request, or None for a refusal; anything else fails the test that asks."""
    try:
        read = from_rest(body, length, BOTH)
    except BadRequest as refused:
        assert 10 < len(str(refused)) < 600
        str(refused).encode()
        return None
    assert set(read.outputs) <= set(BOTH) and read.binary <= set(read.outputs)
    return read


@settings(max_examples=300, deadline=None)
@given(body=st.sampled_from(GOOD), length=st.none() | st.integers(-5, 200), edits=EDITS)
def test_broken_bytes_are_read_or_refused(body: bytes, length: int | None, edits: list[tuple[int, bytes]]) -> None:
    for at, new in edits:
        body = body[:at] + new + body[at + len(new) :]
    outcome(body, length)


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_any_value_in_any_place_is_read_or_refused(data: st.DataObject) -> None:
    tree = copy.deepcopy(json.loads(GOOD[0]))
    path = data.draw(st.sampled_from(paths(tree)))
    value = data.draw(JSON)
    if path:
        place = tree
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
    else:
        tree = value
    outcome(json.dumps(tree).encode(), None)


@settings(max_examples=200, deadline=None)
@given(texts=st.lists(st.binary(max_size=5), max_size=4), noise=st.binary(max_size=6), count=st.integers(0, 5))
def test_lengths_that_lie_never_give_other_texts(texts: list[bytes], noise: bytes, count: int) -> None:
    tail = raw(*texts) + noise
    head = json.dumps(binary(len(tail), count)).encode()
    read = outcome(head + tail, len(head))
    if read is not None:
        assert len(read.texts) == count
        assert raw(*read.texts) == tail


@settings(max_examples=200, deadline=None)
@given(edits=EDITS, noise=st.binary(max_size=40))
def test_broken_grpc_messages_are_read_or_refused(edits: list[tuple[int, bytes]], noise: bytes) -> None:
    body = message(id="1", raw=[raw(b"a", b"b")], outputs=["label"]).SerializeToString()
    for at, new in edits:
        body = body[:at] + new + body[at + len(new) :]
    for candidate in (body, noise):
        try:
            from_grpc(candidate, BOTH)
        except BadRequest as refused:
            assert str(refused)


def test_the_example_in_the_sentences_is_a_good_request() -> None:
    assert from_rest(module._EXAMPLE.encode()).texts == (b"a text", b"another")
