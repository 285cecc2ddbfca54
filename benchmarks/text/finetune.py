"""Fine-tuning on two CPU cores, by the recipe of the example `comment_sentiment`: classifiers of texts and of tokens alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from roblox_ml._text_training import half, padded, rates, similar_lengths

__all__ = ["Recipe", "fine_tune", "soft_labels"]

Progress = Callable[[str], None]


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
    optimizer = torch.optim.AdamW(rates(model, recipe.body, recipe.head, recipe.decay), fused=True)
    warmup = max(1, recipe.steps // 16)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (recipe.steps - step) / (recipe.steps - warmup))
    )
    lengths = [len(row) for row in tokens]
    begun = time.monotonic()
    model.train()
    for step, rows in zip(range(recipe.steps), similar_lengths(lengths, recipe.batch, recipe.seed), strict=False):
        ids, mask = padded([tokens[i] for i in rows])
        with half():
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


def _loss(logits: torch.Tensor, targets: Any, rows: np.ndarray) -> torch.Tensor:
    if isinstance(targets, torch.Tensor):
        return -(targets[rows] * logits.log_softmax(-1)).sum(-1).mean()
    wanted = torch.full(logits.shape[:2], -100)
    for i, row in enumerate(rows):
        wanted[i, : len(targets[row])] = torch.as_tensor(targets[row])
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten())
