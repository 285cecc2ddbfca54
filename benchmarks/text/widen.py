"""Grow a trained BERT without changing what it answers: twice as wide (Net2Net), and deeper by layers that begin as identity.

No trained 768-wide encoder can be had offline, and an untrained one says nothing about the accuracy of int8. So MiniLM (384 wide)
is widened as in Chen, Goodfellow & Shlens (2016), "Net2Net": every unit is there twice and its outgoing weights are shared out
between the two, at random, so that the two learn different things. LayerNorm's mean and variance are those of the narrow vector.
Deepening follows the same idea (see also Chen et al. 2022, "bert2BERT"): the norm before a new layer loses its gain and shift to
the norm behind it, and a residual branch that adds little leaves a post-norm layer the identity.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

__all__ = ["deepen", "jitter", "to_distilbert", "widen"]

State = dict[str, torch.Tensor]
_LAYER = "bert.encoder.layer."


def widen(state: Mapping[str, torch.Tensor], config: Any, seed: int = 0) -> tuple[State, Any]:
    """A BERT classifier with twice the hidden size, head size and feed-forward size, which answers what `state` does."""
    draw = torch.Generator().manual_seed(seed)
    heads = config.num_attention_heads
    # q·k is now summed over each unit twice, and divided by the root of a head twice as large.
    query_scale = 2**-0.5
    wide: State = {}
    for name, value in state.items():
        v = value.float()
        if "embeddings." in name:
            wide[name] = v.repeat(*[1] * (v.dim() - 1), 2) if v.dim() else v
        elif "LayerNorm" in name:
            wide[name] = v.repeat(2)
        elif name.startswith("classifier."):
            wide[name] = v if name.endswith("bias") else _shared(v, draw)
        elif ".attention.self." in name:
            scale = query_scale if ".query." in name else 1.0
            wide[name] = scale * _twice_per_head(v if name.endswith("bias") else _shared(v, draw), heads)
        elif ".attention.output.dense.weight" in name:
            wide[name] = _shared_per_head(v, heads, draw).repeat(2, 1)
        elif name.endswith("bias"):
            wide[name] = v.repeat(2)
        else:
            wide[name] = _rows_twice(v, draw)
    changed = config.to_dict() | {
        "hidden_size": 2 * config.hidden_size,
        "intermediate_size": 2 * config.intermediate_size,
    }
    return wide, type(config).from_dict(changed)


def deepen(state: Mapping[str, torch.Tensor], config: Any, branch: float = 0.1) -> tuple[State, Any]:
    """Twice as many layers: behind each one a copy whose branches add only `branch` of what the layer's own do."""
    deep: State = {name: value.clone() for name, value in state.items() if not name.startswith(_LAYER)}
    for old in range(config.num_hidden_layers):
        layer = {n.removeprefix(f"{_LAYER}{old}."): v for n, v in state.items() if n.startswith(f"{_LAYER}{old}.")}
        first, second = dict(layer), dict(layer)
        inner, outer = "attention.output.LayerNorm", "output.LayerNorm"
        gain, shift = layer[f"{outer}.weight"], layer[f"{outer}.bias"]
        first |= {f"{outer}.weight": torch.ones_like(gain), f"{outer}.bias": torch.zeros_like(shift)}
        # What the copy's projections read lacks gain and shift, so these go into the projections.
        for part in ("query", "key", "value"):
            _fold(second, f"attention.self.{part}", gain, shift)
        _fold(second, "intermediate.dense", layer[f"{inner}.weight"], layer[f"{inner}.bias"])
        second |= {f"{inner}.weight": torch.ones_like(gain), f"{inner}.bias": torch.zeros_like(shift)}
        for part in ("attention.output.dense", "output.dense"):
            for kind in ("weight", "bias"):
                second[f"{part}.{kind}"] = branch * layer[f"{part}.{kind}"]
        for offset, new in enumerate((first, second)):
            deep |= {f"{_LAYER}{2 * old + offset}.{name}": value.clone() for name, value in new.items()}
    changed = config.to_dict() | {"num_hidden_layers": 2 * config.num_hidden_layers}
    return deep, type(config).from_dict(changed)


def to_distilbert(state: Mapping[str, torch.Tensor], config: Any) -> tuple[State, Any]:
    """The same encoder in DistilBERT's shape: no segments, and a head of ReLU units instead of tanh.

    max(-1, min(1, u)) = relu(u + 1) - relu(u - 1) - 1 comes closest to tanh(u); its two halves take the places of a widened
    pooler's two copies, so the answers change a little here and nowhere else.
    """
    from transformers import DistilBertConfig

    out: State = {}
    segments = state["bert.embeddings.token_type_embeddings.weight"][0]
    out["distilbert.embeddings.word_embeddings.weight"] = state["bert.embeddings.word_embeddings.weight"].clone()
    out["distilbert.embeddings.position_embeddings.weight"] = (
        state["bert.embeddings.position_embeddings.weight"] + segments
    )
    for kind in ("weight", "bias"):
        out[f"distilbert.embeddings.LayerNorm.{kind}"] = state[f"bert.embeddings.LayerNorm.{kind}"].clone()
        for index in range(config.num_hidden_layers):
            for theirs, ours in _DISTILBERT.items():
                source = state[f"{_LAYER}{index}.{theirs}.{kind}"]
                out[f"distilbert.transformer.layer.{index}.{ours}.{kind}"] = source.clone()
    half = config.hidden_size // 2
    sides = torch.cat([torch.ones(half), -torch.ones(half)])
    weight = state["classifier.weight"]
    both = weight[:, :half] + weight[:, half:]
    out["pre_classifier.weight"] = state["bert.pooler.dense.weight"].clone()
    out["pre_classifier.bias"] = state["bert.pooler.dense.bias"] + sides
    out["classifier.weight"] = torch.cat([both, -both], dim=1)
    out["classifier.bias"] = state["classifier.bias"] - both.sum(1)
    shape = DistilBertConfig(
        vocab_size=config.vocab_size,
        max_position_embeddings=config.max_position_embeddings,
        dim=config.hidden_size,
        hidden_dim=config.intermediate_size,
        n_layers=config.num_hidden_layers,
        n_heads=config.num_attention_heads,
        pad_token_id=config.pad_token_id,
        num_labels=config.num_labels,
    )
    return out, shape


def jitter(state: Mapping[str, torch.Tensor], share: float, seed: int = 0) -> State:
    """Noise of `share` of each matrix's own spread: equal units part for good."""
    draw = torch.Generator().manual_seed(seed)
    return {
        name: v + share * v.std() * torch.randn(v.shape, generator=draw)
        if v.dim() == 2 and "embeddings" not in name
        else v
        for name, v in state.items()
    }


# BERT's names → DistilBERT's
_DISTILBERT = {
    "attention.self.query": "attention.q_lin",
    "attention.self.key": "attention.k_lin",
    "attention.self.value": "attention.v_lin",
    "attention.output.dense": "attention.out_lin",
    "attention.output.LayerNorm": "sa_layer_norm",
    "intermediate.dense": "ffn.lin1",
    "output.dense": "ffn.lin2",
    "output.LayerNorm": "output_layer_norm",
}


def _shares(like: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    return 0.5 + 0.25 * (2 * torch.rand(like.shape, generator=draw) - 1)


def _shared(weight: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """[out, in] → [out, 2 in]: what came from one unit comes from its two copies, in random shares."""
    share = _shares(weight, draw)
    return torch.cat([weight * share, weight * (1 - share)], dim=1)


def _rows_twice(weight: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    return torch.cat([_shared(weight, draw), _shared(weight, draw)])


def _twice_per_head(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows belong to heads: each head's rows are followed by their copies."""
    split = rows.reshape(heads, -1, *rows.shape[1:])
    return torch.cat([split, split], dim=1).reshape(-1, *rows.shape[1:])


def _shared_per_head(weight: torch.Tensor, heads: int, draw: torch.Generator) -> torch.Tensor:
    share = _shares(weight, draw)
    parts = [(weight * s).reshape(len(weight), heads, -1) for s in (share, 1 - share)]
    return torch.cat(parts, dim=2).reshape(len(weight), -1)


def _fold(layer: State, part: str, gain: torch.Tensor, shift: torch.Tensor) -> None:
    """y = W(gain·z + shift) + b, written as weights over z."""
    weight = layer[f"{part}.weight"]
    layer[f"{part}.bias"] = layer[f"{part}.bias"] + weight @ shift
    layer[f"{part}.weight"] = weight * gain
