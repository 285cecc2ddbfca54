"""The wire format: what is written is read, whatever else arrives is refused, and the page's bytes are these."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from roblox_ml_serving.ranking.wire import (
    Ask,
    Block,
    Rows,
    WireError,
    read_answer,
    read_request,
    write_answer,
    write_request,
)

PAGE = Path(__file__).resolve().parents[4] / "docs" / "formats" / "feature-wire.md"
NAMES = st.text(min_size=1, max_size=8)
KEYS = st.one_of(
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20), st.lists(st.binary(max_size=12), min_size=1, max_size=20)
)


@st.composite
def requests(draw: st.DrawFn) -> tuple[list[Block], list[Ask]]:
    blocks = [Block(draw(NAMES), draw(KEYS)) for _ in range(draw(st.integers(1, 3)))]
    features = st.lists(NAMES, min_size=1, max_size=4).map(tuple)
    asks = draw(st.lists(st.builds(Ask, NAMES, st.integers(0, len(blocks) - 1), features), max_size=4))
    return blocks, asks


@st.composite
def answers(draw: st.DrawFn) -> list[Rows]:
    found = []
    for _ in range(draw(st.integers(0, 3))):
        features, count = draw(st.integers(0, 4)), draw(st.integers(0, 20))
        numbers = st.floats(width=32, allow_infinity=False)
        values = draw(st.lists(numbers, min_size=features * count, max_size=features * count))
        ages = draw(st.lists(st.floats(0, 1e6, width=32) | st.just(np.nan), min_size=count, max_size=count))
        shaped = np.array(values, np.float32).reshape(features, count)
        found.append(Rows(draw(NAMES), np.array(ages, np.float32), shaped, draw(st.just("") | NAMES)))
    return found


@given(requests())
def test_a_request_is_read_as_it_was_written(request: tuple[list[Block], list[Ask]]) -> None:
    blocks, asks = read_request(write_request(*request))
    assert [(block.entity, list(block.keys)) for block in blocks] == [(b.entity, list(b.keys)) for b in request[0]]
    assert asks == request[1]


@given(answers())
def test_an_answer_is_read_as_it_was_written(answer: list[Rows]) -> None:
    body = write_answer(answer)
    assert len(body) % 4 == 0
    for one, two in zip(read_answer(body), answer, strict=True):
        assert (one.view, one.error) == (two.view, two.error)
        assert np.array_equal(one.ages, two.ages, equal_nan=True)
        assert np.array_equal(one.values, two.values, equal_nan=True)


def test_a_value_that_is_no_number_is_not_the_same_as_none() -> None:
    body = bytearray(write_answer([Rows("v", np.zeros(2), np.array([[1.5, np.nan]], np.float32))]))
    at = bytes(body).index(np.float32(1.5).tobytes())
    body[at : at + 4] = np.float32(np.nan).tobytes()  # the bitmap says it is a value
    (rows,) = read_answer(bytes(body))
    assert np.isinf(rows.values[0, 0]) and np.isnan(rows.values[0, 1])


@settings(max_examples=300)
@given(
    st.one_of(requests().map(lambda r: write_request(*r)), answers().map(write_answer), st.binary(max_size=64)),
    st.data(),
)
def test_whatever_arrives_is_read_or_refused(body: bytes, data: Any) -> None:
    broken = bytearray(body)
    for _ in range(data.draw(st.integers(0, 3))):
        if broken:
            broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(broken[: data.draw(st.integers(0, len(broken)))])
    for read in (read_request, read_answer):
        try:
            read(cut)
        except WireError as error:
            assert str(error)


def test_other_versions_and_too_many_keys_have_codes_of_their_own() -> None:
    body = write_request([Block("item", list(range(10)))], [])
    with pytest.raises(WireError) as version:
        read_request(body.replace(b'"version":1', b'"version":2'))
    assert version.value.code == "unsupported_version"
    with pytest.raises(WireError) as many:
        read_request(write_request([Block("item", list(range(100_001)))], []))
    assert many.value.code == "too_many_keys"
    with pytest.raises(WireError) as values:
        read_request(write_request([Block("item", list(range(90_000)))], [Ask("v", 0, ("x",))] * 90))
    assert values.value.code == "too_many_values"
    with pytest.raises(WireError, match="no list of features"):
        read_request(write_request([], [Ask("v", 0, ())]).replace(b'"features":[]', b'"features":""'))
    with pytest.raises(WireError, match="follow the last keys"):
        read_request(body + b"x")


def test_the_page_s_bytes() -> None:
    request, answer = (
        bytes.fromhex("".join(block.split()))
        for block in re.findall(r"```hex\n(.*?)```", PAGE.read_text("utf-8"), re.S)
    )
    blocks, asks = read_request(request)
    assert blocks == [Block("user", [b"u1"]), Block("item", [7, 12])]
    assert asks == [Ask("user_profile", 0, ("age",)), Ask("item_stats", 1, ("ctr", "price"))]
    assert write_request(blocks, asks) == request
    user, item = read_answer(answer)
    assert (user.view, user.ages.tolist(), user.values.tolist()) == ("user_profile", [3600.0], [[33.0]])
    assert item.ages[0] == 60 and np.isnan(item.ages[1])
    assert item.values[:, 0].tolist() == [0.25, 9.5] and np.isnan(item.values[:, 1]).all()
    assert write_answer([user, item]) == answer
