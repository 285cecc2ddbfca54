"""What is optimised: a fine-tuned Hugging Face model and the tokenizer it was trained with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Loaded", "OptimizeError", "Source"]


class OptimizeError(ValueError):
    """The model or the data cannot be used; the message says what and what to give."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in evaluation mode, float32, on the CPU; its task; its tokenizer as a file's text."""

    model: Any
    task: str
    labels: tuple[str, ...]
    tokenizer_json: str
    pad_id: int
    max_length: int


@dataclass(frozen=True, slots=True)
class Source:
    """A checkpoint's folder (with tokenizer.json), or a model object and the text of its tokenizer.json."""

    checkpoint: Path | None = None
    model: Any = None
    tokenizer_json: str | None = None
    labels: Sequence[str] = ()
    max_length: int = 128

    def load(self) -> Loaded:
        model = self.model if self.model is not None else _from_folder(self.checkpoint)
        kind = type(model).__name__
        task = {"SequenceClassification": "sequence", "TokenClassification": "token"}.get(kind.partition("For")[2])
        if task is None:
            raise OptimizeError(
                f"{kind} classifies neither texts nor tokens: give an AutoModelForSequenceClassification"
            )
        text = self.tokenizer_json
        if text is None:
            file = Path(self.checkpoint or ".") / "tokenizer.json"
            if not file.is_file():
                raise OptimizeError(f"there is no tokenizer.json in {file.parent.name}: save the fast tokenizer there")
            text = file.read_text("utf-8")
        config = model.config
        labels = tuple(self.labels) or tuple(str(config.id2label[i]) for i in range(int(config.num_labels)))
        if len(labels) != int(config.num_labels):
            raise OptimizeError(f"{len(labels)} labels for a model with {config.num_labels} outputs")
        positions = int(getattr(config, "max_position_embeddings", 0) or self.max_length)
        if config.model_type in ("roberta", "xlm-roberta"):
            positions -= int(config.pad_token_id) + 1
        if not 2 <= self.max_length <= positions:
            raise OptimizeError(f"max_length={self.max_length}: this model has positions for 2 to {positions} tokens")
        return Loaded(model.float().cpu().eval(), task, labels, text, int(config.pad_token_id or 0), self.max_length)


def _from_folder(folder: Path | None) -> Any:
    import json

    import transformers

    if folder is None or not (Path(folder) / "config.json").is_file():
        raise OptimizeError("there is no model: give Source(checkpoint=a folder with config.json) or Source(model=…)")
    names = json.loads((Path(folder) / "config.json").read_text("utf-8")).get("architectures") or ()
    token = any(str(name).endswith("ForTokenClassification") for name in names)
    kind = transformers.AutoModelForTokenClassification if token else transformers.AutoModelForSequenceClassification
    logging = transformers.utils.logging
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        return kind.from_pretrained(folder, attn_implementation="eager")
    finally:
        if bars:
            logging.enable_progress_bar()
