"""A Hugging Face text classifier as a package: the checkpoint, a tokenizer file and an ONNX graph that answers the same.

The graph is exported once, here, and compared with PyTorch on the examples in several batch shapes: a graph that is right for
one row of one length can be wrong for three of another. The answers recorded in the package are the graph's own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import PackageError
from ._export import agree, export_classifier
from ._package import TOLERANCE, model_folder, write_package
from ._tensors import TEXT_INPUT, Tensor, text_array
from .tagger import from_tagger, is_tagger

__all__ = ["checkpoint_into", "from_transformers", "frozen_copy", "tokenizer_file"]


def from_transformers(
    model: Any,
    tokenizer: Any,
    *,
    examples: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    metrics: Mapping[str, Any] | None = None,
    max_length: int = 128,
    path: str | Path | None = None,
) -> Path:
    """Package a single-label text classifier (an `AutoModelForSequenceClassification` and its fast tokenizer), or a tagger
    of named entities (an `AutoModelForTokenClassification`), whose served answer is `entities`.

    `examples`: a few texts as users write them; they warm the server up and check every load.
    `labels`: names in the order of the model's outputs; left out, the model's own `config.id2label`.
    `max_length`: longer texts are cut to this many tokens, in training and serving alike.
    The served answer is `label` and `scores` (softmax, float32). Returns the package's directory.
    """
    texts = _texts(examples)
    if is_tagger(model):
        return from_tagger(
            model, tokenizer, examples=texts, labels=labels, metrics=metrics, max_length=_max_length(model, max_length), path=path
        )  # fmt: skip
    names = _labels(model, labels)
    limit = _max_length(model, max_length)
    root, folder = model_folder(path)
    frozen = frozen_copy(model, names)
    encode = tokenizer_file(tokenizer, texts, folder / "tokenizer.json", limit)
    logits = export_classifier(frozen, encode(texts[:2] or texts), folder / "model.onnx")
    agree(frozen, logits, encode, texts, TOLERANCE)
    checkpoint_into(frozen, tokenizer, folder / "hf")

    scores = _softmax(logits(encode(texts)))
    answer = text_array([names[i] for i in scores.argmax(axis=1)])
    return write_package(
        root,
        format="hf-text-classifier",
        inputs={TEXT_INPUT: text_array(texts)},
        outputs={Tensor("label", "BYTES", (-1,)): answer, Tensor("scores", "FP32", (-1, len(names))): scores},
        labels=names,
        options={"max_length": limit},
        metrics=metrics,
    )


def _texts(examples: Sequence[str] | None) -> list[str]:
    if isinstance(examples, str) or not examples or not all(isinstance(text, str) and text for text in examples):
        raise PackageError(
            "a text classifier needs a few example texts",
            where="examples=",
            why="they are the known answers that every server checks after loading, and its warm-up",
            fix='from_transformers(..., examples=["gg, well played!", "this map is broken"])',
        )
    return list(examples)


def _labels(model: Any, labels: Sequence[str] | None) -> list[str]:
    """The class names, after making sure that the model is a classifier with exactly one answer per text."""
    config = getattr(model, "config", None)
    kind = type(model).__name__
    if config is None or not kind.endswith("ForSequenceClassification"):
        raise PackageError(
            f"{kind} is not a Hugging Face text classifier",
            where="model",
            why="a classifier's class ends in ForSequenceClassification; other heads have other answers than label and scores",
            fix="load it with AutoModelForSequenceClassification, or use Model.from_onnx or Model.from_python",
        )
    count = int(config.num_labels)
    problem = getattr(config, "problem_type", None)
    if count < 2 or problem in ("regression", "multi_label_classification"):
        raise PackageError(
            f"this model's answer is no softmax over classes (num_labels={count}, problem_type={problem!r})",
            where="model.config",
            why="`scores` add up to 1 and `label` is the best of them; a regression or multi-label model means something else",
            fix="package it with Model.from_onnx or Model.from_python, which return what the model returns",
        )
    if labels is None:
        own = {int(index): str(name) for index, name in config.id2label.items()}
        names = [own.get(index, "") for index in range(count)]
        if any(name in ("", f"LABEL_{index}") for index, name in enumerate(names)):
            raise PackageError(
                "the classes have no names",
                where="labels=",
                why=f"the model's config only knows {', '.join(names)}, which tells a caller nothing",
                fix=f"labels=[...] with {count} names, in the order of the model's outputs",
            )
    else:
        names = [str(name) for name in labels]
    if len(names) != count or len(set(names)) != count:
        raise PackageError(
            f"{len(set(names))} different labels for {count} outputs: {names}",
            where="labels=",
            why="the n-th label names the n-th output",
            fix=f"give {count} different names, in the order used in training",
        )
    return names


def _max_length(model: Any, max_length: int) -> int:
    positions = int(getattr(model.config, "max_position_embeddings", max_length) or max_length)
    if not 2 <= max_length <= positions:
        raise PackageError(
            f"max_length={max_length} does not fit this model",
            where="max_length=",
            why=f"it has {positions} positions, and a text needs at least its two special tokens",
            fix=f"max_length between 2 and {positions}; use the one you trained with",
        )
    return max_length


def frozen_copy(model: Any, names: Sequence[str]) -> Any:
    """The model in evaluation mode, float32, on the CPU, with contiguous weights; the caller's own stays as it is."""
    import copy

    import torch

    odd = sorted({str(p.dtype) for p in model.parameters() if not p.is_floating_point()})
    if odd or any(p.is_meta for p in model.parameters()):
        raise PackageError(
            f"the weights are {', '.join(odd) or 'not loaded (meta tensors)'}",
            where="model",
            why="a package holds the float weights; servers make their own quantised form of them",
            fix="package the model before quantising it, loaded with from_pretrained(..., device_map=None)",
        )
    frozen = copy.deepcopy(model).float().cpu().eval()
    for parameter in frozen.parameters():
        # Sliced or transposed weights cannot be written as safetensors.
        parameter.data = parameter.data.contiguous()
        parameter.requires_grad_(False)
    bad = [name for name, p in frozen.named_parameters() if not bool(torch.isfinite(p).all())]
    if bad:
        raise PackageError(
            f"{len(bad)} weights hold NaN or infinity, first {bad[0]}",
            where="model",
            why="the training diverged",
            fix="lower the learning rate, clip gradients, and look at the loss",
        )
    frozen.config.id2label = dict(enumerate(names))
    frozen.config.label2id = {name: index for index, name in enumerate(names)}
    return frozen


def tokenizer_file(tokenizer: Any, texts: Sequence[str], file: Path, max_length: int) -> Any:
    """Write tokenizer.json; returns `encode(texts) -> {input_ids, attention_mask}` that works as a server will."""
    import numpy as np
    from tokenizers import Tokenizer

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise PackageError(
            f"{type(tokenizer).__name__} has no tokenizer.json",
            where="tokenizer",
            why="servers tokenise with the `tokenizers` library, without transformers",
            fix="load the fast one: AutoTokenizer.from_pretrained(..., use_fast=True)",
        )
    plain = Tokenizer.from_str(backend.to_str())
    # Whatever the last call in the notebook left set must not travel; servers truncate and pad by the options.
    plain.no_truncation()
    pad = tokenizer.pad_token_id
    if pad is None:
        raise PackageError(
            "the tokenizer has no padding token",
            where="tokenizer",
            why="texts of different length are answered in one batch",
            fix="tokenizer.pad_token = tokenizer.eos_token, before training",
        )
    plain.enable_padding(pad_id=int(pad), pad_token=str(tokenizer.pad_token))
    plain.save(str(file))

    served = Tokenizer.from_file(str(file))
    served.enable_truncation(max_length)

    def encode(batch: Sequence[str]) -> dict[str, Any]:
        rows = served.encode_batch(list(batch))
        return {
            "input_ids": np.array([row.ids for row in rows], dtype=np.int64),
            "attention_mask": np.array([row.attention_mask for row in rows], dtype=np.int64),
        }

    for text in texts:
        trained = tokenizer([text], truncation=True, max_length=max_length)["input_ids"][0]
        if encode([text])["input_ids"][0].tolist() != list(trained):
            raise PackageError(
                f"tokenizer.json splits {text[:60]!r} differently than the tokenizer you trained with",
                where="tokenizer",
                why="settings applied only in Python (added tokens, a custom pre-tokeniser) are not in the file",
                fix="save and load the tokenizer (save_pretrained, AutoTokenizer.from_pretrained) and train with that one",
            )
    return encode


def checkpoint_into(model: Any, tokenizer: Any, folder: Path) -> None:
    """save_pretrained for both, without the traces of where the files once lay."""
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model.save_pretrained(folder, safe_serialization=True)
        tokenizer.save_pretrained(folder)
    finally:
        if bars:
            logging.enable_progress_bar()
    for name in ("config.json", "tokenizer_config.json"):
        file = folder / name
        if file.is_file():
            content = json.loads(file.read_text("utf-8"))
            for key in ("_name_or_path", "name_or_path"):
                content.pop(key, None)
            file.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")


def _softmax(logits: Any) -> Any:
    import numpy as np

    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (shifted / shifted.sum(axis=1, keepdims=True)).astype(np.float32)
