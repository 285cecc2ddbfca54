"""Models of every format answer in this process as they did when they were packaged; what cannot be trusted is not loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from roblox_ml_core.errors import PackageError
from roblox_ml_core.package import Examples, Signature, TensorSpec, write
from roblox_ml_core.package.loaders import load
from roblox_ml_core.package.pyfunc import _load_pyfunc

NUMBERS = Signature((TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("y", "FP32", (-1, 2)),))
CLASSES = Signature(
    (TensorSpec("X", "FP32", (-1, 3)),), (TensorSpec("label", "BYTES", (-1,)), TensorSpec("scores", "FP32", (-1, 2)))
)
TEXTS = Signature(
    (TensorSpec("TEXT", "BYTES", (-1,)),), (TensorSpec("label", "BYTES", (-1,)), TensorSpec("scores", "FP32", (-1, 2)))
)


def _python(root: Path, source: str, entry: str = "scale:predict", **fields: Any) -> Path:
    code = root / "model/code"
    code.mkdir(parents=True)
    (code / "scale.py").write_text(source)
    return write(root, format="python", signature=NUMBERS, options={"entry": entry}, **fields).root


def test_two_versions_of_a_python_model_do_not_see_each_other(tmp_path: Path) -> None:
    import sys

    # The helper is imported on first use, after the other version was loaded: the hard case.
    models = []
    for factor in (2, 3):
        source = "def predict(batch):\n    import helper\n    return {'y': batch['x'] * helper.FACTOR}\n"
        code = tmp_path / str(factor) / "model/code"
        code.mkdir(parents=True)
        (code / "scale.py").write_text(source)
        (code / "helper.py").write_text(f"FACTOR = {factor}\n")
        package = write(tmp_path / str(factor), format="python", signature=NUMBERS, options={"entry": "scale:predict"})
        models.append(load(package.root))
    for _ in range(2):
        assert [model.predict([[1, 2]])["y"].tolist() for model in models] == [[[2, 4]], [[3, 6]]]
    assert not {"scale", "helper"} & set(sys.modules)
    assert not [path for path in sys.path if str(tmp_path) in path]


@pytest.mark.parametrize(
    ("source", "entry", "part"),
    [
        ("import nothing_of_this_name\n", "scale:predict", "nothing_of_this_name"),
        ("", "scale:predict", "predict"),
        ("", "scale", "module:function"),
    ],
)
def test_a_python_model_that_cannot_be_loaded_says_why(tmp_path: Path, source: str, entry: str, part: str) -> None:
    with pytest.raises(PackageError) as caught:
        load(_python(tmp_path / "p", source, entry))
    assert part in str(caught.value)


@pytest.mark.parametrize(
    ("returned", "part"),
    [
        ("[1]", "returned list"),
        ("{'z': 1}", "promises ['y']"),
        ("{'y': [[1, 2], [3, 4]]}", "has shape [2, 2] for 1 rows"),
        ("{'y': batch['x'][:0]}", "has shape [0, 2] for 1 rows"),
        ("{'y': [[1]]}", "has shape [1, 1] for 1 rows"),
        ("{'y': [['a', 'b']]}", "does not convert to FP32"),
    ],
)
def test_a_python_model_must_keep_its_word(tmp_path: Path, returned: str, part: str) -> None:
    model = load(_python(tmp_path / "p", f"def predict(batch):\n    return {returned}\n"))
    with pytest.raises(PackageError) as caught:
        model.predict([[1, 2]])
    assert part in str(caught.value)


def test_what_a_python_model_returns_becomes_arrays_of_the_signatures_types(tmp_path: Path) -> None:
    model = load(_python(tmp_path / "p", "def predict(batch):\n    return {'y': [[1, 2]] * len(batch['x'])}\n"))
    answer = model.predict([[1, 2], [3, 4]])["y"]
    assert (str(answer.dtype), answer.tolist()) == ("float32", [[1, 2], [1, 2]])


def test_a_model_that_lost_its_known_answers_is_refused(tmp_path: Path) -> None:
    examples = Examples.record(NUMBERS, {"x": [[1, 2]]}, {"y": [[2, 4]]})
    good = _python(tmp_path / "good", "def predict(b):\n    return {'y': 2 * b['x']}\n", examples=examples)
    assert load(good, check=True).check() == []
    bad = _python(tmp_path / "bad", "def predict(b):\n    return {'y': 2 * b['x'][:0]}\n", examples=examples)
    with pytest.raises(PackageError, match="known answers"):
        load(bad, check=True)


def test_onnx_answers(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    (tmp_path / "model").mkdir()
    shape = [None, 2]
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "k"], ["y"])],
        "scale",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [helper.make_tensor("k", TensorProto.FLOAT, [1], [3.0])],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        tmp_path / "model/model.onnx",
    )
    model = load(write(tmp_path, format="onnx", signature=NUMBERS).root)
    assert model.predict([[1, 2], [3, 4]])["y"].tolist() == [[3, 6], [9, 12]]


def test_scikit_learn_answers_with_labels_and_scores(tmp_path: Path) -> None:
    import skops.io
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    rows = rng.normal(size=(50, 3)).astype("float32")
    fitted = LogisticRegression().fit(rows, np.where(rows[:, 0] > 0, "high", "low"))
    (tmp_path / "model").mkdir()
    skops.io.dump(fitted, tmp_path / "model/model.skops")
    expected = {"label": fitted.predict(rows[:4]), "scores": fitted.predict_proba(rows[:4])}
    examples = Examples.record(CLASSES, {"X": rows[:4]}, expected)
    root = write(tmp_path, format="sklearn-skops", signature=CLASSES, examples=examples).root
    assert load(root, check=True).predict(rows[:4])["label"].tolist() == fitted.predict(rows[:4]).tolist()
    # MLflow's way in gives the same.
    assert _load_pyfunc(str(root)).predict(rows[:4])["label"].tolist() == fitted.predict(rows[:4]).tolist()


def test_scikit_learn_does_not_load_what_it_does_not_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import skops.io
    from sklearn.preprocessing import FunctionTransformer

    (tmp_path / "model").mkdir()
    # A function named in a package is code of the package's author that would run here.
    from numpy.testing import rundocs

    skops.io.dump(FunctionTransformer(rundocs), tmp_path / "model/model.skops")
    listed = skops.io.get_untrusted_types(file=tmp_path / "model/model.skops")
    assert listed
    root = write(tmp_path, format="sklearn-skops", signature=CLASSES, options={"trusted": listed}).root
    with pytest.raises(PackageError) as caught:
        load(root)
    assert listed[0] in caught.value.message
    monkeypatch.setenv("RML_TRUSTED_TYPES", ",".join(listed))
    assert load(root).package.format == "sklearn-skops"


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A tiny random BERT with its tokenizer, saved as transformers saves it."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertForSequenceClassification

    root = tmp_path_factory.mktemp("classifier")
    words = ["[PAD]", "[UNK]", "good", "bad", "game"]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=5, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=16, num_labels=2,
    )  # fmt: skip
    model = BertForSequenceClassification(config).eval()
    (root / "model").mkdir()
    model.save_pretrained(root / "model/hf")
    tokenizer.save(str(root / "model/tokenizer.json"))
    return root, model


def test_a_text_classifier_answers_from_its_weights(classifier: tuple[Path, Any]) -> None:
    import torch

    root, model = classifier
    write(root, format="hf-text-classifier", signature=TEXTS, labels=["neg", "pos"], options={"max_length": 8})
    loaded = load(root)
    texts = ["good game", "bad", "good " * 20, ""] * 20  # several batches, padding, truncation
    got = loaded.predict(texts)
    ids = {"good": 2, "bad": 3, "game": 4}
    for text, label, scores in list(zip(texts, got["label"], got["scores"], strict=True))[:3]:
        row = torch.tensor([[ids[word] for word in text.split()][:8]])
        with torch.inference_mode():
            want = torch.softmax(model(input_ids=row).logits, -1)[0].numpy()
        assert scores == pytest.approx(want, abs=1e-5)
        assert label == ["neg", "pos"][int(want.argmax())]
    assert loaded.predict([])["scores"].shape == (0, 2)


def test_a_text_classifier_needs_a_label_per_score(classifier: tuple[Path, Any]) -> None:
    root, _ = classifier
    write(root, format="hf-text-classifier", signature=TEXTS, labels=["only one"])
    with pytest.raises(PackageError, match="2 scores"):
        load(root).predict(["good"])
