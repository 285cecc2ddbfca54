"""References: what is written is what is read, and nothing else is accepted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from roblox_ml_core.errors import Invalid
from roblox_ml_core.names import MAX_VERSION, Reference, check_alias, check_name, parse_reference, triton_name

NAMES = st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True)
ALIASES = st.from_regex(r"[a-z][a-z0-9_-]{0,62}", fullmatch=True).filter(
    lambda text: text != "latest" and not (text[0] == "v" and text[1:].isdigit())
)
VERSIONS = st.integers(1, MAX_VERSION)
DIGESTS = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)
REFERENCES = st.one_of(
    st.builds(lambda name, version: Reference(name, version=version), NAMES, VERSIONS),
    st.builds(lambda name, alias: Reference(name, alias=alias), NAMES, ALIASES),
    st.builds(lambda name, version, digest: Reference(name, version=version, digest=digest), NAMES, VERSIONS, DIGESTS),
)


@given(REFERENCES)
def test_a_reference_reads_back(reference: Reference) -> None:
    assert parse_reference(str(reference)) == reference


@given(st.text(max_size=40))
def test_whatever_parses_prints_the_same(text: str) -> None:
    try:
        reference = parse_reference(text)
    except Invalid as error:
        assert error.hint
    else:
        assert str(reference) == text


@pytest.mark.parametrize(
    "text",
    ["", "name", "name/", "name/0", "name/03", "name/-1", "name/3@", "name/3@beef", "name@", "name@latest", "name@v3",
     "Name@champion", "name@champion/3", "../x@champion", "name/3@" + "A" * 64, "name/99999999999", "name\n/3", "name@a\n"],
)  # fmt: skip
def test_what_is_no_reference_is_refused_with_a_way_out(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_reference(text)
    assert caught.value.hint


def test_a_bare_name_means_the_default_alias_where_there_is_one() -> None:
    assert parse_reference("name", default_alias="champion") == Reference("name", alias="champion")


def test_a_wrong_name_is_answered_with_a_right_one() -> None:
    with pytest.raises(Invalid) as caught:
        check_name("My Model!")
    assert "'my-model'" in caught.value.hint
    assert check_name("my-model") == "my-model"
    assert check_alias("blue_2") == "blue_2"


@given(NAMES, VERSIONS, NAMES, VERSIONS)
def test_two_versions_never_share_a_name_in_triton(a: str, i: int, b: str, j: int) -> None:
    assert (triton_name(a, i) == triton_name(b, j)) == ((a, i) == (b, j))
