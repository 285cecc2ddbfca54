"""Requests and answers in the inference protocol: REST, binary tensors, gRPC; what is wrong is said."""

from __future__ import annotations

import importlib.util
import json
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from roblox_ml_serving.ranking.answer import Ranked, to_grpc, to_rest
from roblox_ml_serving.ranking.request import BadRequest, RankingRequest, from_grpc, from_rest
from tritonclient.grpc import service_pb2 as v2

_SPEC = importlib.util.spec_from_file_location("ranking_world", Path(__file__).with_name("world.py"))
assert _SPEC is not None and _SPEC.loader is not None
world = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = world
_SPEC.loader.exec_module(world)
TEXTS, NUMBERS = world.spec(candidates="BYTES"), world.spec()


def tensor(name: str, datatype: str, data: list[Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [len(data)], "data": data, **more}


def body(*tensors: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"inputs": tensors, **more}).encode()


USER, ITEMS = tensor("USER", "BYTES", ["ann"]), tensor("CANDIDATES", "INT64", [3, 1, 3])


def packed(texts: list[bytes]) -> bytes:
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


@given(st.text(max_size=8), st.lists(st.text(max_size=8), max_size=6), st.booleans())
def test_json_binary_and_grpc_say_the_same(user: str, items: list[str], with_context: bool) -> None:
    user, items = (
        one.encode("utf-8", "replace").decode()
        if isinstance(one, str)
        else [x.encode("utf-8", "replace").decode() for x in one]
        for one in (user, items)
    )
    context = ['{"hour": 3}'] if with_context else []
    named = [("USER", [user]), ("CANDIDATES", items), *([("CONTEXT", context)] if context else [])]
    plain = from_rest(body(*(tensor(name, "BYTES", values) for name, values in named), id="7"), None, TEXTS)
    raws = [packed([value.encode() for value in values]) for _, values in named]
    inputs = [
        {"name": name, "datatype": "BYTES", "shape": [len(values)], "parameters": {"binary_data_size": len(raw)}}
        for (name, values), raw in zip(named, raws, strict=True)
    ]
    head = json.dumps({"id": "7", "inputs": inputs}).encode()
    assert from_rest(head + b"".join(raws), len(head), TEXTS) == plain
    for raw in (True, False):
        message = v2.ModelInferRequest(id="7")
        for name, values in named:
            one = message.inputs.add(name=name, datatype="BYTES", shape=[len(values)])
            if not raw:
                one.contents.bytes_contents.extend(value.encode() for value in values)
        if raw:
            message.raw_input_contents.extend(raws)
        assert from_grpc(message.SerializeToString(), TEXTS)[:4] == plain[:4]
    assert plain.candidates == tuple(dict.fromkeys(item.encode() for item in items))
    assert plain.context == ({"hour": 3} if context else {})


def test_integers_in_all_three() -> None:
    plain = from_rest(body(USER, ITEMS), None, NUMBERS)
    assert plain.candidates == (3, 1)
    raws = [packed([b"ann"]), np.array([3, 1, 3], "<i8").tobytes()]
    message = v2.ModelInferRequest()
    message.inputs.add(name="USER", datatype="BYTES", shape=[1])
    message.inputs.add(name="CANDIDATES", datatype="INT64", shape=[3])
    message.raw_input_contents.extend(raws)
    assert from_grpc(message.SerializeToString(), NUMBERS).candidates == (3, 1)
    wanted = from_rest(
        body(USER, ITEMS, outputs=[{"name": "SCORES", "parameters": {"binary_data": True}}]), None, NUMBERS
    )
    assert wanted.outputs == ("SCORES",) and wanted.binary == {"SCORES"}


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"", "not JSON"), (b"[]", "object with inputs"), (body(USER), "CANDIDATES missing"),
        (body(ITEMS), "USER missing"), (body(USER, USER, ITEMS), "twice"),
        (body(USER, tensor("CANDIDATES", "BYTES", ["a"])), "takes INT64"),
        (body(tensor("USER", "BYTES", ["a", "b"]), ITEMS), "ranks for one"),
        (body(USER, tensor("CANDIDATES", "INT64", [1.5])), "no 64-bit integer"),
        (body(USER, tensor("CANDIDATES", "INT64", [2**63])), "no 64-bit integer"),
        (body(USER, tensor("CANDIDATES", "INT64", [True])), "no 64-bit integer"),
        (body(USER, {**ITEMS, "shape": [2]}), r"make shape \[3\]"),
        (body(USER, {**ITEMS, "shape": [1, 3]}), "one dimension"),
        (body(USER, {**ITEMS, "shape": [-1]}), "shape of input"),
        (body(USER, ITEMS, tensor("SHOP", "BYTES", ["x"])), "no input 'SHOP'"),
        (body(USER, ITEMS, tensor("CONTEXT", "BYTES", ["[1]"])), "no JSON object"),
        (body(USER, ITEMS, tensor("CONTEXT", "BYTES", ["{}", "{}"])), "one JSON object"),
        (body(USER, ITEMS, outputs=[{"name": "LABEL"}]), "no output 'LABEL'"),
        (body(USER, ITEMS, outputs=[[]]), "must be a list"),
        (body(USER, ITEMS, outputs=[{"name": [], "parameters": [1]}]), "no output"),
        (body(tensor("USER", "BYTES", ["\ud800"]), ITEMS), "surrogate"),
        (body(tensor("USER", "BYTES", ["x" * 1025]), ITEMS), "more than 1024"),
        (body(USER, {"name": "CANDIDATES", "datatype": "INT64", "shape": [1]}), "neither"),
        (body(USER, {**ITEMS, "parameters": {"binary_data_size": 24}}), "both"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(sent: bytes, said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        from_rest(sent, None, NUMBERS)


@settings(max_examples=200)
@given(st.binary(max_size=80), st.data())
def test_whatever_arrives_is_read_or_refused(noise: bytes, data: Any) -> None:
    broken = bytearray(body(USER, ITEMS, tensor("CONTEXT", "BYTES", ['{"hour": 1}'])))
    for _ in range(data.draw(st.integers(0, 3))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(32, 126))
    for sent, length in ((noise, None), (noise, 5), (bytes(broken), None), (bytes(broken) + noise, len(broken))):
        try:
            assert isinstance(from_rest(sent, length, NUMBERS), RankingRequest)
        except BadRequest as error:
            str(error).encode()
    try:
        from_grpc(noise, NUMBERS)
    except BadRequest as error:
        assert str(error)


@pytest.mark.parametrize(("datatype", "items"), [("INT64", [5, -7]), ("BYTES", ["ä".encode(), b"\xff"])])
def test_an_answer_has_the_endpoint_s_name_and_how_much_of_it_is_default(datatype: str, items: list[Any]) -> None:
    ranked = Ranked(items, np.array([0.5, -np.inf], np.float32), datatype, 4)
    asked = RankingRequest("7", b"u", (), {}, ("ITEMS", "SCORES"), frozenset())
    _, plain = to_rest(asked, "feed", "3", ranked)
    tree = json.loads(plain, parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    assert (tree["id"], tree["model_name"], tree["model_version"]) == ("7", "feed", "3")
    assert tree["parameters"] == {"features_defaulted": 4}
    assert [one["shape"] for one in tree["outputs"]] == [[2], [2]]
    headers, mixed = to_rest(asked._replace(binary=frozenset({"SCORES"})), "feed", "3", ranked)
    length = int(dict(headers)[b"inference-header-content-length"])
    assert mixed[length:] == ranked.scores.tobytes()
    message = v2.ModelInferResponse.FromString(to_grpc(asked, "feed", "3", ranked))
    assert message.parameters["features_defaulted"].int64_param == 4
    expected = np.array(items, "<i8").tobytes() if datatype == "INT64" else packed(items)
    assert list(message.raw_output_contents) == [expected, ranked.scores.tobytes()]
