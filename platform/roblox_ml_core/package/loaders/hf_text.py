"""A Hugging Face text classifier: tokenizer, then the ONNX graph (or the PyTorch weights where there is no graph), then softmax."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...errors import PackageError
from ..layout import ModelPackage
from . import Predict

__all__ = ["open_model", "softmax"]

_BATCH = 32  # bounds the memory of one forward pass; rows are independent of each other
Logits = Callable[[Mapping[str, Any]], Any]


def open_model(package: ModelPackage) -> Predict:
    import numpy as np
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(package.root / "model/tokenizer.json"))
    tokenizer.enable_truncation(int(package.options.get("max_length", 128)))
    if tokenizer.padding is None:
        tokenizer.enable_padding()
    else:
        tokenizer.enable_padding(**{**tokenizer.padding, "length": None})
    logits = _onnx(package.root) if (package.root / "model/model.onnx").is_file() else _torch(package.root)
    labels = package.labels
    if not labels:
        raise PackageError("a text classifier's package has no labels", hint='write "labels": [...] into package.json')

    def predict(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        texts = list(inputs["TEXT"])
        parts = []
        for start in range(0, len(texts), _BATCH):
            encoded = tokenizer.encode_batch(texts[start : start + _BATCH])
            parts.append(
                logits(
                    {
                        "input_ids": np.array([e.ids for e in encoded], dtype=np.int64),
                        "attention_mask": np.array([e.attention_mask for e in encoded], dtype=np.int64),
                        "token_type_ids": np.array([e.type_ids for e in encoded], dtype=np.int64),
                    }
                )
            )
        scores = softmax(np.concatenate(parts)) if parts else np.zeros((0, len(labels)), np.float32)
        if scores.shape[1] != len(labels):
            raise PackageError(f"the model gives {scores.shape[1]} scores, the package names {len(labels)} labels")
        return {"label": np.array(labels, dtype=object)[scores.argmax(axis=1)], "scores": scores}

    return predict


def softmax(logits: Any) -> Any:
    """Row-wise softmax in float32, shifted by the row's maximum so that it cannot overflow."""
    import numpy as np

    shifted = np.exp(logits.astype(np.float32) - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def _onnx(root: Path) -> Logits:
    from .onnx import session

    graph = session(root / "model/model.onnx")
    takes = [argument.name for argument in graph.get_inputs()]
    return lambda tensors: graph.run(None, {name: tensors[name] for name in takes})[0]


def _torch(root: Path) -> Logits:
    import torch
    from transformers import AutoModelForSequenceClassification

    # safetensors only and no remote code: a package from outside is data.
    model = AutoModelForSequenceClassification.from_pretrained(root / "model/hf", use_safetensors=True)
    model.eval()
    takes = set(inspect.signature(model.forward).parameters)

    def logits(tensors: Mapping[str, Any]) -> Any:
        with torch.inference_mode():
            given = {name: torch.from_numpy(array) for name, array in tensors.items() if name in takes}
            return model(**given).logits.float().numpy()

    return logits
