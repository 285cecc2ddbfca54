"""The lean graph answers what the Hugging Face model answers, for every family and both tasks, beside rows of any length."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from roblox_ml_serving.text.optimize import OptimizeError, Source
from roblox_ml_serving.text.optimize.graph import FAMILIES, Generic, Lean, NotLean, lean

PAD = {"roberta": 1, "xlm-roberta": 1}
CLASSES = 5
LENGTHS = (2, 3, 9, 16)
SIZES = {"vocab_size": 60, "max_position_embeddings": 24, "num_labels": CLASSES}
WIDE = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
OWN: dict[str, dict[str, Any]] = {
    "distilbert": {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 48},
    "electra": {**WIDE, "embedding_size": 16},
    "deberta": WIDE,
}


def model_of(family: str, task: str, **changed: Any) -> Any:
    """A model of random weights that are not nearly nothing, so that every part of it matters."""
    torch.manual_seed(3)
    config = transformers.AutoConfig.for_model(
        family, **SIZES, **OWN.get(family, WIDE), pad_token_id=PAD.get(family, 0), initializer_range=0.5, **changed
    )
    kind = "SequenceClassification" if task == "sequence" else "TokenClassification"
    model = getattr(transformers, f"AutoModelFor{kind}").from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if name.endswith("bias") or "LayerNorm" in name or "layer_norm" in name:
                weights.add_(torch.randn_like(weights) * 0.3)
    return model


def batch(pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(5, 60, (len(LENGTHS), max(LENGTHS)))
    mask = torch.zeros_like(ids)
    for row, length in enumerate(LENGTHS):
        mask[row, :length] = 1
    return torch.where(mask.bool(), ids, pad), mask


@pytest.mark.parametrize("task", ["sequence", "token"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_lean_graph_answers_as_the_model(family: str, task: str) -> None:
    model = model_of(family, task)
    ids, mask = batch(PAD.get(family, 0))
    with torch.inference_mode():
        mine, theirs = lean(model, task)(ids, mask), Generic(model)(ids, mask)
    assert mine.shape == theirs.shape
    assert theirs.std() > 0.1
    real = mask.bool() if task == "token" else slice(None)  # what stands at padding is nobody's answer
    torch.testing.assert_close(mine[real], theirs[real], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_does_not_hear_what_stands_beside_it(family: str) -> None:
    graph = lean(model_of(family, "sequence"), "sequence")
    ids, mask = batch(PAD.get(family, 0))
    with torch.inference_mode():
        together = graph(ids, mask)
        for row, length in enumerate(LENGTHS):
            alone = graph(ids[row : row + 1, :length], mask[row : row + 1, :length])
            torch.testing.assert_close(together[row], alone[0], rtol=1e-4, atol=1e-4)


def test_a_classifier_of_texts_computes_one_row_of_its_last_layer() -> None:
    graph = lean(model_of("bert", "sequence"), "sequence")
    seen: list[tuple[int, ...]] = []
    for layer in graph.layers:
        layer.up.register_forward_hook(lambda _module, inputs, _out: seen.append(tuple(inputs[0].shape[:2])))
    with torch.inference_mode():
        graph(*batch(0))
    rows, width = len(LENGTHS), max(LENGTHS)
    assert seen == [(rows, width), (rows, width), (rows, 1)]


@pytest.mark.parametrize(
    ("family", "changed", "why"),
    [
        ("bert", {"hidden_act": "relu"}, "relu"),
        ("distilbert", {"activation": "relu"}, "relu"),
        ("bert", {"is_decoder": True}, "decoder"),
        ("deberta", {}, "deberta is none of"),
    ],
)
def test_other_models_are_not_lean_and_the_message_says_why(family: str, changed: dict[str, Any], why: str) -> None:
    with pytest.raises(NotLean, match=why):
        lean(model_of(family, "sequence", **changed), "sequence")


def test_weights_are_shared_and_the_model_stays_as_it_was() -> None:
    model = model_of("roberta", "sequence")
    before = {name: weights.clone() for name, weights in model.state_dict().items()}
    graph = Lean(model, "sequence")
    assert graph.words.weight is model.roberta.embeddings.word_embeddings.weight
    assert all(torch.equal(weights, before[name]) for name, weights in model.state_dict().items())


class TestSource:
    def test_a_model_object_brings_its_labels_and_padding(self) -> None:
        model = model_of("roberta", "token")
        loaded = Source(model=model, tokenizer_json="{}", max_length=22).load()
        assert (loaded.task, loaded.pad_id, len(loaded.labels)) == ("token", 1, CLASSES)

    @pytest.mark.parametrize(("family", "most"), [("bert", 24), ("roberta", 22), ("xlm-roberta", 22)])
    def test_lengths_without_positions_are_refused(self, family: str, most: int) -> None:
        source = Source(model=model_of(family, "sequence"), tokenizer_json="{}", max_length=most + 1)
        with pytest.raises(OptimizeError, match=f"2 to {most} tokens"):
            source.load()

    @pytest.mark.parametrize(
        ("given", "why"),
        [
            ({}, "there is no model"),
            ({"labels": ("a", "b")}, "2 labels for a model with 5 outputs"),
            ({"tokenizer_json": None}, "no tokenizer.json"),
        ],
    )
    def test_mistakes_are_said(self, given: dict[str, Any], why: str, tmp_path: Any) -> None:
        model = model_of("bert", "sequence") if given else None
        with pytest.raises(OptimizeError, match=why):
            Source(**{"checkpoint": tmp_path, "model": model, "tokenizer_json": "{}", "max_length": 16, **given}).load()

    def test_a_model_that_classifies_nothing_is_refused(self) -> None:
        model = transformers.BertModel(transformers.BertConfig(vocab_size=60, **WIDE))
        with pytest.raises(OptimizeError, match="BertModel classifies neither"):
            Source(model=model, tokenizer_json="{}").load()
