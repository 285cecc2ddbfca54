"""Hugging Face classifiers as packages, with a tiny BERT made here: no download, the real exporter and runtimes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import roblox_ml as rml
from roblox_ml.errors import PackageError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

LABELS = ["negative", "neutral", "positive"]
TEXTS = ["good game", "bad bad lag and a very long line of bad words", "the game"]
WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "good",
    "bad",
    "game",
    "lag",
    "the",
    "and",
    "a",
    "very",
    "long",
    "line",
    "of",
    "words",
]


def tiny_model(**config: Any) -> Any:
    torch.manual_seed(0)
    options = {"num_labels": 3, **config}
    return transformers.BertForSequenceClassification(
        transformers.BertConfig(
            vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
            max_position_embeddings=64, **options,
        )
    )  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    vocabulary = tmp_path_factory.mktemp("tok") / "vocab.txt"
    vocabulary.write_text("\n".join(WORDS), "utf-8")
    return transformers.BertTokenizerFast(vocab_file=str(vocabulary), model_max_length=64)


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model().train()


@pytest.fixture(scope="module")
def package(model: Any, tokenizer: Any) -> Path:
    packaged = rml.Model.from_transformers(
        model, tokenizer, labels=LABELS, examples=TEXTS, metrics={"f1": 0.5}, max_length=32
    )
    return packaged.path


def test_the_package_is_whole_and_gives_its_known_answers(package: Path) -> None:
    from roblox_ml_core.package import loaders, verify

    verified = verify(package)
    assert verified.format == "hf-text-classifier"
    assert verified.labels == tuple(LABELS)
    assert verified.options == {"max_length": 32}
    assert verified.metrics == {"f1": 0.5}
    assert loaders.load(package).check() == []


def test_the_recorded_scores_are_the_softmax_of_pytorch(package: Path, model: Any, tokenizer: Any) -> None:
    recorded = {t["name"]: t for t in json.loads((package / "examples.json").read_text())["outputs"]}
    scores = np.array(recorded["scores"]["data"]).reshape(recorded["scores"]["shape"])
    model.eval()
    with torch.inference_mode():
        rows = tokenizer(TEXTS, padding=True, truncation=True, max_length=32, return_tensors="pt")
        want = model(**rows).logits.softmax(-1).numpy()
    model.train()
    assert np.abs(scores - want).max() < 1e-5
    assert recorded["label"]["data"] == [LABELS[i] for i in want.argmax(1)]


def test_any_batch_and_length_agrees_with_pytorch(package: Path, model: Any, tokenizer: Any) -> None:
    from roblox_ml_core.package import loaders

    loaded = loaders.load(package)
    for batch in (["a"], TEXTS * 5, ["good " * 60, "bad"]):
        with torch.inference_mode():
            rows = tokenizer(batch, padding=True, truncation=True, max_length=32, return_tensors="pt")
            want = model.eval()(**rows).logits.softmax(-1).numpy()
        assert np.abs(loaded.predict(batch)["scores"] - want).max() < 1e-4
    model.train()


def test_the_callers_model_stays_as_it_was(package: Path, model: Any) -> None:
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert model.config.id2label[0] == "LABEL_0"


def test_packaging_twice_gives_the_same_package(package: Path, model: Any, tokenizer: Any, tmp_path: Path) -> None:
    from roblox_ml_core.package import read

    again = rml.Model.from_transformers(
        model, tokenizer, labels=LABELS, examples=TEXTS, metrics={"f1": 0.9}, max_length=32, path=tmp_path / "again"
    )
    assert read(again.path).digest == read(package).digest, "metrics are outside the digest, and nothing else differs"


def test_no_trace_of_this_machine_is_in_the_package(package: Path) -> None:
    from roblox_ml import _packaging

    traces = [str(Path(_packaging.__file__).parents[2]).encode(), str(Path.home()).encode() + b"/", b"site-packages"]
    for file in (path for path in package.rglob("*") if path.is_file()):
        content = file.read_bytes()
        assert not [trace for trace in traces if trace in content], file.name


def test_the_checkpoint_is_safetensors_with_the_labels(package: Path) -> None:
    config = json.loads((package / "model/hf/config.json").read_text())
    assert config["id2label"] == {"0": "negative", "1": "neutral", "2": "positive"}
    assert (package / "model/hf/model.safetensors").is_file()
    assert "_name_or_path" not in config


REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"labels": LABELS}, "needs a few example texts"),
    ({}, {"labels": LABELS, "examples": "one text"}, "needs a few example texts"),
    ({}, {"examples": TEXTS}, "the classes have no names"),
    ({}, {"examples": TEXTS, "labels": LABELS[:2]}, "2 different labels for 3 outputs"),
    ({}, {"examples": TEXTS, "labels": ["a", "a", "b"]}, "2 different labels for 3 outputs"),
    ({"num_labels": 1}, {"examples": TEXTS}, "no softmax"),
    ({"problem_type": "multi_label_classification"}, {"examples": TEXTS, "labels": LABELS}, "no softmax"),
    ({}, {"examples": TEXTS, "labels": LABELS, "max_length": 1000}, "does not fit"),
    ({}, {"examples": TEXTS, "labels": LABELS, "max_length": 32, "metrics": {"f1": float("nan")}}, "not finite"),
]


@pytest.mark.parametrize(("config", "options", "said"), REFUSED)
def test_what_cannot_be_served_is_refused_with_the_way_out(
    config: dict[str, Any], options: dict[str, Any], said: str, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "metrics" in options:
        from roblox_ml._packaging import transformers as writer

        # The metrics are checked where they are written; the export before it is not what this row is about.
        monkeypatch.setattr(writer, "export_classifier", lambda *_: lambda rows: np.zeros((len(rows["input_ids"]), 3)))
        monkeypatch.setattr(writer, "agree", lambda *_: None)
    with pytest.raises(PackageError, match=said) as caught:
        rml.Model.from_transformers(tiny_model(**config), tokenizer, **options)
    assert "fix:" in str(caught.value)


def test_a_diverged_model_is_refused(tokenizer: Any) -> None:
    broken = tiny_model()
    with torch.no_grad():
        broken.classifier.weight[0, 0] = float("nan")
    with pytest.raises(PackageError, match=r"NaN or infinity, first classifier\.weight"):
        rml.Model.from_transformers(broken, tokenizer, labels=LABELS, examples=TEXTS, max_length=32)


def test_another_kind_of_model_is_refused_by_name(tokenizer: Any) -> None:
    bare = transformers.BertModel(tiny_model().config)
    with pytest.raises(PackageError, match="BertModel is not a Hugging Face text classifier"):
        rml.Model.from_transformers(bare, tokenizer, labels=LABELS, examples=TEXTS)


def test_a_graph_that_answers_differently_is_refused(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    from roblox_ml._packaging import _export

    def encode(texts: Any) -> dict[str, Any]:
        rows = tokenizer(list(texts), padding=True, return_tensors="np")
        return {name: rows[name] for name in ("input_ids", "attention_mask")}

    model.eval()
    shifted = lambda rows: model(**{n: torch.from_numpy(a) for n, a in rows.items()}).logits.detach().numpy() + 1e-3  # noqa: E731
    with pytest.raises(PackageError, match=r"off by 0\.001"):
        _export.agree(model, shifted, encode, TEXTS, 1e-4)
    model.train()
