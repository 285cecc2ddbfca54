"""The package format: what is written verifies, what is changed does not, and nothing leaves its folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from roblox_ml_core.errors import IntegrityError, NotFound, PackageError
from roblox_ml_core.package import (
    ModelPackage,
    Signature,
    TensorSpec,
    check_manifest,
    check_path,
    manifest,
    materialise,
    package_digest,
    read,
    upload,
    verify,
    write,
)
from roblox_ml_core.storage import BlobStore

SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("y", "FP32", (-1, 2)),))


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., ModelPackage]:
    def make(name: str = "one", **fields: Any) -> ModelPackage:
        code = tmp_path / name / "model/code"
        code.mkdir(parents=True, exist_ok=True)
        (code / "scale.py").write_text("def predict(batch):\n    return {'y': 2 * batch['x']}\n")
        return write(
            tmp_path / name,
            **{"format": "python", "signature": SIGNATURE, "options": {"entry": "scale:predict"}, **fields},
        )

    return make


def test_the_same_content_has_the_same_digest_wherever_and_whatever_it_scored(
    build: Callable[..., ModelPackage],
) -> None:
    one, two, three = build("one"), build("two", metrics={"f1": 0.9}), build("three", labels=["a"])
    assert one.digest == two.digest
    assert one.digest != three.digest
    assert two.metrics == {"f1": 0.9}
    assert "metrics.json" not in two.info["files"]
    # A package.json that lists the metrics all the same means the same package.
    listed = {**one.info, "files": {**one.info["files"], "metrics.json": {"sha256": "0" * 64, "size": 1}}}
    assert package_digest(listed) == one.digest


def test_every_finding_is_in_the_one_error(build: Callable[..., ModelPackage]) -> None:
    package = build()
    (package.root / "model/code/scale.py").write_text("changed")
    (package.root / "MLmodel").unlink()
    (package.root / "model/extra").write_text("")
    with pytest.raises(PackageError) as caught:
        verify(package.root, "0" * 64)
    for part in ("scale.py was changed", "MLmodel is missing", "extra is not listed", "expected " + "0" * 64):
        assert part in caught.value.message


def test_a_directory_that_is_no_package_is_said_to_be_none(tmp_path: Path, build: Callable[..., ModelPackage]) -> None:
    with pytest.raises(PackageError, match=r"no package\.json"):
        read(tmp_path)
    package = build()
    info = {**package.info, "schema": 2, "format": "pickle", "labels": "ab", "options": 3}
    (package.root / "package.json").write_text(json.dumps(info))
    with pytest.raises(PackageError) as caught:
        read(package.root)
    for part in ("schema 2", "'pickle'", "labels", "options"):
        assert part in caught.value.message


def test_a_format_s_files_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"needs model/model\.onnx"):
        write(tmp_path / "p", format="onnx", signature=SIGNATURE)


@pytest.mark.parametrize(
    "path",
    ["", "/etc/passwd", "../x", "a/../../x", "a//b", "./a", "a/", "a\\..\\b", "C:/x", "a\0b", "a\nb", ".", "x" * 513],
)
def test_paths_that_leave_the_package_are_refused(path: str) -> None:
    with pytest.raises(PackageError):
        check_path(path)


@given(st.text(max_size=30))
def test_a_path_that_passes_stays_inside(path: str) -> None:
    try:
        check_path(path)
    except PackageError:
        return
    base = Path("/base/folder")
    joined = Path(shutil.os.path.normpath(base / path))
    assert joined.is_relative_to(base)
    assert joined != base


def test_a_package_travels_through_the_store(build: Callable[..., ModelPackage], tmp_path: Path) -> None:
    package, store = build(metrics={"f1": 1.0}), BlobStore(str(tmp_path / "store"))
    files = upload(package.root, store)
    assert files == manifest(package.root)
    assert set(files) == {*package.info["files"], "package.json", "metrics.json"}
    copy = materialise(files, store, tmp_path / "copy", package.digest)
    assert (copy.digest, copy.metrics) == (package.digest, {"f1": 1.0})
    # A second call finds it there and verifies it.
    assert materialise(files, store, tmp_path / "copy", package.digest).root == copy.root
    (copy.root / "model/code/scale.py").write_text("changed")
    with pytest.raises(PackageError, match="not the wanted package"):
        materialise(files, store, tmp_path / "copy", package.digest)


def test_materialise_shows_all_or_nothing(build: Callable[..., ModelPackage], tmp_path: Path) -> None:
    package, store = build(), BlobStore(str(tmp_path / "store"))
    files = upload(package.root, store)
    wrong_size = {**files, "MLmodel": {**files["MLmodel"], "size": 1}}
    missing = {**files, "model/more": {"sha256": "0" * 64, "size": 1}}
    swapped = {**files, "MLmodel": files["signature.json"]}
    for bad, digest, error in (
        (wrong_size, None, IntegrityError),
        (missing, None, NotFound),
        (swapped, None, PackageError),
        (files, "0" * 64, PackageError),
        ({**files, "../out": files["MLmodel"]}, None, PackageError),
    ):
        with pytest.raises(error):
            materialise(bad, store, tmp_path / "copy", digest)
        assert not (tmp_path / "copy").exists()
    assert list(tmp_path.glob(".copy*")) == []
    assert not (tmp_path / "out").exists()


def test_two_that_fetch_at_once_get_one_package(build: Callable[..., ModelPackage], tmp_path: Path) -> None:
    package, store = build(), BlobStore(str(tmp_path / "store"))
    files = upload(package.root, store)
    with ThreadPoolExecutor(8) as pool:
        got = set(pool.map(lambda _: materialise(files, store, tmp_path / "copy", package.digest).digest, range(8)))
    assert got == {package.digest}
    assert list(tmp_path.glob(".copy*")) == []


def test_a_manifest_must_agree_with_the_package(build: Callable[..., ModelPackage]) -> None:
    package = build()
    files = manifest(package.root)
    assert check_manifest(files, package.info) == []
    entry = {"sha256": "0" * 64, "size": 1}
    assert any("not in the manifest" in f for f in check_manifest({"package.json": entry}, package.info))
    assert any("differs" in f for f in check_manifest({**files, "MLmodel": entry}, package.info))
    assert any("not in package.json" in f for f in check_manifest({**files, "more": entry}, package.info))
    assert any("path inside" in f for f in check_manifest({**files, "../up": entry}, package.info))
    assert any("lacks package.json" in f for f in check_manifest({}, package.info))


def test_a_link_inside_a_package_is_refused(build: Callable[..., ModelPackage], tmp_path: Path) -> None:
    package = build()
    (tmp_path / "secret").write_text("s")
    (package.root / "model/code/scale.py").unlink()
    (package.root / "model/code/scale.py").symlink_to(tmp_path / "secret")
    with pytest.raises(PackageError, match=r"scale\.py"):
        upload(package.root, BlobStore(str(tmp_path / "store")))
