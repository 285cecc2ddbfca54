"""A package that lies on the disk already: which wish it is, that it is what was named, that its files are not fetched."""

from __future__ import annotations

from pathlib import Path

import pytest
from roblox_ml_core.digests import sha256_bytes
from roblox_ml_core.errors import Invalid, NotFound, PackageError
from roblox_ml_core.package import Examples, ModelPackage, Signature, TensorSpec, write
from roblox_ml_core.registry import DesiredModel
from roblox_ml_serving.agent.seed import Seed, SeededStore, read_seed


@pytest.fixture
def package(tmp_path: Path) -> ModelPackage:
    root = tmp_path / "package"
    (root / "model").mkdir(parents=True)
    (root / "model" / "model.onnx").write_bytes(b"graph")
    spec = Signature((TensorSpec("X", "FP32", (-1, 1)),), (TensorSpec("Y", "FP32", (-1, 1)),))
    x = {"name": "X", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}
    return write(root, format="onnx", signature=spec, examples=Examples((x,), ({**x, "name": "Y"},)))


def test_the_named_package_is_a_wish(package: ModelPackage) -> None:
    seed = read_seed(package.root, f"feed/3@{package.digest}")
    assert (seed.wish.model, seed.wish.version, seed.wish.digest) == ("feed", 3, package.digest)
    assert "model/model.onnx" in seed.wish.manifest


def test_what_its_fetcher_left_beside_it_is_no_part_of_it(package: ModelPackage) -> None:
    (package.root / "SUCCESS").write_text("")
    assert "SUCCESS" not in read_seed(package.root, f"feed/3@{package.digest}").wish.manifest


@pytest.mark.parametrize("reference", ["feed/3", "feed@champion", "feed"])
def test_a_reference_without_a_digest_says_nothing(package: ModelPackage, reference: str) -> None:
    with pytest.raises(Invalid, match="name"):
        read_seed(package.root, reference)


def test_another_package_is_refused(package: ModelPackage) -> None:
    with pytest.raises(PackageError, match=f"its digest is {package.digest}, expected {'0' * 64}"):
        read_seed(package.root, f"feed/3@{'0' * 64}")


def test_a_changed_file_is_refused(package: ModelPackage) -> None:
    (package.root / "model" / "model.onnx").write_bytes(b"other")
    with pytest.raises(PackageError, match=r"model/model\.onnx was changed"):
        read_seed(package.root, f"feed/3@{package.digest}")


def test_it_is_wanted_once(package: ModelPackage) -> None:
    seed = read_seed(package.root, f"feed/3@{package.digest}")
    other = DesiredModel("feed", 4, "d", {})
    assert seed.join((other,)) == (other, seed.wish)
    assert seed.join((other, seed.wish)) == (other, seed.wish)


def test_its_blobs_come_from_the_disk_and_all_others_from_the_store(package: ModelPackage, tmp_path: Path) -> None:
    store = SeededStore((tmp_path / "store").as_uri(), read_seed(package.root, f"feed/3@{package.digest}"))
    assert store.get(sha256_bytes(b"graph")) == b"graph"
    with pytest.raises(NotFound):
        store.get(sha256_bytes(b"elsewhere"))


def test_without_a_seed_it_is_the_store(tmp_path: Path) -> None:
    none: Seed | None = None
    store = SeededStore((tmp_path / "store").as_uri(), none)
    with pytest.raises(NotFound):
        store.get(sha256_bytes(b"graph"))
