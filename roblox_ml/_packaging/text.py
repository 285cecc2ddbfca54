"""A text model for CPUs as a package: engines, plan and tokenizer as the optimiser left them, with known answers.

The known answers are those of the engine that was chosen. Another machine may have to open another engine of the plan, whose
answers differ a little: the tolerance is what all engines that open here need, with room, and only texts are recorded on whose
label they all agree.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import _siblings
from ..errors import PackageError
from ._package import TOLERANCE, model_folder, write_package
from ._tensors import TEXT_INPUT, Tensor, text_array

__all__ = ["FORMAT", "write_text_package"]

FORMAT = "text-cpu"
#: Room above the largest difference seen between two engines, and the least a package of quantised engines asks for.
_ROOM, _LEAST = 4.0, 0.02
_MOST_EXAMPLES = 16


def write_text_package(
    folder: str | Path,
    examples: Sequence[str],
    *,
    metrics: Mapping[str, Any] | None = None,
    path: str | Path | None = None,
) -> Path:
    """Package the text model in `folder` (`model/text.json`, `model/tokenizer.json`, `model/engines/…`, reports beside).

    `examples`: a few texts as users write them. Returns the package's directory (`path`, or a temporary one).

    Raises:
        PackageError: the folder's plan cannot be used, or no engine of it runs here.
    """
    plans = _siblings.load("roblox_ml_serving.backends.rml_text_plan")
    source = Path(folder)
    root, target = model_folder(path)
    shutil.copytree(source / "model", target, dirs_exist_ok=True)
    for report in ("report.html", "report.json"):
        if (source / report).is_file():
            shutil.copyfile(source / report, root / report)
    try:
        plan = plans.read_plan((target / "text.json").read_bytes())
    except ValueError as error:
        raise PackageError(str(error), where="model/text.json", fix="optimise the model again") from None
    texts, outputs, off = _known_answers(plan, target, list(dict.fromkeys(examples)))
    tensors: dict[Tensor, Any]
    if plan.task == "token":
        tensors = {Tensor("entities", "BYTES", (-1,)): text_array(outputs["entities"])}
    else:
        tensors = {
            Tensor("label", "BYTES", (-1,)): text_array(outputs["label"]),
            Tensor("scores", "FP32", (-1, len(plan.labels))): outputs["scores"],
        }
    return write_package(
        root,
        format=FORMAT,
        inputs={TEXT_INPUT: text_array(texts)},
        outputs=tensors,
        labels=plan.labels,
        options={"max_length": plan.max_length, "preprocess": "text"},
        metrics=metrics,
        tolerance=TOLERANCE if off is None else max(_LEAST, _ROOM * off),
    )


def _known_answers(plan: Any, folder: Path, texts: list[str]) -> tuple[list[str], dict[str, Any], float | None]:
    """Texts on whose answer all engines agree, the first engine's answers, and how far the engines are apart."""
    import numpy as np

    engines = _siblings.load("roblox_ml_serving.backends.rml_text_engines")
    heads = _siblings.load("roblox_ml_serving.backends.rml_text_heads")
    plans = _siblings.load("roblox_ml_serving.backends.rml_text_plan")
    tokens = _siblings.load("roblox_ml_serving.backends.rml_text_tokens")
    if not texts:
        raise PackageError(
            "a text model needs a few example texts",
            where="examples=",
            why="they are the known answers that every server checks after loading, and its warm-up",
            fix='examples=["gg, well played!", "this map is broken"]',
        )
    tokenizer = tokens.Tokens((folder / "tokenizer.json").read_text("utf-8"), plan)
    encoded = tokenizer.encode(texts)
    rows = [np.frombuffer(row.ids, dtype="<i4") for row in encoded]
    asked, refused = [], []
    for engine in plans.allowed(plan, plans.cpu_flags()):
        try:
            asked.append([heads.softmax(logits) for logits in engines.open_engine(engine, folder, plan).run(rows)])
        except engines.EngineError as error:
            refused.append(str(error))
    if not asked:
        raise PackageError("no engine of this model runs here: " + "; ".join(refused), where="model/text.json")
    agreed = [
        i for i in range(len(texts)) if all((one[i].argmax(-1) == asked[0][i].argmax(-1)).all() for one in asked[1:])
    ]
    kept = (agreed or list(range(len(texts))))[:_MOST_EXAMPLES]
    off = max((float(np.abs(one[i] - asked[0][i]).max()) for one in asked[1:] for i in kept), default=None)
    chosen = [texts[i] for i in kept]
    if plan.task == "token":
        # Entities are of probabilities as well as of logits: the softmax of a logarithm is the probability.
        found = [
            heads.entities_json(np.log(np.maximum(asked[0][i], 1e-30)), encoded[i].offsets or (), texts[i], plan.labels)
            for i in kept
        ]
        return chosen, {"entities": [json_text.decode() for json_text in found]}, off
    scores = np.stack([asked[0][i] for i in kept])
    return chosen, {"label": heads.best(scores, plan.labels), "scores": scores}, off


def examples_of(package: Path) -> list[str]:
    """The texts recorded in a package."""
    content = json.loads((package / "examples.json").read_text("utf-8"))
    return [str(text) for tensor in content["inputs"] if tensor["name"] == TEXT_INPUT.name for text in tensor["data"]]
