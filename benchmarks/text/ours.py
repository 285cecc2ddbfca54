"""The benchmark's models, optimised: the trained checkpoint of a name becomes a folder that a trial can serve.

Kept below RML_HOME/cache by what goes in (weights, optimiser's source, processor, budget); `again=True` optimises anew, which is
what a benchmark does with the model it makes claims about.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roblox_ml_core.package import write
from roblox_ml_core.settings import HomeSettings
from roblox_ml_serving.backends.rml_text_plan import cpu_flags
from roblox_ml_serving.trial.packages import TEXT_CPU, text_signature

from .corpora import sentiment
from .models import TrainedModel, trained

__all__ = ["BUDGET", "Optimised", "optimised"]

BUDGET = 0.005


@dataclass(frozen=True, slots=True)
class Optimised:
    """A package and its optimiser's report."""

    name: str
    task: str
    package: Path
    checkpoint: Path
    report: dict[str, Any]


def optimised(
    name: str, *, again: bool = False, texts: int | None = None, progress: Callable[[str], None] = lambda _: None
) -> Optimised:
    """The model `name` of `models`, optimised for this machine; `texts` bounds how many held-out texts judge it."""
    model = trained(name, progress=progress)
    place = HomeSettings().root / "cache" / "text-optimised" / f"{name}-{_fingerprint(model, texts)}"
    if again or not (place / "package.json").is_file():
        shutil.rmtree(place, ignore_errors=True)
        _optimise(model, place, texts, progress)
    report = json.loads((place / "report.json").read_text("utf-8"))
    return Optimised(name, model.task, place, model.folder, report)


def _optimise(model: TrainedModel, place: Path, texts: int | None, progress: Callable[[str], None]) -> None:
    from roblox_ml_serving.text.optimize import Source, optimize

    judged, truth = held_out(model, texts)
    source = Source(checkpoint=model.folder, labels=model.labels, max_length=model.max_length)
    found = optimize(source, judged, truth, budget=BUDGET, progress=progress)
    place.mkdir(parents=True)
    shutil.copytree(found.folder / "model", place / "model")
    for file in ("report.json", "report.html"):
        shutil.copyfile(found.folder / file, place / file)
    write(
        place,
        format=TEXT_CPU,
        signature=text_signature(model.task, len(model.labels)),
        labels=model.labels,
        options={"max_length": model.max_length, "preprocess": "text"},
    )


def held_out(model: TrainedModel, limit: int | None) -> tuple[list[str], list[Any]]:
    """Texts of documents that no model was trained on, and what is true of them."""
    if model.task == "token":
        from .entity_model import held_out_entities

        texts, truth = held_out_entities()
    else:
        rows = sentiment().test
        texts, truth = [row.text for row in rows], [row.label for row in rows]
    step = 1 if limit is None else max(1, len(texts) // limit)
    return texts[::step], truth[::step]


def _fingerprint(model: TrainedModel, texts: int | None) -> str:
    from roblox_ml_serving import text

    whole = hashlib.sha256(f"{texts} {BUDGET} {sorted(cpu_flags())} {model.folder.name}".encode())
    for file in sorted(Path(next(iter(text.__path__)), "optimize").glob("*.py")):
        whole.update(file.read_bytes())
    return whole.hexdigest()[:12]
