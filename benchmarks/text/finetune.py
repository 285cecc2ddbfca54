"""Fine-tuning on two CPU cores: batches of similar length, bfloat16 where the processor has it, word embeddings as they are.

The recipe is that of the example `comment_sentiment`, for classifiers of texts and of tokens alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

__all__ = ["Recipe", "fine_tune", "logits_of", "soft_labels"]

Progress = Callable[[str], None]
_POOL = 32  # batches whose texts are sorted by length together


@dataclass(frozen=True, slots=True)
class Recipe:
    """How long and how fast: `steps` batches of `batch` texts, learning rates of the uppermost layer and of the head."""

    steps: int
    body: float = 1e-4
    head: float = 1e-3
    decay: float = 0.9  # of the rate, from one layer to the one below
    batch: int = 32
    seed: int = 7


def soft_labels(ratings: Sequence[float], error: float = 0.25) -> torch.Tensor:
    """Three probabilities a text: a mean of 20 ratings is uncertain by about `error`, so 0.45 is not certainly neutral."""
    mean = torch.tensor(ratings, dtype=torch.float64)
    below, above = (torch.special.ndtr((limit - mean) / error) for limit in (-0.5, 0.5))
    return torch.stack([below, above - below, 1 - above], dim=1).float()


def fine_tune(
    model: Any, tokens: Sequence[Sequence[int]], targets: Any, recipe: Recipe, progress: Progress = print
) -> float:
    """Train `model` in place; returns the seconds it took.

    `targets` is a tensor [texts, classes] of probabilities, or a list of one class number per token (−100: not asked).
    """
    torch.manual_seed(recipe.seed)
    optimizer = torch.optim.AdamW(_rates(model, recipe), fused=True)
    warmup = max(1, recipe.steps // 16)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (recipe.steps - step) / (recipe.steps - warmup))
    )
    lengths = np.array([len(row) for row in tokens])
    begun = time.monotonic()
    model.train()
    for step, rows in zip(range(recipe.steps), _batches(lengths, recipe), strict=False):
        ids, mask = _padded([tokens[i] for i in rows])
        with _half():
            logits = model(input_ids=ids, attention_mask=mask).logits
        loss = _loss(logits.float(), targets, rows)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 50 == 0:
            progress(f"step {step} of {recipe.steps}: loss {loss.item():.3f}, {time.monotonic() - begun:.0f} s")
    model.eval()
    return time.monotonic() - begun


def logits_of(model: Any, tokens: Sequence[Sequence[int]], batch: int = 64) -> list[np.ndarray]:
    """The model's logits for every row, in the rows' order; per token for a token classifier."""
    order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
    out: list[np.ndarray] = [np.empty(0)] * len(tokens)
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            ids, mask = _padded([tokens[i] for i in rows])
            with _half():
                logits = model(input_ids=ids, attention_mask=mask).logits.float().numpy()
            for i, answer in zip(rows, logits, strict=True):
                out[i] = answer[: len(tokens[i])] if answer.ndim == 2 else answer
    return out


def _half() -> Any:
    return torch.autocast("cpu", torch.bfloat16, enabled=torch.cpu._is_avx512_bf16_supported())


def _rates(model: Any, recipe: Recipe) -> list[dict[str, Any]]:
    """Lower layers learn slower, the head faster; word embeddings do not learn."""
    body = model.base_model
    layers = body.transformer.layer if hasattr(body, "transformer") else body.encoder.layer
    body.embeddings.requires_grad_(False)
    last = len(layers) - 1
    groups = [
        {"params": list(layer.parameters()), "lr": recipe.body * recipe.decay ** (last - i)}
        for i, layer in enumerate(layers)
    ]
    known = {id(p) for group in groups for p in group["params"]}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in known]
    return [*groups, {"params": rest, "lr": recipe.head}]


def _batches(lengths: np.ndarray, recipe: Recipe) -> Iterator[np.ndarray]:
    """Row numbers of texts of similar length, epoch after epoch."""
    shuffle = np.random.default_rng(recipe.seed)
    size = recipe.batch
    while True:
        order = shuffle.permutation(len(lengths))
        pools = np.array_split(order, max(1, len(order) // (_POOL * size)))
        ready = [
            pool[np.argsort(lengths[pool], kind="stable")][i : i + size]
            for pool in pools
            for i in range(0, len(pool), size)
        ]
        for i in shuffle.permutation(len(ready)):
            yield ready[i]


def _padded(rows: Sequence[Sequence[int]], multiple: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    # A multiple of 8: every new shape costs oneDNN a compilation.
    longest = -(-max(len(row) for row in rows) // multiple) * multiple
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.as_tensor(row)
        mask[i, : len(row)] = 1
    return ids, mask


def _loss(logits: torch.Tensor, targets: Any, rows: np.ndarray) -> torch.Tensor:
    if isinstance(targets, torch.Tensor):
        return -(targets[rows] * logits.log_softmax(-1)).sum(-1).mean()
    wanted = torch.full(logits.shape[:2], -100)
    for i, row in enumerate(rows):
        wanted[i, : len(targets[row])] = torch.as_tensor(targets[row])
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten())
