"""A lean graph of a BERT-family classifier: what engines fuse well, and nothing that is not asked for.

The answers are those of the Hugging Face model (checked in float32 on the user's own texts before anything is built on it); what is left
out is work. A classifier of texts reads the first token only, so the last layer computes that row alone: queries, attention
output, feed-forward and norms of one row, keys and values of all. Segment ids are all zero for single texts and folded into the
positions. Queries, keys and values stay three products: one fused product is quicker on paper, but its reshape keeps OpenVINO from
fusing attention.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

__all__ = ["FAMILIES", "Generic", "Lean", "NotLean", "head_of", "lean"]

# model_type → how its classes call things
FAMILIES = ("bert", "distilbert", "roberta", "xlm-roberta", "electra")
_MASKED = -1e9
_ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "gelu": functional.gelu,
    "relu": functional.relu,
    "tanh": torch.tanh,
    "": lambda x: x,
}


class NotLean(ValueError):
    """This model has no lean graph; the message says why. The generic export still works."""


@dataclass(frozen=True, slots=True)
class Head:
    """The classification head: out(activation(dense(row))), or out(row) where `dense` is None."""

    dense: Any
    activation: str
    out: Any


def head_of(model: Any, task: str) -> Head:
    """The head of a model of one of the families."""
    kind = model.config.model_type
    if task == "token":
        return Head(None, "", model.classifier)
    if kind == "bert":
        return Head(model.bert.pooler.dense, "tanh", model.classifier)
    if kind == "distilbert":
        return Head(model.pre_classifier, "relu", model.classifier)
    return Head(model.classifier.dense, "gelu" if kind == "electra" else "tanh", model.classifier.out_proj)


class _Layer(nn.Module):  # type: ignore[misc]
    def __init__(self, layer: Any, kind: str, heads: int) -> None:
        super().__init__()
        if kind == "distilbert":
            attention = layer.attention
            self.q, self.k, self.v, self.o = attention.q_lin, attention.k_lin, attention.v_lin, attention.out_lin
            self.norm_1, self.norm_2 = layer.sa_layer_norm, layer.output_layer_norm
            self.up, self.down = layer.ffn.lin1, layer.ffn.lin2
        else:
            own, out = layer.attention.self, layer.attention.output
            self.q, self.k, self.v, self.o = own.query, own.key, own.value, out.dense
            self.norm_1, self.norm_2 = out.LayerNorm, layer.output.LayerNorm
            self.up, self.down = layer.intermediate.dense, layer.output.dense
        self.heads = heads

    def forward(self, x: Any, bias: Any, first_only: bool) -> Any:
        rows = x[:, :1] if first_only else x
        q, k, v = (self._split(f(y)) for f, y in ((self.q, rows), (self.k, x), (self.v, x)))
        seen = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        h = self.norm_1(self.o(seen.transpose(1, 2).flatten(2)) + rows)
        return self.norm_2(self.down(functional.gelu(self.up(h))) + h)

    def _split(self, x: Any) -> Any:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


class Lean(nn.Module):  # type: ignore[misc]
    """(input_ids, attention_mask), int64 [B, L], right-padded → logits [B, n], or [B, L, n] for token classification."""

    def __init__(self, model: Any, task: str) -> None:
        super().__init__()
        config, kind = model.config, model.config.model_type
        _check(config)
        body = model.base_model
        embeddings = body.embeddings
        # RoBERTa counts positions from behind its padding's.
        first = config.pad_token_id + 1 if kind in ("roberta", "xlm-roberta") else 0
        positions = embeddings.position_embeddings.weight[first:].detach().clone()
        if hasattr(embeddings, "token_type_embeddings"):
            positions += embeddings.token_type_embeddings.weight[0].detach()
        self.words, self.norm = embeddings.word_embeddings, embeddings.LayerNorm
        self.positions = nn.Parameter(positions, requires_grad=False)
        self.project = getattr(body, "embeddings_project", None)  # ELECTRA: narrow embeddings
        layers = body.transformer.layer if kind == "distilbert" else body.encoder.layer
        self.layers = nn.ModuleList(_Layer(layer, kind, config.num_attention_heads) for layer in layers)
        head = head_of(model, task)
        self.dense, self.out, self.activation = head.dense, head.out, head.activation
        self.first_only = task == "sequence"

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        x = self.norm(self.words(input_ids) + self.positions[: input_ids.shape[1]])
        if self.project is not None:
            x = self.project(x)
        bias = ((1 - attention_mask).to(x.dtype) * _MASKED)[:, None, None, :]
        last = len(self.layers) - 1
        for index, layer in enumerate(self.layers):
            x = layer(x, bias, self.first_only and index == last)
        if self.first_only:
            x = x[:, 0]
        if self.dense is not None:
            x = _ACTIVATIONS[self.activation](self.dense(x))
        return self.out(x)


class Generic(nn.Module):  # type: ignore[misc]
    """The Hugging Face model itself behind the same two inputs and one output."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits


def lean(model: Any, task: str) -> Any:
    """The lean graph of a fine-tuned model, sharing its weights. NotLean when it is of another family or built differently."""
    try:
        return Lean(model, task).eval()
    except AttributeError as error:
        raise NotLean(f"{type(model).__name__} is not built like its family: {error}") from error


def _check(config: Any) -> None:
    kind = config.model_type
    if kind not in FAMILIES:
        raise NotLean(f"{kind} is none of {', '.join(FAMILIES)}")
    activation = getattr(config, "hidden_act", None) or getattr(config, "activation", "gelu")
    if activation != "gelu":
        raise NotLean(f"its feed-forward computes {activation}, not gelu")
    if getattr(config, "position_embedding_type", None) not in (None, "absolute"):
        raise NotLean(f"its positions are {config.position_embedding_type}, not absolute")
    if getattr(config, "is_decoder", False):
        raise NotLean("it is a decoder")
