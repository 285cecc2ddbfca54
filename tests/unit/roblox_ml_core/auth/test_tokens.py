"""Service tokens: whole ones are read, everything else is refused without a crash, and none shows itself."""

from __future__ import annotations

import re
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from roblox_ml_core.auth import ServiceToken, digest_of, make, parse
from roblox_ml_core.errors import Unauthorized

WHOLE = make().text


def test_a_new_token_is_read_back_and_none_is_like_another() -> None:
    tokens = [make() for _ in range(200)]
    assert len({token.id for token in tokens}) == len({token.digest for token in tokens}) == 200
    for token in tokens:
        assert parse(token.text) == token
        assert token.digest == digest_of(token.text) and len(token.digest) == 64
        assert token.text.startswith(token.shown + "_")


@given(st.text(max_size=80))
def test_no_text_is_a_token_by_accident(text: str) -> None:
    with pytest.raises(Unauthorized):
        parse(text)


@given(st.text(alphabet=string.ascii_letters + string.digits, min_size=46, max_size=46))
def test_the_right_shape_is_not_enough(tail: str) -> None:
    try:
        token = parse(f"rml_0123456789ab_{tail}")
    except Unauthorized:
        return
    assert token.text.endswith(tail)  # one in 2**32 has its checksum right


@given(st.integers(0, len(WHOLE) - 1), st.characters(min_codepoint=33, max_codepoint=0x3FF))
def test_one_changed_character_is_noticed(position: int, other: str) -> None:
    changed = WHOLE[:position] + other + WHOLE[position + 1 :]
    if changed != WHOLE:
        with pytest.raises(Unauthorized):
            parse(changed)


@given(st.integers(0, len(WHOLE) - 1))
def test_a_cut_one_is_refused(length: int) -> None:
    with pytest.raises(Unauthorized) as refused:
        parse(WHOLE[:length])
    assert WHOLE[17:length] == "" or WHOLE[17:length] not in str(refused.value) or length - 17 < 4


@pytest.mark.parametrize("around", [" {}", "{} ", "{}\n", "{}\0", "Bearer {}", "{0}{0}"])
def test_nothing_may_be_around_it(around: str) -> None:
    with pytest.raises(Unauthorized):
        parse(around.format(WHOLE))


def test_a_token_does_not_show_itself() -> None:
    token: ServiceToken = make()
    secret = token.text.rpartition("_")[2]
    assert secret not in repr(token) and secret not in f"{token}" and secret not in str([token])
    assert token.id in repr(token)


def test_the_page_s_vector_and_pattern_are_true() -> None:
    page = (Path(__file__).resolve().parents[4] / "docs" / "formats" / "tokens.md").read_text("utf-8")
    (row,) = re.findall(r"^\| `(rml_\w+)` \| `([0-9a-f]{64})` \|$", page, re.M)
    assert parse(row[0]).digest == row[1]
    (pattern,) = re.findall(r"^(\\brml_.*)$", page, re.M)
    assert re.search(pattern, f"token={make().text};") and not re.search(pattern, make().shown)
