"""`python -m benchmarks.text.models [name…]`: the trained models that the benchmarks of text models ask, built once and kept.

| name | what |
| --- | --- |
| minilm-l6 | MiniLM-L6 (384 wide), fine-tuned on the rated comments as the example does |
| distilbert-768x6 | DistilBERT's shape: the above, widened without changing its answers, then trained on |
| bert-768x12 | BERT-base's shape: widened and deepened the same way, then trained on |
| minilm-l6-entities | MiniLM-L6 with a head for tokens, trained on entities in the same texts |

They are trained so that "int8 loses nothing" is a statement about weights that know something. Their scores are not the point, and
nothing is claimed for them beyond it. Each lies as a Hugging Face checkpoint below RML_HOME/cache/text-models.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from examples.comment_sentiment.scoring import macro_f1

from .corpora import LABELS, MAX_LENGTH, minilm, sentiment

__all__ = ["NAMES", "TrainedModel", "main", "trained"]

Progress = Callable[[str], None]
_BUILD = 1  # goes up when a model is to be trained anew


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A checkpoint and how good it is on held-out documents. `metrics`: `macro_f1` or `entity_f1`, and `train_seconds`."""

    name: str
    task: str  # "sequence" or "token"
    folder: Path
    labels: tuple[str, ...]
    max_length: int
    metrics: dict[str, float]

    def load(self) -> tuple[Any, Any]:
        """The Hugging Face model in evaluation mode, and its fast tokenizer."""
        import transformers

        transformers.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        kind = "AutoModelForTokenClassification" if self.task == "token" else "AutoModelForSequenceClassification"
        model = getattr(transformers, kind).from_pretrained(self.folder, attn_implementation="eager")
        return model.eval(), transformers.AutoTokenizer.from_pretrained(self.folder)


def trained(name: str, *, folder: Path | None = None, progress: Progress = print) -> TrainedModel:
    """The model of this name: from `folder` (default below RML_HOME), or built now, which takes minutes."""
    if name not in NAMES:
        raise ValueError(f"no model is called {name!r}; there are {', '.join(NAMES)}")
    place = folder or Path(os.environ.get("RML_HOME") or Path.home() / ".roblox_ml") / "cache" / "text-models"
    place.mkdir(parents=True, exist_ok=True)
    recipe = f"{_BUILD} {name} {_RECIPES[name]}"
    ready = place / f"{name}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    with (place / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # somebody else may be building it at this moment
        if not (ready / "trained.json").is_file():
            progress(f"{name}: training it, once; kept in {ready}")
            with tempfile.TemporaryDirectory(dir=place) as temporary:
                _build(name, Path(temporary), place, progress)
                Path(temporary).rename(ready)
                Path(temporary).mkdir()  # what the context manager removes
    about = json.loads((ready / "trained.json").read_text("utf-8"))
    return TrainedModel(name, about["task"], ready, tuple(about["labels"]), about["max_length"], about["metrics"])


def _recipes() -> dict[str, Any]:
    # An epoch of MiniLM is 592 batches. What was grown begins at MiniLM's score and needs a quarter of one to part its twins.
    return {
        "minilm-l6": {"steps": 592},
        "distilbert-768x6": {"steps": 150, "body": 3e-5, "head": 1e-4},
        "bert-768x12": {"steps": 120, "body": 3e-5, "head": 1e-4},
        "minilm-l6-entities": {"steps": 592, "body": 2e-4, "head": 2e-3},
    }


_RECIPES = _recipes()
NAMES = tuple(_RECIPES)


def _build(name: str, out: Path, place: Path, progress: Progress) -> None:
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if name == "minilm-l6-entities":
        from .entity_model import build

        model, tokenizer, labels, metrics = build(_RECIPES[name], progress)
    else:
        labels = LABELS
        model, tokenizer = _start(name, place, progress)
        metrics = _train_sentiment(model, tokenizer, _RECIPES[name], progress)
    model.config.id2label = dict(enumerate(labels))
    model.config.label2id = {label: i for i, label in enumerate(labels)}
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    task = "token" if name.endswith("entities") else "sequence"
    about = {"task": task, "labels": list(labels), "max_length": MAX_LENGTH, "metrics": metrics}
    (out / "trained.json").write_text(json.dumps(about, indent=2) + "\n", "utf-8")
    progress(f"{name}: {', '.join(f'{key} {value:.4g}' for key, value in metrics.items())}")


def _start(name: str, place: Path, progress: Progress) -> tuple[Any, Any]:
    """The model before training: MiniLM with a new head, or the trained MiniLM, grown."""
    import torch
    import transformers

    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    if name == "minilm-l6":
        with tempfile.TemporaryDirectory() as folder:
            source = minilm(Path(folder))
            torch.manual_seed(7)
            model = transformers.AutoModelForSequenceClassification.from_pretrained(
                source, num_labels=len(LABELS), attn_implementation="eager", **no_dropout
            )
            return model, transformers.AutoTokenizer.from_pretrained(source)
    from .widen import deepen, jitter, to_distilbert, widen

    model, tokenizer = trained("minilm-l6", folder=place, progress=progress).load()
    state, config = widen(model.state_dict(), model.config)
    kind = transformers.BertForSequenceClassification
    if name == "bert-768x12":
        state, config = deepen(state, config, branch=0.3)
    else:
        state, config = to_distilbert(state, config)
        config.dropout = config.attention_dropout = config.seq_classif_dropout = 0.0
        kind = transformers.DistilBertForSequenceClassification
    config._attn_implementation = "eager"
    grown = kind(config)
    grown.load_state_dict(jitter(state, 0.05))
    return grown, tokenizer


def _train_sentiment(model: Any, tokenizer: Any, recipe: dict[str, Any], progress: Progress) -> dict[str, float]:
    from roblox_ml._text_training import logits_of

    from .finetune import Recipe, fine_tune, soft_labels

    corpus = sentiment()

    def encode(texts: Sequence[str]) -> Any:
        return tokenizer(list(texts), truncation=True, max_length=MAX_LENGTH)["input_ids"]

    def score() -> float:
        answers = [LABELS[int(row.argmax())] for row in logits_of(model, asked)]
        return macro_f1([row.label for row in corpus.test], answers, LABELS)

    asked = encode([row.text for row in corpus.test])
    before = score()
    progress(f"macro-F1 {before:.4f} before training")
    tokens = encode([row.text for row in corpus.train])
    targets = soft_labels([row.rating for row in corpus.train])
    seconds = fine_tune(model, tokens, targets, Recipe(**recipe), progress)
    return {"macro_f1": score(), "macro_f1_before": before, "train_seconds": round(seconds, 1)}


def main() -> None:
    """Build what is not there, and print what there is."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.text.models", description=main.__doc__)
    parser.add_argument("names", nargs="*", default=NAMES, metavar="name", help=", ".join(NAMES))
    options = parser.parse_args()
    for name in options.names:
        about = asdict(trained(name))
        print(json.dumps(about | {"folder": str(about["folder"])}))


if __name__ == "__main__":
    main()
