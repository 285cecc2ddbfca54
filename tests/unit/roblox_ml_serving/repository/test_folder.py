"""Writing a version into the repository: complete or not there, replaced whole, removed whole."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from roblox_ml_core.errors import PackageError
from roblox_ml_core.package import Examples, ModelPackage, Signature, TensorSpec, verify, write
from roblox_ml_serving.backends import MODEL_FILES, SUPPORT_FILES
from roblox_ml_serving.repository import Options, folder, materialise, materialised, remove
from roblox_ml_serving.repository.warmup import raw_bytes, warmup_files


def make(root: Path, content: bytes = b"graph", rows: int = 1) -> ModelPackage:
    (root / "model").mkdir(parents=True)
    (root / "model" / "model.onnx").write_bytes(content)
    signature = Signature((TensorSpec("X", "FP32", (-1, 2)),), (TensorSpec("Y", "FP32", (-1,)),))
    inputs = ({"name": "X", "datatype": "FP32", "shape": [rows, 2], "data": [1.0, 2.0] * rows},)
    outputs = ({"name": "Y", "datatype": "FP32", "shape": [rows], "data": [3.0] * rows},)
    return write(root, format="onnx", signature=signature, examples=Examples(inputs, outputs))


def test_a_version_becomes_two_models_and_its_package_stays_intact(tmp_path: Path) -> None:
    package, repository = make(tmp_path / "p"), tmp_path / "models"
    result = materialise(package, repository, "m", 7, Options(instances=3))
    assert materialised(repository, "m.7") == result
    assert (result.name, result.batch_name, result.digest, result.instances) == ("m.7", "m.7.batch", package.digest, 3)
    code = repository / "m.7.batch" / "7"
    assert verify(code / "package").digest == package.digest
    assert (code / "model.py").read_text().startswith('"""Format onnx')
    assert {path.name for path in code.glob("rml_*.py")} == set(SUPPORT_FILES["onnx"])
    assert (repository / "m.7.batch" / "warmup" / "X").read_bytes() == struct.pack("<2f", 1, 2)
    assert (repository / "m.7" / "7").is_dir()
    # The weights are shared with the package, the model file is not: touching it must not touch its source.
    assert (code / "package/model/model.onnx").stat().st_ino == (package.root / "model/model.onnx").stat().st_ino
    assert (code / "model.py").stat().st_nlink == 1


@pytest.mark.parametrize("name", ["../../../../evil", "/evil", "x/../../evil", "Z"])
def test_an_example_cannot_name_a_file_outside_of_its_model(tmp_path: Path, name: str) -> None:
    name = name if name != "/evil" else str(tmp_path / "evil")
    root = make(tmp_path / "p").root
    examples = json.loads((root / "examples.json").read_text())
    extra = {"name": name, "datatype": "UINT8", "shape": [3], "data": [104, 105, 10]}
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(PackageError, match="not in the signature"):
        signature = Signature((TensorSpec("X", "FP32", (-1, 2)),), (TensorSpec("Y", "FP32", (-1,)),))
        forged = Examples((*examples["inputs"], extra), tuple(examples["outputs"]))
        package = write(root, format="onnx", signature=signature, examples=forged)
        materialise(package, tmp_path / "models", "m", 1)
    assert [path for path in sorted(tmp_path.rglob("*")) if path not in before] == []


def test_writing_again_replaces_and_removing_leaves_nothing(tmp_path: Path) -> None:
    repository = tmp_path / "models"
    materialise(make(tmp_path / "one"), repository, "m", 1)
    second = materialise(make(tmp_path / "two", b"other"), repository, "m", 1)
    assert materialised(repository, "m.1") == second
    remove(repository, "m.1")
    remove(repository, "m.1")
    assert list(repository.iterdir()) == []
    assert materialised(repository, "m.1") is None


@pytest.mark.parametrize("at", ["batch", "public"])
def test_an_interrupted_write_is_not_a_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    def fail(*_: object) -> str:
        raise OSError("no space left on device")

    monkeypatch.setattr(folder, f"{at}_config", fail)
    repository = tmp_path / "models"
    with pytest.raises(OSError, match="no space"):
        materialise(make(tmp_path / "p"), repository, "m", 1)
    assert materialised(repository, "m.1") is None
    assert not (repository / "m.1").exists()
    assert not list(repository.glob(".*"))


def test_a_marker_without_its_batch_model_is_not_a_version(tmp_path: Path) -> None:
    repository = tmp_path / "models"
    materialise(make(tmp_path / "p"), repository, "m", 1)
    (repository / "m.1.batch").rename(tmp_path / "gone")
    assert materialised(repository, "m.1") is None


def test_every_format_has_its_files() -> None:
    from roblox_ml_core.package import FORMATS
    from roblox_ml_serving.backends import FOLDER

    assert set(MODEL_FILES) == set(SUPPORT_FILES) == set(FORMATS)
    for name in FORMATS:
        for file in (MODEL_FILES[name], *SUPPORT_FILES[name]):
            assert (FOLDER / file).is_file()


def test_an_empty_example_warms_nothing_up(tmp_path: Path) -> None:
    assert warmup_files(make(tmp_path / "p", rows=0)) == {}


@given(st.lists(st.text()))
def test_texts_are_written_as_triton_reads_them(texts: list[str]) -> None:
    from tritonclient.utils import deserialize_bytes_tensor

    clean = [text.encode("utf-8", "replace") for text in texts]
    assert list(deserialize_bytes_tensor(raw_bytes("BYTES", clean))) == clean
