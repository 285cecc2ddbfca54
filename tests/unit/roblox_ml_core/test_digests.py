"""Digests name bytes; canonical JSON names values."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from roblox_ml_core.digests import canonical_json, check_digest, is_digest, sha256_bytes, sha256_file, sha256_json, tree
from roblox_ml_core.errors import Invalid

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(st.binary(max_size=5000))
def test_a_file_has_the_digest_of_its_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "file"
    path.write_bytes(data)
    assert sha256_file(path) == sha256_bytes(data) == hashlib.sha256(data).hexdigest()
    assert is_digest(sha256_bytes(data))


@given(JSON)
def test_canonical_json_keeps_the_value_and_forgets_the_order(value: object) -> None:
    text = canonical_json(value)
    assert json.loads(text) == value
    assert canonical_json(json.loads(text)) == text


@given(st.dictionaries(st.text(), st.integers(), min_size=2))
def test_the_order_of_keys_does_not_change_a_digest(value: dict[str, int]) -> None:
    assert sha256_json(dict(reversed(value.items()))) == sha256_json(value)


@pytest.mark.parametrize("text", ["", "A" * 64, "a" * 63, "a" * 65, "a" * 64 + "\n", "../" + "a" * 61, "g" * 64])
def test_only_a_digest_is_a_digest(text: str) -> None:
    assert not is_digest(text)
    with pytest.raises(Invalid):
        check_digest(text)


def test_nan_has_no_canonical_form() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json({"f1": float("nan")})


def test_a_tree_lists_files_and_refuses_links(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/b").write_bytes(b"x")
    (tmp_path / "c").write_bytes(b"")
    assert tree(tmp_path) == {
        "a/b": {"sha256": sha256_bytes(b"x"), "size": 1},
        "c": {"sha256": sha256_bytes(b""), "size": 0},
    }
    (tmp_path / "link").symlink_to("c")
    with pytest.raises(Invalid, match="symbolic link"):
        tree(tmp_path)
