"""Growing a BERT changes its shape and not its answers."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from benchmarks.text.widen import deepen, jitter, to_distilbert, widen  # noqa: E402


def small(seed: int) -> Any:
    torch.manual_seed(seed)
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=12, num_hidden_layers=3, num_attention_heads=3, intermediate_size=20,
        max_position_embeddings=16, num_labels=4, attn_implementation="eager",
    )  # fmt: skip
    model = transformers.BertForSequenceClassification(config).eval()
    for parameter in model.parameters():  # norms that do nothing would hide a mistake
        parameter.data += 0.3 * torch.randn_like(parameter)
    return model


def asked() -> dict[str, Any]:
    ids = torch.arange(1, 19).reshape(3, 6)
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def answers(state: Any, config: Any, kind: Any) -> Any:
    config._attn_implementation = "eager"
    model = kind(config).eval()
    model.load_state_dict(state)
    with torch.inference_mode():
        return model(**asked()).logits


@pytest.mark.parametrize("seed", range(5))
def test_twice_as_wide_answers_the_same(seed: int) -> None:
    model = small(seed)
    with torch.inference_mode():
        wanted = model(**asked()).logits
    state, config = widen(model.state_dict(), model.config, seed)
    assert (config.hidden_size, config.intermediate_size, config.num_attention_heads) == (24, 40, 3)
    torch.testing.assert_close(answers(state, config, type(model)), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_layers_that_add_nothing_are_the_identity(seed: int) -> None:
    model = small(seed)
    with torch.inference_mode():
        wanted = model(**asked()).logits
    state, config = deepen(model.state_dict(), model.config, branch=0.0)
    assert config.num_hidden_layers == 6
    torch.testing.assert_close(answers(state, config, type(model)), wanted, rtol=1e-4, atol=1e-4)
    moved, config = deepen(model.state_dict(), model.config, branch=0.5)
    assert (answers(moved, config, type(model)) - wanted).abs().max() > 1e-3


def test_distilberts_shape_has_the_same_encoder_and_a_head_that_is_close() -> None:
    model = small(0)
    state, config = widen(model.state_dict(), model.config)
    out, shape = to_distilbert(state, config)
    other = transformers.DistilBertForSequenceClassification(shape)
    shape._attn_implementation = "eager"
    other.load_state_dict(out)
    other.eval()
    with torch.inference_mode():
        wanted = model.bert(**asked()).last_hidden_state
        got = other.distilbert(**asked()).last_hidden_state
        pooled = torch.nn.functional.linear(wanted[:, 0], model.bert.pooler.dense.weight, model.bert.pooler.dense.bias)
        clipped = model.classifier(pooled.clamp(-1, 1))
        logits = other(**asked()).logits
    torch.testing.assert_close(got[..., :12], wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(got[..., 12:], wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits, clipped, rtol=1e-4, atol=1e-4)


def test_noise_parts_the_twins_and_leaves_vectors_alone() -> None:
    model = small(0)
    state, _ = widen(model.state_dict(), model.config)
    noisy = jitter(state, 0.05)
    name = "bert.encoder.layer.0.intermediate.dense"
    assert torch.equal(noisy[f"{name}.bias"], state[f"{name}.bias"])
    change = (noisy[f"{name}.weight"] - state[f"{name}.weight"]).std() / state[f"{name}.weight"].std()
    assert 0.04 < float(change) < 0.06
    assert torch.equal(noisy["bert.embeddings.word_embeddings.weight"], state["bert.embeddings.word_embeddings.weight"])
