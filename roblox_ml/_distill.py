"""`rml.distill`: a smaller, quicker text classifier that answers as its teacher does.

    student = rml.distill(teacher, rml.dataset("comments"), layers=3)     # in a notebook: now, with progress
    student = rml.distill(teacher, split.train, layers=3)                 # in a pipeline: a step with an environment of its own

The data needs no labels: the teacher gives them. Labels that are there are used as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ._artifacts import Dataset, Model
from .errors import PackageError

if TYPE_CHECKING:
    from ._distilling import Plan

__all__ = ["CARRIES", "IMPORTS", "distill", "step"]

#: What the step imports, and what of this project travels with it (a tagger is packaged with the serving package's help).
IMPORTS = frozenset(
    {
        "numpy", "onnx", "onnxruntime", "onnxscript", "pandas", "pyarrow", "safetensors", "tokenizers", "torch", "transformers",
    }
)  # fmt: skip
CARRIES = ("roblox_ml_serving",)
_HELD_OUT, _HELD_OUT_MOST = 0.1, 2000
_EXAMPLES = 3


class _Teacher(NamedTuple):
    model: Any
    tokenizer: Any
    labels: list[str]
    max_length: int | None


def distill(
    teacher: Any,
    data: Any,
    *,
    layers: int | None = None,
    epochs: float = 1,
    temperature: float = 2.0,
    soft: float = 0.7,
    text: str = "text",
    label: str = "label",
    labels: Sequence[str] | None = None,
    max_length: int | None = None,
    examples: Sequence[str] | None = None,
    batch: int = 32,
    rate: float = 1e-4,
    seed: int = 7,
    progress: Callable[[str], None] = print,
) -> Any:
    """A student of the teacher's family, with `layers` of its layers (default: half), packaged like any other model.

    `teacher`: an `rml.Model` made by `from_transformers`, its folder, a folder with a Hugging Face checkpoint, or the pair
    (model, tokenizer). `data`: a data set, a data frame, a list of texts or of (text, label) pairs; texts like those that will be asked.
    `soft`: the teacher's share in the loss where labels are known (`temperature`: how much it is softened).
    A tenth of the texts, 2,000 at most, is held out: the model's metrics say how often student and teacher agree there
    (`teacher_agreement`) and, with labels, the accuracy of both.
    """
    from ._graph.trace import current

    tracing = current()
    if tracing is not None:
        from ._graph.distilling import distill_task
        from ._graph.where import here

        settings = {
            "layers": 0 if layers is None else layers, "epochs": epochs, "temperature": temperature, "soft": soft, "text": text,
            "label": label, "max_length": 0 if max_length is None else max_length, "batch": batch, "rate": rate, "seed": seed,
        }  # fmt: skip
        return distill_task(tracing, here(), teacher, data, settings)
    from ._distilling import Plan
    from ._labelled import labelled

    plan = Plan(epochs=epochs, temperature=temperature, soft=soft, batch=batch, rate=rate, seed=seed)
    known = _teacher(teacher, labels)
    rows = labelled(data, text, label)
    limit = max_length or known.max_length or 128
    return _distilled(known, rows.texts, rows.labels, plan, layers, limit, examples, progress)


def step(
    teacher: Model,
    data: Dataset,
    layers: int,
    epochs: float,
    temperature: float,
    soft: float,
    text: str,
    label: str,
    max_length: int,
    batch: int,
    rate: float,
    seed: int,
) -> Model:
    """The pipeline's step; 0 layers or tokens are the defaults."""
    student: Model = distill(
        teacher, data, layers=layers or None, epochs=epochs, temperature=temperature, soft=soft, text=text, label=label,
        max_length=max_length or None, batch=batch, rate=rate, seed=seed,
    )  # fmt: skip
    return student


def _distilled(
    teacher: _Teacher,
    texts: list[str],
    labels: list[Any] | None,
    plan: Plan,
    layers: int | None,
    max_length: int,
    examples: Sequence[str] | None,
    progress: Callable[[str], None],
) -> Model:
    import numpy as np

    from ._distilling import student_of, teach
    from ._text_training import logits_of

    pad = teacher.tokenizer.pad_token_id or 0
    tokens = teacher.tokenizer(texts, truncation=True, max_length=max_length)["input_ids"]
    classes = _classes(labels, teacher, tokens)
    order = np.random.default_rng(plan.seed).permutation(len(texts))
    out = min(int(_HELD_OUT * len(texts)), _HELD_OUT_MOST)
    asked, known = order[:out], order[out:]
    student = student_of(teacher.model, layers)
    progress(f"student: {student.config.num_hidden_layers} of {teacher.model.config.num_hidden_layers} layers")
    part = [classes[i] for i in known] if classes is not None else None
    loss = teach(student, teacher.model, [tokens[i] for i in known], part, plan, pad=pad, progress=progress)
    metrics = {"distillation_loss": loss}
    if len(asked):
        theirs, ours = (logits_of(model, [tokens[i] for i in asked], pad) for model in (teacher.model, student))
        metrics["teacher_agreement"] = _share([(a.argmax(-1), b.argmax(-1)) for a, b in zip(theirs, ours, strict=True)])
        if classes is not None:
            wanted = [np.asarray(classes[i]) for i in asked]
            for name, answers in (("teacher_accuracy", theirs), ("accuracy", ours)):
                metrics[name] = _share([(w, a.argmax(-1)) for w, a in zip(wanted, answers, strict=True)])
    progress(", ".join(f"{name} {value:.3f}" for name, value in metrics.items()))
    shown = list(examples or dict.fromkeys(value for value in texts if value.strip()))[:_EXAMPLES]
    return Model.from_transformers(
        student, teacher.tokenizer, labels=teacher.labels, max_length=max_length, examples=shown, metrics=metrics
    )


def _teacher(teacher: Any, labels: Sequence[str] | None) -> _Teacher:
    import json

    if isinstance(teacher, tuple) and len(teacher) == 2:
        model, tokenizer = teacher
        return _Teacher(model.eval(), tokenizer, _labels(model, labels), None)
    folder = Path(getattr(teacher, "path", teacher))
    limit = None
    about = folder / "package.json"
    if about.is_file():
        package = json.loads(about.read_text("utf-8"))
        labels = labels or package.get("labels")
        limit = (package.get("options") or {}).get("max_length")
        folder = folder / "model" / "hf"
    if not (folder / "config.json").is_file():
        raise PackageError(
            f"{teacher!r:.80} is no teacher",
            where="teacher",
            why=f"there is no Hugging Face checkpoint in {folder.name or folder}",
            fix="pass an rml.Model made by Model.from_transformers, or (model, tokenizer)",
        )
    import transformers

    config = json.loads((folder / "config.json").read_text("utf-8"))
    token = any(str(name).endswith("ForTokenClassification") for name in config.get("architectures") or ())
    kind = transformers.AutoModelForTokenClassification if token else transformers.AutoModelForSequenceClassification
    bars = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        model = kind.from_pretrained(folder, attn_implementation="eager").eval()
    finally:
        if bars:
            transformers.utils.logging.enable_progress_bar()
    return _Teacher(model, transformers.AutoTokenizer.from_pretrained(folder), _labels(model, labels), limit)


def _labels(model: Any, labels: Sequence[str] | None) -> list[str]:
    if labels:
        return [str(name) for name in labels]
    own = {int(index): str(name) for index, name in model.config.id2label.items()}
    return [own[index] for index in range(int(model.config.num_labels))]


def _classes(labels: list[Any] | None, teacher: _Teacher, tokens: Sequence[Sequence[int]]) -> list[Any] | None:
    """Class numbers from names or numbers; labels that do not fit the teacher's are an error that names one."""
    if labels is None:
        return None
    number: dict[Any, int] = {name: i for i, name in enumerate(teacher.labels)}
    number |= {i: i for i in range(len(teacher.labels))}
    number[-100] = -100
    per_token = type(teacher.model).__name__.endswith("ForTokenClassification")
    out: list[Any] = []
    for row, value in enumerate(labels):
        many = not isinstance(value, str) and hasattr(value, "__len__")
        parts = list(value) if many else [value]
        odd = [part for part in parts if part not in number]
        if odd or many != per_token or (many and len(parts) != len(tokens[row])):
            raise PackageError(
                f"row {row}: the label {value!r:.60} does not fit the teacher",
                where="data",
                why=f"it answers {', '.join(teacher.labels)}, one {'per token' if per_token else 'a text'}",
                fix="give its names (or their numbers), or no labels: the teacher's answers are enough",
            )
        found = [number[part] for part in parts]
        out.append(found if many else found[0])
    return out


def _share(pairs: Sequence[tuple[Any, Any]]) -> float:
    """How often the two agree; per token for a token classifier, where −100 is not asked."""
    import numpy as np

    right = asked = 0
    for wanted, said in pairs:
        counted = np.asarray(wanted) != -100
        right += int(((np.asarray(wanted) == said) & counted).sum())
        asked += int(counted.sum())
    return right / max(1, asked)
