"""Training a text encoder on a CPU: what every loop over texts of different lengths needs.

Texts of similar length share a batch, so that little is padded; batches are padded to a multiple of 8, because every new shape costs
oneDNN a compilation; bfloat16 where the processor has it; word embeddings stay as they are (half of the weights, each with a dense
gradient to fill and step). torch and numpy are imported by the functions: the SDK itself needs neither.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

__all__ = ["half", "layers_of", "logits_of", "padded", "rates", "similar_lengths"]

_POOL = 32  # batches whose texts are sorted by length together


def half() -> Any:
    """bfloat16 autocast, where the processor computes in it."""
    import torch

    return torch.autocast("cpu", torch.bfloat16, enabled=torch.cpu._is_avx512_bf16_supported())


def layers_of(model: Any) -> Any:
    """The encoder's layers (a ModuleList), in the families BERT, RoBERTa, ELECTRA, XLM-R and DistilBERT; None in others."""
    body = getattr(model, "base_model", None)
    for holder in ("encoder", "transformer"):
        layers = getattr(getattr(body, holder, None), "layer", None)
        if layers is not None:
            return layers
    return None


def rates(model: Any, body: float, head: float, decay: float = 0.9) -> list[dict[str, Any]]:
    """AdamW's groups: lower layers learn slower, the head at its own rate; word embeddings do not learn."""
    layers = layers_of(model)
    model.base_model.embeddings.requires_grad_(False)
    last = len(layers) - 1
    groups: list[dict[str, Any]] = [
        {"params": list(layer.parameters()), "lr": body * decay ** (last - i)} for i, layer in enumerate(layers)
    ]
    known = {id(parameter) for group in groups for parameter in group["params"]}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in known]
    return [*groups, {"params": rest, "lr": head}]


def similar_lengths(lengths: Sequence[int], batch: int, seed: int) -> Iterator[Any]:
    """Row numbers, `batch` at a time, of similar length; epoch after epoch, for ever.

    Shuffled, cut into pools, sorted by length within each, cut into batches, shuffled again.
    """
    import numpy as np

    sizes = np.asarray(lengths)
    shuffle = np.random.default_rng(seed)
    while True:
        pools = np.array_split(shuffle.permutation(len(sizes)), max(1, len(sizes) // (_POOL * batch)))
        ordered = [pool[np.argsort(sizes[pool], kind="stable")] for pool in pools]
        ready = [pool[i : i + batch] for pool in ordered for i in range(0, len(pool), batch)]
        for i in shuffle.permutation(len(ready)):
            yield ready[i]


def padded(rows: Sequence[Sequence[int]], pad: int = 0, multiple: int = 8) -> tuple[Any, Any]:
    """Token ids and attention mask of rows of different length, [rows, longest rounded up]."""
    import torch

    longest = -(-max(len(row) for row in rows) // multiple) * multiple
    ids = torch.full((len(rows), longest), pad)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.as_tensor(row)
        mask[i, : len(row)] = 1
    return ids, mask


def logits_of(model: Any, tokens: Sequence[Sequence[int]], pad: int = 0, batch: int = 64) -> list[Any]:
    """The model's logits for every row as float32 arrays, in the rows' order; [tokens, classes] for a token classifier."""
    import numpy as np
    import torch

    order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
    out: list[Any] = [np.empty(0)] * len(tokens)
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            ids, mask = padded([tokens[i] for i in rows], pad)
            with half():
                logits = model(input_ids=ids, attention_mask=mask).logits.float().numpy()
            for i, answer in zip(rows, logits, strict=True):
                # A copy: a view would keep the padded whole alive.
                out[i] = answer[: len(tokens[i])].copy() if answer.ndim == 2 else answer.copy()
    return out
