"""`python -m benchmarks.text.ours [name…]`: the benchmark's models, optimised.

The trained checkpoint of a name becomes a folder that a trial can serve.

Kept below RML_HOME/cache by what goes in (weights, optimiser's source, processor, budget); `again=True` optimises anew, which is
what a benchmark does with the model it makes claims about.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from roblox_ml_core.package import write
from roblox_ml_core.settings import HomeSettings
from roblox_ml_serving.backends.rml_text_engines import open_engine
from roblox_ml_serving.backends.rml_text_plan import EnginePlan, cpu_flags, read_plan
from roblox_ml_serving.backends.rml_text_tokens import Tokens
from roblox_ml_serving.trial.packages import TEXT_CPU, text_signature

from .corpora import sentiment
from .entities import silver
from .models import NAMES, TrainedModel, trained

__all__ = ["BUDGET", "Optimised", "judged", "optimised"]

BUDGET = 0.005
QUICK_ENGINES, QUICK_TEXTS = ("openvino-int8",), 500


@dataclass(frozen=True, slots=True)
class Optimised:
    """A package and its optimiser's report."""

    name: str
    task: str
    package: Path
    checkpoint: Path
    report: dict[str, Any]


def optimised(
    name: str,
    *,
    again: bool = False,
    quick: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> Optimised:
    """The model `name` of `models`, optimised for this machine.

    `quick`: one engine and some hundred texts to judge it, in place of all engines, all texts and a trial behind the door.
    """
    model = trained(name, progress=progress)
    place = HomeSettings().root / "cache" / "text-optimised" / f"{name}-{_fingerprint(model, quick)}"
    if again or not (place / "package.json").is_file():
        shutil.rmtree(place, ignore_errors=True)
        _optimise(model, place, quick, progress)
    report = json.loads((place / "report.json").read_text("utf-8"))
    return Optimised(name, model.task, place, model.folder, report)


def _optimise(model: TrainedModel, place: Path, quick: bool, progress: Callable[[str], None]) -> None:
    from roblox_ml_serving.text.optimize import Source, optimize

    texts, truth = held_out(model)
    optimize(
        Source(checkpoint=model.folder, labels=model.labels, max_length=model.max_length),
        texts,
        truth,
        budget=BUDGET,
        engines=QUICK_ENGINES if quick else None,
        most_texts=QUICK_TEXTS if quick else None,
        serve=not quick,
        folder=place,
        progress=lambda said: progress(f"{model.name}: {said}"),
    )
    write(
        place,
        format=TEXT_CPU,
        signature=text_signature(model.task, len(model.labels)),
        labels=model.labels,
        options={"max_length": model.max_length, "preprocess": "text"},
    )


def judged(model: Optimised, count: int = 400) -> dict[str, float]:
    """F1 of the chosen engine against the float32 one, asked here and now: `f1`, `f1_drop`, `f1_drop_low`, `f1_drop_high`.

    Texts are spread over the held-out ones. The interval is a paired bootstrap over texts.
    """
    from roblox_ml_serving.text.optimize import judge

    folder = model.package / "model"
    plan = read_plan((folder / "text.json").read_bytes())
    everything, all_truth = held_out(trained(model.name))
    step = max(1, len(everything) // count)
    texts, truth = everything[::step], all_truth[::step]
    encoded = Tokens((folder / "tokenizer.json").read_text("utf-8"), plan).encode(texts)
    rows = [np.frombuffer(row.ids, dtype="<i4") for row in encoded]

    def counts(entry: EnginePlan) -> Any:
        answers = open_engine(entry, folder, plan, threads=len(os.sched_getaffinity(0))).run(rows)
        if plan.task == "token":
            ends = [max((end for _, end in row.offsets or ()), default=0) for row in encoded]
            seen = [[span for span in spans if span[1] <= end] for spans, end in zip(truth, ends, strict=True)]
            said = judge.entities_of(answers, [row.offsets for row in encoded], texts, plan.labels)
            return judge.counts_of_entities(seen, said)
        numbers = [plan.labels.index(label) for label in truth]
        return judge.counts_of_labels(numbers, [int(row.argmax()) for row in answers], len(plan.labels))

    reference, ours = counts(plan.engines[-1]), counts(plan.engines[0])
    drop = judge.drop(reference, ours)
    return {"f1": judge.f1(ours), "f1_drop": drop.drop, "f1_drop_low": drop.low, "f1_drop_high": drop.high}


def held_out(model: TrainedModel) -> tuple[list[str], list[Any]]:
    """Texts of documents that no model was trained on, and what is true of them."""
    if model.task == "token":
        marked = silver()[1]
        return [row.text for row in marked], [[(s.start, s.end, s.kind) for s in row.spans] for row in marked]
    rows = sentiment().test
    return [row.text for row in rows], [row.label for row in rows]


def _fingerprint(model: TrainedModel, quick: bool) -> str:
    from roblox_ml_serving import text

    whole = hashlib.sha256(f"{quick} {BUDGET} {sorted(cpu_flags())} {model.folder.name}".encode())
    for file in sorted(Path(next(iter(text.__path__)), "optimize").glob("*.py")):
        whole.update(file.read_bytes())
    return whole.hexdigest()[:12]


if __name__ == "__main__":
    for model_name in sys.argv[1:] or NAMES:
        print(optimised(model_name, quick=True, progress=print).package)
