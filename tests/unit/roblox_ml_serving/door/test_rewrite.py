"""Names are replaced, every other byte stays: on messages a client library makes, on arbitrary bytes, on Triton's JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from roblox_ml_serving.door.rewrite import Malformed, rename_json, rename_request, rename_response, scan, wrap
from tritonclient.grpc import service_pb2 as v2

names = st.text(st.characters(blacklist_categories=["Cs"]), max_size=20)
tensors = st.lists(
    st.tuples(
        names, st.sampled_from(["BYTES", "FP32"]), st.lists(st.integers(-1, 2**40), max_size=3), st.binary(max_size=300)
    ),
    max_size=4,
)


@st.composite
def requests(draw) -> v2.ModelInferRequest:
    drawn = draw(tensors)
    message = v2.ModelInferRequest(
        model_name=draw(names), model_version=draw(names), id=draw(names),
        inputs=[v2.ModelInferRequest.InferInputTensor(name=n, datatype=d, shape=s) for n, d, s, _ in drawn],
        raw_input_contents=[raw for *_, raw in drawn],
    )  # fmt: skip
    message.parameters[draw(names)].int64_param = draw(st.integers(-(2**63), 2**63 - 1))
    return message


def unknown_fields() -> st.SearchStrategy[bytes]:
    """Fields of a later version of the protocol, of every wire type."""

    def field(number: int, kind: int, payload: bytes) -> bytes:
        tag = number << 3 | kind
        head = bytes([tag & 0x7F | 0x80, tag >> 7]) if tag > 0x7F else bytes([tag])
        return head + {0: b"\x96\x01", 1: b"12345678", 2: bytes([len(payload)]) + payload, 5: b"1234"}[kind]

    return st.builds(field, st.integers(8, 400), st.sampled_from([0, 1, 2, 5]), st.binary(max_size=30))


@given(message=requests(), extra=st.lists(unknown_fields(), max_size=3), name=names, version=names)
def test_only_the_names_change(message, extra: list[bytes], name: str, version: str) -> None:
    raw = message.SerializeToString() + b"".join(extra)
    found = scan(raw)
    assert (found.name, found.version) == (message.model_name, message.model_version)
    renamed = rename_request(raw, found, name, version)
    expected = v2.ModelInferRequest.FromString(raw)
    expected.model_name, expected.model_version = name, version
    assert v2.ModelInferRequest.FromString(renamed) == expected
    bare = v2.ModelInferRequest.FromString(raw)
    bare.ClearField("model_name")
    bare.ClearField("model_version")
    kept = b"".join(raw[start:end] for start, end in found.rest)
    assert renamed.endswith(kept)
    assert v2.ModelInferRequest.FromString(kept) == bare


@given(message=requests(), others=st.lists(st.tuples(st.sampled_from([1, 2]), names), max_size=4), split=st.data())
def test_with_several_names_the_last_counts_wherever_it_stands(message, others, split) -> None:
    raw = message.SerializeToString() + b"".join(wrap(number, text.encode()) for number, text in others)
    truth = v2.ModelInferRequest.FromString(raw)
    assert scan(raw)[:2] == (truth.model_name, truth.model_version)
    renamed = v2.ModelInferRequest.FromString(rename_request(raw, scan(raw), "only", "1"))
    assert (renamed.model_name, renamed.model_version) == ("only", "1")


@given(raw=st.binary(max_size=200))
def test_arbitrary_bytes_are_read_as_protobuf_reads_them_or_refused(raw: bytes) -> None:
    try:
        found = scan(raw)
    except Malformed:
        return
    try:
        truth = v2.ModelInferRequest.FromString(raw)
    except Exception:
        return  # malformed deeper down: the model server will say so
    assert (found.name, found.version) == (truth.model_name, truth.model_version)
    assert sum(end - start for start, end in found.rest) <= len(raw)


@given(message=requests(), cut=st.integers(0, 10_000), flip=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_damaged_messages_never_raise_anything_else(message, cut: int, flip: int, bit: int) -> None:
    raw = bytearray(message.SerializeToString())
    raw = raw[: cut % (len(raw) + 1)]
    if raw:
        raw[flip % len(raw)] ^= 1 << bit
    try:
        rename_response(bytes(raw), "x")
    except Malformed:
        assert raw


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"\x0a", "ends inside a number"),
        (b"\x0a\x05ab", "longer than the message"),
        (b"\x08\x01", "not a string"),
        (b"\x0b", "wire type 3"),
        (b"\x00\x00", "field number 0"),
        (b"\x0a\x01\xff", "not UTF-8"),
        (b"\x2a" + b"\xff" * 10, "more than 10 bytes"),
    ],
)
def test_malformed_is_named(raw: bytes, words: str) -> None:
    with pytest.raises(Malformed, match=words):
        scan(raw)


def test_a_response_keeps_its_version() -> None:
    raw = v2.ModelInferResponse(
        model_name="m.3", model_version="3", id="i", raw_output_contents=[b"x"]
    ).SerializeToString()
    assert v2.ModelInferResponse.FromString(rename_response(raw, "m")) == v2.ModelInferResponse(
        model_name="m", model_version="3", id="i", raw_output_contents=[b"x"]
    )


values = st.recursive(
    st.none() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


rests = st.dictionaries(st.text(max_size=9), values, max_size=4)


@given(identity=st.none() | st.text(), rest=rests, tail=st.binary(max_size=50), spaced=st.booleans())
def test_json_is_renamed_in_its_head_and_nowhere_else(identity, rest, tail: bytes, spaced: bool) -> None:
    def document(name: str) -> bytes:
        head = {} if identity is None else {"id": identity}
        whole = {**head, "model_name": name, **{k: v for k, v in rest.items() if k not in ("id", "model_name")}}
        return json.dumps(whole, separators=(", ", ": ") if spaced else (",", ":"), ensure_ascii=False).encode(
            "utf-8", "surrogatepass"
        )

    assert rename_json(document("m.3") + tail, "m.3", "m") == document("m") + tail
    assert rename_json(document("m.33") + tail, "m.3", "m") == document("m.33") + tail


@given(body=st.binary(max_size=200))
def test_other_bodies_pass_as_they_are(body: bytes) -> None:
    assert rename_json(body, "m.3", "m") == body


def test_an_id_that_looks_like_the_head_is_left_alone() -> None:
    inner = '","model_name":"m.3","x":"'
    body = json.dumps({"id": inner, "model_name": "m.3"}, separators=(",", ":")).encode()
    assert json.loads(rename_json(body, "m.3", "m")) == {"id": inner, "model_name": "m"}
