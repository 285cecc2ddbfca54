"""scikit-learn estimators as packages: text pipelines, numbers, regressors, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import roblox_ml as rml
from roblox_ml.errors import PackageError

sklearn = pytest.importorskip("sklearn")
from sklearn.ensemble import RandomForestClassifier  # noqa: E402
from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: E402
from sklearn.linear_model import LinearRegression, LogisticRegression  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import FunctionTransformer, StandardScaler  # noqa: E402
from sklearn.svm import LinearSVC  # noqa: E402

TEXTS = ["good game", "bad lag", "so good", "lag again", "fun", "broken"]
MOODS = ["up", "down", "up", "down", "up", "down"]
RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3)).astype("float32")
Y = (X[:, 0] > 0).astype(int)


def text_model() -> Any:
    return make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(TEXTS, MOODS)


def signature(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((path / "signature.json").read_text())
    return value


CASES = {
    "text": (text_model, TEXTS[:3], {}),
    "numbers": (
        lambda: make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y),
        X[:4],
        {"labels": ["no", "yes"]},
    ),
    "forest": (lambda: RandomForestClassifier(5, random_state=0).fit(X, Y), X[:4], {}),
    "regression": (lambda: LinearRegression().fit(X, X.sum(1)), X[:4], {}),
    "two targets": (lambda: LinearRegression().fit(X, X[:, :2]), X[:4], {}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_package_loads_and_gives_its_known_answers(case: str) -> None:
    from roblox_ml_core.package import loaders

    make, examples, options = CASES[case]
    estimator = make()
    packaged = rml.Model.from_sklearn(estimator, examples=examples, metrics={"f1": 1}, **options)
    loaded = loaders.load(packaged.path, check=True)
    got = loaded.predict(examples)
    if "scores" in got:
        assert np.abs(got["scores"] - estimator.predict_proba(examples)).max() < 1e-6
    else:
        assert np.abs(got["y"] - estimator.predict(examples)).max() < 1e-4


def test_the_signature_is_read_from_the_examples() -> None:
    text = signature(rml.Model.from_sklearn(text_model(), examples=TEXTS[:2]).path)
    assert text["inputs"] == [{"name": "TEXT", "datatype": "BYTES", "shape": [-1]}]
    assert text["outputs"][1] == {"name": "scores", "datatype": "FP32", "shape": [-1, 2]}
    numbers = signature(rml.Model.from_sklearn(LinearRegression().fit(X, Y), examples=X[:2]).path)
    assert numbers["inputs"] == [{"name": "X", "datatype": "FP32", "shape": [-1, 3]}]
    assert numbers["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [-1]}]


def test_the_same_estimators_are_the_same_packages(tmp_path: Path) -> None:
    """skops writes addresses, random names and times; none of them may reach the digest, in whatever process."""
    import subprocess
    import sys

    from roblox_ml_core.package import read

    program = (
        "import sys, importlib.util, roblox_ml as rml\n"
        "spec = importlib.util.spec_from_file_location('cases', sys.argv[1])\n"
        "cases = importlib.util.module_from_spec(spec); spec.loader.exec_module(cases)\n"
        "ballast = [object() for _ in range(10_000)]\n"
        "for name, (make, examples, options) in cases.CASES.items():\n"
        "    rml.Model.from_sklearn(make(), examples=examples, path=sys.argv[2] + '/' + name, **options)\n"
    )
    subprocess.run([sys.executable, "-c", program, __file__, str(tmp_path)], check=True)
    for name, (make, examples, options) in CASES.items():
        here = rml.Model.from_sklearn(make(), examples=examples, **options).path
        assert read(tmp_path / name).digest == read(here).digest, name


def shout(texts: Any) -> Any:
    return [text.upper() for text in texts]


REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    (text_model, {}, "needs a few example rows"),
    (lambda: make_pipeline(TfidfVectorizer(), LogisticRegression()), {"examples": TEXTS}, "not fitted"),
    (lambda: TfidfVectorizer().fit(TEXTS), {"examples": TEXTS}, "has no predict"),
    (lambda: LinearSVC().fit(X, Y), {"examples": X[:2]}, "gives no probabilities"),
    (lambda: LogisticRegression().fit(X, Y), {"examples": X[0]}, "two dimensions"),
    (lambda: LogisticRegression().fit(X, Y), {"examples": X[:2, :2]}, "predict fails on the examples"),
    (lambda: LogisticRegression().fit(X, Y), {"examples": X[:2], "labels": ["one"]}, "1 labels for 2 classes"),
    (lambda: LogisticRegression().fit(X, Y), {"examples": [{"a": 1}]}, "neither texts nor a table"),
    (
        lambda: make_pipeline(FunctionTransformer(shout), TfidfVectorizer(), LogisticRegression()).fit(TEXTS, MOODS),
        {"examples": TEXTS},
        "shout",
    ),
    (
        lambda: make_pipeline(FunctionTransformer(lambda x: x), LogisticRegression()).fit(X, Y),
        {"examples": X[:2]},
        "lambda|cannot be written",
    ),
]


@pytest.mark.parametrize(("make", "options", "said"), REFUSED)
def test_what_no_server_would_load_is_refused_with_the_way_out(make: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(PackageError, match=said) as caught:
        rml.Model.from_sklearn(make(), **options)
    assert "fix:" in str(caught.value)
