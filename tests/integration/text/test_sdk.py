"""From a Hugging Face model to an optimised package, as a data scientist goes: what comes out is registered, shown and answered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from roblox_ml_core.package import verify
from roblox_ml_core.package.loaders import load

import roblox_ml as rml
from roblox_ml import _optimize
from roblox_ml.errors import PackageError

ENGINES = ["openvino-int8"]


def checkpoint(packages: Any, place: Path, task: str) -> rml.Model:
    """A tiny model of random weights, packaged as a user would."""
    import torch
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        BertForTokenClassification,
        PreTrainedTokenizerFast,
    )

    packages.tokenizer(place)
    names = packages.LABELS[task]
    torch.manual_seed(5)
    config = BertConfig(
        vocab_size=len(packages.SPECIAL) + len(packages.WORDS), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=16, num_labels=len(names), initializer_range=0.4,
    )  # fmt: skip
    model = (BertForSequenceClassification if task == "sequence" else BertForTokenClassification)(config).eval()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(place / "tokenizer.json"), unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )  # fmt: skip
    return rml.Model.from_transformers(
        model, tokenizer, labels=list(names), examples=["good game", "ada wrote code"], max_length=12, metrics={"f1": 0.5}
    )  # fmt: skip


def held_out(packages: Any, model: rml.Model) -> rml.Dataset:
    """Texts, and as the truth what the model itself answers."""
    draw = np.random.default_rng(3)
    texts = [" ".join(draw.choice(packages.WORDS, draw.integers(1, 9))) for _ in range(60)]
    answers = load(model.path).predict({"TEXT": texts})
    labels = (
        [str(label) for label in answers["label"]]
        if "label" in answers
        else [json.loads(entities) for entities in answers["entities"]]
    )
    return rml.Dataset.from_pandas(pd.DataFrame({"text": texts, "truth": labels}))


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without servers: what is behind a door is tried elsewhere."""
    real: Any = _optimize._optimize

    def without(*given: Any) -> Any:
        return real(*given[:7], False, *given[8:])

    monkeypatch.setattr(_optimize, "_optimize", without)
    monkeypatch.setattr(_optimize, "_find_triton", lambda: None)


@pytest.mark.parametrize("task", ["sequence", "token"])
@pytest.mark.usefixtures("in_process")
def test_what_the_step_returns_is_a_package_with_its_proof(
    packages: Any, tmp_path: Path, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = checkpoint(packages, tmp_path, task)
    data = held_out(packages, plain)
    (tmp_path / "task").mkdir()
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    monkeypatch.setenv("RML_TASK_FOLDER", str(tmp_path / "task"))
    fast = _optimize.step(plain, data, budget=1.0, label="truth", engines=ENGINES)

    left = [place.name for place in (tmp_path / "scratch").iterdir()]
    assert not [name for name in left if name.startswith("rml-optimi")], "engines that were tried lie on no disk"
    package = verify(fast.path)
    assert package.format == "text-cpu"
    assert package.labels == tuple(packages.LABELS[task])
    assert load(fast.path).check() == [], "the known answers are those of what was packaged"
    report = json.loads((fast.path / "report.json").read_text())
    assert fast.metadata["engine"] == report["chosen"]
    assert fast.metrics["f1"] == 0.5
    assert fast.metrics["f1_drop"] == pytest.approx(report["f1_drop"])
    assert fast.report is not None
    assert report["chosen"] in fast.report.text
    assert "<iframe" in fast._repr_html_()
    assert report["chosen"] in (tmp_path / "task" / "card.html").read_text()

    texts = list(data.to_pandas()["text"])[:20]
    asked = "label" if task == "sequence" else "entities"
    before, after = (load(model.path).predict({"TEXT": texts})[asked] for model in (plain, fast))
    if task == "sequence":
        assert np.mean([a == b for a, b in zip(before, after, strict=True)]) >= 0.8
    else:
        assert all({"entity", "start", "end", "text", "score"} <= e.keys() for one in after for e in json.loads(one))


def test_labels_that_the_model_does_not_know_are_refused(packages: Any, tmp_path: Path) -> None:
    plain = checkpoint(packages, tmp_path, "sequence")
    with pytest.raises(PackageError, match="wonderful"):
        rml.optimize(plain, [("good game", "wonderful")] * 30, serve=False)
