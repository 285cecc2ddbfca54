"""Format hf-text-classifier: TEXT (UTF-8) to label and scores, by a fast tokenizer and ONNX Runtime.

Defined for any bytes: what is not UTF-8 is replaced by U+FFFD, the empty text is classified as its special tokens, and what
is longer than `max_length` tokens is cut at the end, as in training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rml_backend import Model, as_bytes
from rml_onnx import open_session
from tokenizers import Tokenizer

ROWS_PER_CALL = 32  # beyond this a CPU gains nothing from a larger batch, and padding grows


class TritonPythonModel(Model):
    def load(self, folder: Path, package: Mapping[str, Any], signature: Mapping[str, Any]) -> None:
        if not package.get("labels"):
            raise ValueError("package.json names no labels")
        self.labels = as_bytes(np.array(package["labels"], dtype=np.object_))
        self.tokenizer = Tokenizer.from_file(str(folder / "model" / "tokenizer.json"))
        self.tokenizer.enable_truncation(max_length=int(package.get("options", {}).get("max_length", 128)))
        self.pad = pad_id(self.tokenizer)
        self.tokenizer.no_padding()
        graph = folder / "model" / "model.onnx"
        if not graph.is_file():
            raise FileNotFoundError(
                "the package has no model/model.onnx: package it with rml.Model.from_transformers, which exports one"
            )
        self.session = open_session(graph)
        self.fed = [node.name for node in self.session.get_inputs()]
        names = [node.name for node in self.session.get_outputs()]
        self.logits = "logits" if "logits" in names else names[0]

    def predict(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        encoded = self.tokenizer.encode_batch(list(batch["TEXT"]))
        # Neighbours of similar length are padded little; the order is restored below.
        order = sorted(range(len(encoded)), key=lambda i: len(encoded[i].ids))
        scores: Any = np.empty((len(encoded), len(self.labels)), dtype=np.float32)
        for start in range(0, len(order), ROWS_PER_CALL):
            rows = order[start : start + ROWS_PER_CALL]
            scores[rows] = softmax(self.logits_of([encoded[i] for i in rows]))
        return {"label": self.labels[scores.argmax(axis=1)], "scores": scores}

    def logits_of(self, rows: Sequence[Any]) -> Any:
        # A tokenizer without special tokens encodes "" to nothing; one attended pad keeps the mean defined.
        width = max(1, max(len(row.ids) for row in rows))
        ids: Any = np.full((len(rows), width), self.pad, dtype=np.int64)
        mask: Any = np.zeros((len(rows), width), dtype=np.int64)
        types: Any = np.zeros((len(rows), width), dtype=np.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row.ids)] = row.ids
            mask[i, : max(1, len(row.ids))] = 1
            types[i, : len(row.ids)] = row.type_ids
        known = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        return self.session.run([self.logits], {name: known[name] for name in self.fed})[0]


def pad_id(tokenizer: Any) -> int:
    """The id that fills short rows: the tokenizer's own setting, else its pad token, else 0 (masked out anyway)."""
    if tokenizer.padding:
        return int(tokenizer.padding["pad_id"])
    for token in ("[PAD]", "<pad>"):
        if tokenizer.token_to_id(token) is not None:
            return int(tokenizer.token_to_id(token))
    return 0


def softmax(logits: Any) -> Any:
    """Row-wise, shifted by the maximum so that no exponent overflows; computed in float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return (shifted / shifted.sum(axis=1, keepdims=True)).astype(np.float32)
