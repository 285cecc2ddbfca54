"""Answers in v2: what Triton's own clients read is what was given, byte for byte."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from roblox_ml_serving.text.answer import to_grpc, to_rest
from roblox_ml_serving.text.request import TextRequest
from tritonclient import grpc as client_grpc
from tritonclient import http as client_http
from tritonclient.grpc import service_pb2 as v2

LABELS = [b"toxic", 'a"b\\ é😀'.encode()]
SCORES = np.array([[0.1, 0.9], [1e-30, 1.0]], np.float32)
FULL: dict[str, Any] = {"label": LABELS, "scores": SCORES}


def wanted(
    outputs: tuple[str, ...] = ("label", "scores"), binary: frozenset[str] = frozenset(), identity: str = ""
) -> TextRequest:
    return TextRequest(identity, (b"x",) * 2, outputs, binary)


def read_rest(headers: list[tuple[bytes, bytes]], body: bytes) -> Any:
    length = dict(headers).get(b"inference-header-content-length")
    return client_http.InferenceServerClient.parse_response_body(body, header_length=int(length) if length else None)


def test_json_is_the_protocol_and_nothing_else() -> None:
    headers, body = to_rest(wanted(identity='i"d'), "clf", "3", FULL)
    assert headers == [(b"content-type", b"application/json")]
    assert json.loads(body) == {
        "id": 'i"d',
        "model_name": "clf",
        "model_version": "3",
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["toxic", 'a"b\\ é😀']},
            {"name": "scores", "datatype": "FP32", "shape": [2, 2], "data": SCORES.astype(float).ravel().tolist()},
        ],
    }
    assert b'"id"' not in to_rest(wanted(), "clf", "3", FULL)[1]


@pytest.mark.parametrize("binary", [(), ("label",), ("scores",), ("scores", "label")])
@pytest.mark.parametrize("outputs", [("label", "scores"), ("scores", "label"), ("scores",)])
def test_tritons_http_client_reads_what_was_given(binary: tuple[str, ...], outputs: tuple[str, ...]) -> None:
    headers, body = to_rest(wanted(outputs, frozenset(binary) & frozenset(outputs)), "clf", "3", FULL)
    result = read_rest(headers, body)
    assert [output["name"] for output in result.get_response()["outputs"]] == list(outputs)
    assert (result.as_numpy("scores") == SCORES).all()
    if "label" in outputs:
        labels = [text if isinstance(text, bytes) else text.encode() for text in result.as_numpy("label").tolist()]
        assert labels == LABELS
    else:
        assert result.as_numpy("label") is None


@settings(max_examples=60, deadline=None)
@given(data=st.data(), rows=st.integers(0, 4), binary=st.booleans())
def test_any_rows_travel_unchanged(data: st.DataObject, rows: int, binary: bool) -> None:
    scores = data.draw(arrays(np.float32, (rows, 3), elements=st.floats(0, 1, width=32)))
    labels = data.draw(
        st.lists(st.text(alphabet=st.characters(codec="utf-8"), max_size=6), min_size=rows, max_size=rows)
    )
    outputs = {"label": labels, "scores": scores}
    request = wanted(binary=frozenset(outputs) if binary else frozenset(), identity="q")
    answers = (
        read_rest(*to_rest(request, "clf", "3", outputs)),
        client_grpc.InferResult(v2.ModelInferResponse.FromString(to_grpc(request, "clf", "3", outputs))),
    )
    for result in answers:
        got = result.as_numpy("scores")
        assert got.dtype == np.float32 and got.shape == (rows, 3) and (got == scores).all()
        texts = [text.decode() if isinstance(text, bytes) else text for text in result.as_numpy("label").tolist()]
        assert texts == labels


def test_grpc_names_the_endpoint_and_keeps_the_id() -> None:
    response = v2.ModelInferResponse.FromString(to_grpc(wanted(("scores",), identity="q"), "clf", "3", FULL))
    assert (response.model_name, response.model_version, response.id) == ("clf", "3", "q")
    assert [(o.name, o.datatype, list(o.shape)) for o in response.outputs] == [("scores", "FP32", [2, 2])]
    assert list(response.raw_output_contents) == [SCORES.tobytes()]


def test_entities_are_texts() -> None:
    outputs = {"entities": [b"[]", '[{"text":"Öster"}]'.encode()]}
    request = wanted(("entities",), frozenset(("entities",)))
    assert read_rest(*to_rest(request, "ner", "1", outputs)).as_numpy("entities").tolist() == outputs["entities"]
    assert (
        json.loads(to_rest(wanted(("entities",)), "ner", "1", outputs)[1])["outputs"][0]["data"][1]
        == '[{"text":"Öster"}]'
    )
