"""Train MiniLM to find the entities of `benchmarks.text.entities`, and score it as a server answers: spans of code points."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from roblox_ml_serving.backends import rml_text_heads

from roblox_ml._text_training import logits_of

from .corpora import MAX_LENGTH, minilm
from .entities import TAGS, Span, entity_f1, silver, tags
from .finetune import Recipe, fine_tune

__all__ = ["build", "held_out_entities", "spans_of"]


def build(
    recipe: dict[str, Any], progress: Callable[[str], None]
) -> tuple[Any, Any, tuple[str, ...], dict[str, float]]:
    """The trained model, its tokenizer, its labels, its metrics."""
    import torch
    import transformers

    with tempfile.TemporaryDirectory() as folder:
        source = minilm(Path(folder))
        torch.manual_seed(7)
        model = transformers.AutoModelForTokenClassification.from_pretrained(
            source, num_labels=len(TAGS), attn_implementation="eager",
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, classifier_dropout=0.0,
        )  # fmt: skip
        tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    train, test = silver()

    def encode(texts: Sequence[str]) -> Any:
        return tokenizer(list(texts), truncation=True, max_length=MAX_LENGTH, return_offsets_mapping=True)

    known = encode([row.text for row in train])
    targets = [tags(row.spans, offsets) for row, offsets in zip(train, known["offset_mapping"], strict=True)]
    seconds = fine_tune(model, known["input_ids"], targets, Recipe(**recipe), progress)
    asked = encode([row.text for row in test])
    logits = logits_of(model, asked["input_ids"])
    found = spans_of(logits, asked["offset_mapping"], [row.text for row in test])
    # What truncation cut off cannot be found by anybody.
    seen = [max(end for _, end in offsets) for offsets in asked["offset_mapping"]]
    truth = [[span for span in row.spans if span.end <= end] for row, end in zip(test, seen, strict=True)]
    metrics = {
        "entity_f1": entity_f1(truth, found),
        # The marks of tweets are easy; names are not.
        "entity_f1_names": entity_f1(_names(truth), _names(found)),
        "entities": float(sum(map(len, truth))),
        "train_seconds": round(seconds, 1),
    }
    return model, tokenizer, TAGS, metrics


def held_out_entities() -> tuple[list[str], list[list[Span]]]:
    """The texts that no model was trained on, and their entities."""
    _, test = silver()
    return [row.text for row in test], [list(row.spans) for row in test]


def spans_of(
    logits: Sequence[np.ndarray], offsets: Sequence[Sequence[tuple[int, int]]], texts: Sequence[str]
) -> list[list[Span]]:
    """What a server would answer, as spans."""
    return [
        [
            Span(int(found["start"]), int(found["end"]), str(found["entity"]))
            for found in rml_text_heads.entities(rows, places, text, TAGS)
        ]
        for rows, places, text in zip(logits, offsets, texts, strict=True)
    ]


def _names(rows: Sequence[Sequence[Span]]) -> list[list[Span]]:
    return [[span for span in row if span.kind in ("PER", "LOC", "ORG")] for row in rows]
