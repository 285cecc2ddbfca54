"""Knowledge distillation: a student made of the teacher's own layers learns the teacher's probabilities.

Hinton, Vinyals & Dean (2015), "Distilling the Knowledge in a Neural Network": the loss is T²·KL(teacher/T ‖ student/T) plus, where
labels are known, cross-entropy with them. Sanh et al. (2019), "DistilBERT": the student starts as every other layer of its
teacher, with the teacher's embeddings and head, and so begins close to it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ._text_training import half, layers_of, logits_of, padded, rates, similar_lengths
from .errors import PackageError

__all__ = ["Plan", "chosen_layers", "student_of", "teach"]


@dataclass(frozen=True, slots=True)
class Plan:
    """How the student learns. `soft`: the share of the teacher's answers in the loss where labels are known, too."""

    epochs: float = 1
    temperature: float = 2.0
    soft: float = 0.7
    batch: int = 32
    rate: float = 1e-4
    seed: int = 7


def chosen_layers(have: int, want: int) -> list[int]:
    """Which of the teacher's layers the student keeps: the first, the last, and evenly spaced ones between."""
    if want == 1:
        return [have - 1]
    return [round(i * (have - 1) / (want - 1)) for i in range(want)]


def student_of(teacher: Any, layers: int | None = None) -> Any:
    """A copy of the teacher with `layers` of its layers (default: half of them); the teacher stays as it is."""
    import copy

    import torch

    stack = layers_of(teacher)
    if stack is None:
        raise PackageError(
            f"{type(teacher).__name__} has no layers that a student could keep",
            where="teacher",
            why="students are made of the layers of BERT, DistilBERT, RoBERTa, ELECTRA or XLM-R classifiers",
            fix="distil a model of one of these families",
        )
    have = len(stack)
    want = layers if layers is not None else max(1, have // 2)
    if not 1 <= want <= have:
        raise PackageError(
            f"layers={layers} of a teacher that has {have}",
            where="layers=",
            why="the student consists of layers of its teacher",
            fix=f"layers between 1 and {have}; half of them is usual",
        )
    student = copy.deepcopy(teacher).float()
    holder = (
        student.base_model.transformer if hasattr(student.base_model, "transformer") else student.base_model.encoder
    )
    holder.layer = torch.nn.ModuleList(layers_of(student)[i] for i in chosen_layers(have, want))
    student.config.num_hidden_layers = want
    for module in student.modules():
        if isinstance(module, torch.nn.Dropout):  # few texts of a short training are seen twice
            module.p = 0.0
    return student


def teach(
    student: Any,
    teacher: Any,
    tokens: Sequence[Sequence[int]],
    classes: Sequence[Any] | None,
    plan: Plan,
    *,
    pad: int = 0,
    progress: Callable[[str], None] = print,
) -> float:
    """Train `student` in place on the teacher's answers to `tokens`; returns the last hundred batches' mean loss.

    `classes`: one class number a text (a list of them, one a token, for a token classifier), −100 where unknown; or None.
    """
    import torch

    torch.manual_seed(plan.seed)
    begun = time.monotonic()
    answers = logits_of(teacher, tokens, pad)
    progress(f"the teacher answered {len(tokens)} texts in {time.monotonic() - begun:.0f} s")
    steps = max(1, round(plan.epochs * -(-len(tokens) // plan.batch)))
    optimizer = torch.optim.AdamW(rates(student, body=plan.rate, head=plan.rate), fused=True)
    warmup = max(1, steps // 16)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (steps - step) / max(1, steps - warmup))
    )
    batches = similar_lengths([len(row) for row in tokens], plan.batch, plan.seed)
    losses: list[float] = []
    student.train()
    for step, rows in zip(range(steps), batches, strict=False):
        ids, mask = padded([tokens[i] for i in rows], pad)
        with half():
            logits = student(input_ids=ids, attention_mask=mask).logits
        loss = _loss(logits.float(), mask, rows, answers, classes, plan)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        losses.append(loss.item())
        if step % 50 == 0:
            progress(f"step {step} of {steps}: loss {losses[-1]:.3f}, {time.monotonic() - begun:.0f} s")
    student.eval()
    recent = losses[-100:]
    return sum(recent) / len(recent)


def _loss(logits: Any, mask: Any, rows: Any, answers: Sequence[Any], classes: Sequence[Any] | None, plan: Plan) -> Any:
    import torch
    from torch.nn.functional import cross_entropy, kl_div

    told = torch.zeros_like(logits)
    wanted = torch.full(logits.shape[:-1], -100)
    for place, row in enumerate(rows):
        answer = torch.from_numpy(answers[row])
        told[place, : len(answer)] = answer  # [classes], or [tokens, classes] of the padded whole
        if classes is not None:
            label = torch.as_tensor(classes[row])
            if label.ndim:
                wanted[place, : len(label)] = label
            else:
                wanted[place] = label
    if logits.ndim == 3:  # padding has no answer
        kept = mask.bool()
        logits, told, wanted = logits[kept], told[kept], wanted[kept]
    hot = plan.temperature
    soft = kl_div((logits / hot).log_softmax(-1), (told / hot).log_softmax(-1), reduction="batchmean", log_target=True)
    soft = soft * hot**2
    if classes is None or not bool((wanted >= 0).any()):
        return soft
    return plan.soft * soft + (1 - plan.soft) * cross_entropy(logits, wanted, ignore_index=-100)
