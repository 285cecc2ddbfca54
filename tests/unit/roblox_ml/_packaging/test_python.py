"""Plain functions as packages: captured, locked, and asked in a process that has nothing of this one."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import roblox_ml as rml
from roblox_ml._runtime.environments import platform_tag, python_minor
from roblox_ml.errors import PackageError, PipelineError

FACTOR = 3.0
STATE: list[int] = []


def scaled(values: Any) -> Any:
    return values * FACTOR


def triple(batch: dict[str, Any]) -> dict[str, Any]:
    """Uses a helper and a constant of its module."""
    return {"y": scaled(batch["x"]), "positive": (batch["x"] > 0).all(axis=1)}


def shout(batch: dict[str, Any]) -> dict[str, Any]:
    return {"loud": np.array([text.upper() for text in batch["TEXT"]], dtype=object)}


def returns_a_list(batch: dict[str, Any]) -> Any:
    return [1, 2]


def drops_rows(batch: dict[str, Any]) -> dict[str, Any]:
    return {"y": batch["x"][:1]}


def crashes(batch: dict[str, Any]) -> dict[str, Any]:
    raise ValueError("no model file here")


@pytest.fixture(autouse=True)
def local_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock of what is installed here, made without asking an index."""
    import roblox_ml._env as env

    def lock_for(imports: frozenset[str], packages: Any = ()) -> Any:
        header = f"# roblox-ml environment lock, schema 1\n# python {python_minor()}\n# platform {platform_tag()}\n"
        text = header + f"numpy=={version('numpy')} \\\n    --hash=sha256:{'0' * 64}\n"
        return SimpleNamespace(text=text, digest=hashlib.sha256(text.encode()).hexdigest(), blobs=dict)

    monkeypatch.setattr(env, "lock_for", lock_for)


def test_a_function_with_its_helpers_answers_from_the_package() -> None:
    from roblox_ml_core.package import loaders

    x = np.array([[1.0, 2.0], [3.0, -4.0]], "float32")
    path = rml.Model.from_python(triple, examples={"x": x}, metrics={"rmse": 0.2}).path
    assert json.loads((path / "signature.json").read_text()) == {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
        "outputs": [
            {"name": "y", "datatype": "FP32", "shape": [-1, 2]},
            {"name": "positive", "datatype": "BOOL", "shape": [-1]},
        ],
    }
    loaded = loaders.load(path, check=True)
    assert loaded.predict({"x": x * 2})["y"].tolist() == (x * 6).tolist()
    options = json.loads((path / "package.json").read_text())["options"]
    assert options["lock"] == hashlib.sha256((path / "model/lock.txt").read_bytes()).hexdigest()
    assert not list(path.rglob("*.pyc")) and not (path / "model" / "answer.json").exists()


def test_text_goes_in_and_comes_out() -> None:
    from roblox_ml_core.package import loaders

    path = rml.Model.from_python(shout, examples={"TEXT": ["gg", "größer"]}).path
    assert loaders.load(path, check=True).predict(["lag"])["loud"].tolist() == ["LAG"]


def test_the_same_function_is_the_same_package(tmp_path: Path) -> None:
    from roblox_ml_core.package import read

    one, two = (rml.Model.from_python(triple, examples={"x": np.ones((1, 2), "float32")}).path for _ in range(2))
    assert read(one).digest == read(two).digest


REFUSED: list[tuple[Any, Any, str]] = [
    (triple, None, "needs recorded examples by input name"),
    (triple, {"x": []}, "different or no rows"),
    (triple, {"x": np.ones((2, 2)), "z": np.ones(3)}, "different or no rows"),
    (triple, {"not a name": [1]}, "not a name"),
    (triple, {"x": np.array([1 + 2j])}, "complex"),
    (returns_a_list, {"x": [1.0]}, "returned list, not a dict"),
    (drops_rows, {"x": np.ones((2, 2), "float32")}, "1 rows for a batch of 2"),
    (crashes, {"x": [1.0]}, "no model file here"),
]


@pytest.mark.parametrize(("predict", "examples", "said"), REFUSED)
def test_functions_that_cannot_serve_are_refused(predict: Any, examples: Any, said: str) -> None:
    with pytest.raises(PackageError, match=said):
        rml.Model.from_python(predict, examples=examples)


def test_what_capture_refuses_is_told_in_captures_words() -> None:
    with pytest.raises(PipelineError):
        rml.Model.from_python(lambda batch: batch, examples={"x": [1.0]})
