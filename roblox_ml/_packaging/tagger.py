"""A Hugging Face token classifier (named entities) as a package: format text-cpu with one engine, in float32.

The door tokenises and merges the tokens' labels to entities, so what is packaged are logits per token. `rml.optimize` makes of
it what CPUs answer fastest.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import _siblings
from ..errors import PackageError
from .text import write_text_package

__all__ = ["from_tagger", "is_tagger"]


def is_tagger(model: Any) -> bool:
    """Whether the model's class says that it labels tokens."""
    return type(model).__name__.endswith("ForTokenClassification")


def from_tagger(
    model: Any,
    tokenizer: Any,
    *,
    examples: Sequence[str],
    labels: Sequence[str] | None,
    metrics: Mapping[str, Any] | None,
    max_length: int,
    path: str | Path | None,
) -> Path:
    """Package it; `labels` (IOB2: `B-PER`, `I-PER`, `O`) in the order of the outputs, default the model's own."""
    from .transformers import checkpoint_into, frozen_copy, tokenizer_file

    names = [str(name) for name in labels] if labels is not None else _own_labels(model)
    if len(names) != int(model.config.num_labels) or len(set(names)) != len(names):
        raise PackageError(
            f"{len(set(names))} different labels for {model.config.num_labels} outputs: {names}",
            where="labels=",
            why="the n-th label names the n-th output",
            fix='labels=["O", "B-PER", "I-PER", …], in the order used in training',
        )
    frozen = frozen_copy(model, names)
    room = _siblings.load("roblox_ml_serving.text.optimize")
    work = Path(tempfile.mkdtemp(prefix="rml-tagger-"))
    try:
        (work / "model").mkdir()
        tokenizer_file(tokenizer, examples, work / "model" / "tokenizer.json", max_length)
        text = (work / "model" / "tokenizer.json").read_text("utf-8")
        source = room.Source(model=frozen, tokenizer_json=text, labels=tuple(names), max_length=max_length)
        room.write_plain(source, work)
        checkpoint_into(frozen, tokenizer, work / "model" / "hf")
        return write_text_package(work, examples, metrics=metrics, path=path)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _own_labels(model: Any) -> list[str]:
    own = {int(index): str(name) for index, name in model.config.id2label.items()}
    names = [own.get(index, "") for index in range(int(model.config.num_labels))]
    if any(name in ("", f"LABEL_{index}") for index, name in enumerate(names)):
        raise PackageError(
            "the classes have no names",
            where="labels=",
            why=f"the model's config only knows {', '.join(names)}: no entity could be named",
            fix='labels=["O", "B-PER", "I-PER", …], in the order of the model\'s outputs',
        )
    return names
