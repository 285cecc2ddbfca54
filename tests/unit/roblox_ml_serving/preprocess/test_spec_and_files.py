"""What a snapshot may say about preprocessing, and files that are kept, verified, mended and swept."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from roblox_ml_core.errors import RmlError
from roblox_ml_core.storage import BlobStore
from roblox_ml_serving.preprocess import Policy, Spec, SpecInvalid
from roblox_ml_serving.preprocess.files import Files

DIGEST = "a" * 64


def test_a_spec_is_what_it_was_written_as_whatever_the_order_of_its_files() -> None:
    one = Spec.read({"kind": "text", "files": {"b": DIGEST, "a": DIGEST}})
    assert one == Spec.read({"files": {"a": DIGEST, "b": DIGEST}, "kind": "text"})
    assert one is not None and Spec.read(one.to_json()) == one and hash(one) == hash(Spec("text", one.files))
    assert Spec.read(None) is None


@pytest.mark.parametrize(
    "wrong",
    [
        "text",
        [],
        {},
        {"kind": 3},
        {"kind": "../x"},
        {"kind": "text", "files": []},
        {"kind": "text", "files": {"a": "../up"}},
    ],
)
def test_what_is_no_spec_is_refused(wrong: Any) -> None:
    with pytest.raises(SpecInvalid, match="preprocess"):
        Spec.read(wrong)


def test_a_policy_that_says_nothing_is_the_default_and_keeps_nothing() -> None:
    for empty in (None, {}, {"cache": None, "queue": None}, {"later": 1}):
        assert Policy.read(empty) == Policy() and not Policy().caches
    policy = Policy.read({"cache": {"entries": 5, "bytes": 6}, "queue": {"max_wait_ms": 1.5}})
    assert policy == Policy(5, 6, 1.5, 10_000) and policy.caches


@pytest.mark.parametrize(
    "wrong",
    [
        3,
        {"cache": {"entries": -1}},
        {"cache": {"bytes": "many"}},
        {"queue": {"max_wait_ms": 0}},
        {"queue": {"max_wait_ms": float("nan")}},
        {"queue": {"max_rows": 0}},
        {"queue": "x"},
    ],
)
def test_a_policy_out_of_its_range_is_refused(wrong: Any) -> None:
    with pytest.raises(SpecInvalid, match="policy"):
        Policy.read(wrong)


def test_files_are_fetched_once_verified_mended_and_swept(tmp_path: Path) -> None:
    store = BlobStore((tmp_path / "store").as_uri())
    folder = tmp_path / "kept"
    spec = Spec("text", (("model/text.json", store.put(b"plan")),))
    digest = spec.files[0][1]
    files = Files(folder, store)
    assert files.paths(spec) is None
    files.fetch(spec)
    found = files.paths(spec)
    assert found is not None and found["model/text.json"].read_bytes() == b"plan"
    store.delete(digest)
    assert Files(folder, store).paths(spec) == found  # the next door needs no store
    (folder / digest).write_bytes(b"damaged")
    assert Files(folder, store).paths(spec) is None
    with pytest.raises(RmlError):
        Files(folder, store).fetch(spec)
    store.put(b"plan")
    Files(folder, store).fetch(spec)
    assert Files(folder, store).paths(spec) == found
    old = time.time() - 30 * 24 * 3600
    (folder / DIGEST).write_bytes(b"of a model long gone")
    for path in folder.iterdir():
        os.utime(path, (old, old))
    files.sweep([spec])
    assert [path.name for path in folder.iterdir()] == [digest]
