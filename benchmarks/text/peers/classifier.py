"""What computes inside a peer, for those that bring no model code of their own: the Hugging Face pipeline, or our engine.

Runs in the peer's interpreter and stands alone. Batches of the pipeline are of `BATCH` texts: of 1, 4, 8, 16 and 32 the least
CPU time for texts of mixed lengths, which the pipeline pads to the longest (60, 49, 50, 57, 58 ms of CPU a text when chosen).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BATCH = 8
WARM_UP_S = 8.0


def open_classifier() -> Any:
    """As PEER_ENGINE says."""
    engine = os.environ["PEER_ENGINE"]
    return Pipeline(os.environ["PEER_CHECKPOINT"]) if engine == "torch" else Engine(engine)


class Pipeline:
    """transformers' own pipeline, one thread."""

    batch = BATCH

    def __init__(self, checkpoint: str) -> None:
        import torch
        from transformers import pipeline

        torch.set_num_threads(1)
        self._pipeline = pipeline("text-classification", model=checkpoint, device="cpu")
        self(["a text to begin with"])

    def __call__(self, texts: Sequence[str]) -> list[str]:
        answers = self._pipeline(list(texts), batch_size=self.batch, truncation=True, padding=True)
        return [answer["label"] for answer in answers]


class Engine:
    """The preferred engine of an optimised package, through the code that serves it in Triton."""

    batch = 32

    def __init__(self, folder: str) -> None:
        sys.path.insert(0, os.environ["PEER_BACKENDS"])
        import numpy
        from rml_text_engines import open_engine
        from rml_text_plan import read_plan
        from tokenizers import Tokenizer

        plan = read_plan(Path(folder, "text.json").read_bytes())
        self._labels, self._numpy = plan.labels, numpy
        self._tokenizer = Tokenizer.from_file(str(Path(folder, "tokenizer.json")))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(plan.max_length)
        self._engine = open_engine(plan.engines[0], Path(folder), plan, 1)
        self._engine.warm_up(WARM_UP_S)

    def __call__(self, texts: Sequence[str]) -> list[str]:
        rows = [self._numpy.array(row.ids, dtype="int32") for row in self._tokenizer.encode_batch_fast(list(texts))]
        return [self._labels[int(logits.argmax())] for logits in self._engine.run(rows)]
