"""`rml.optimize`: a fine-tuned text model becomes what this machine's cores answer fastest, with the proof that it lost nothing.

    fast = rml.optimize(model, held_out)            # in a notebook: now, with progress; `fast.report` is the proof
    fast = rml.optimize(model, split.test)          # in a pipeline: a step with an environment of its own
    rml.register(model, name="m", data=split.test, optimize="cpu")

The engines and the measuring live in the serving package; this is the way in from the SDK.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import _cards as cards
from . import _siblings
from ._artifacts import Dataset, Model
from .errors import PackageError

__all__ = ["BUDGET", "CARRIES", "IMPORTS", "optimize", "step"]

#: Macro-F1 (or entity F1) that an engine may lose against fp32: half a point.
BUDGET = 0.005
#: What the step imports, and what of this project travels with it.
IMPORTS = frozenset(
    {
        "ctranslate2", "nncf", "numpy", "onnx", "onnxruntime", "onnxscript", "openvino", "pandas", "pyarrow", "safetensors",
        "tokenizers", "torch", "transformers",
    }
)  # fmt: skip
CARRIES = ("roblox_ml_serving",)
_FORMATS = ("hf-text-classifier", "text-cpu")
_EXAMPLES_FROM_DATA = 64


def optimize(
    model: Any,
    data: Any,
    *,
    budget: float = BUDGET,
    text: str = "text",
    label: str = "label",
    engines: Sequence[str] | None = None,
    most_texts: int | None = None,
    serve: bool = True,
    seed: int = 0,
    progress: Callable[[str], None] = print,
) -> Any:
    """The model for CPUs: the fastest engine on this machine whose F1 stays within `budget` of fp32's.

    `model`: an `rml.Model` of a Hugging Face text or token classifier (`rml.Model.from_transformers`), or its package's folder.
    `data`: held-out texts with their labels (never those it was trained on): a data set, a data frame, (text, label) pairs.
    Up to 200 of them calibrate int8, the others judge: F1 and calibration of every candidate against fp32, with a paired
    bootstrap; `most_texts` bounds how many (they are drawn), which is quicker and says less. `engines`: names of candidates to
    try (default: all). `serve`: choose by what is measured behind the door where Triton is installed. Returns a new
    `rml.Model`; its `report` shows every candidate, what it lost and how fast it is.

    In a pipeline this draws a step of its own and returns its output.

    Raises:
        PackageError: the model is no text model, or the data has no labels it knows.
    """
    from ._graph.trace import current

    tracing = current()
    if tracing is not None:
        from ._graph.optimizing import optimize_task
        from ._graph.where import here

        return optimize_task(tracing, here(), model, data, budget, text, label, engines, most_texts, seed)
    return _optimize(model, data, budget, text, label, engines, most_texts, serve, seed, progress)


def step(
    model: Model,
    data: Dataset,
    budget: float = BUDGET,
    text: str = "text",
    label: str = "label",
    engines: list[str] | None = None,
    most_texts: int = 0,
    seed: int = 0,
) -> Model:
    """The pipeline's step: the same, and the report on the step's card."""
    _find_triton()
    made = _optimize(model, data, budget, text, label, engines or None, most_texts or None, True, seed, print)
    _show(made)
    return made


def _show(made: Model) -> None:
    """What was found, on the step's card: the figures first, then the whole report."""
    report = json.loads((made.path / "report.json").read_text("utf-8"))
    card = (
        cards.card("Optimised for CPUs")
        .metric("engine", str(report["chosen"]))
        .metric("faster than float32", report["speedup_vs_fp32"], unit="x")
        .metric("F1 lost", 100 * report["f1_drop"], unit="points")
        .metric("F1 lost, at most", 100 * report["f1_drop_high"], unit="points")
    )
    if made.report is not None:
        card.html(made.report.text, height=1600)


def _optimize(
    model: Any,
    data: Any,
    budget: float,
    text: str,
    label: str,
    engines: Any,
    most_texts: int | None,
    serve: bool,
    seed: int,
    progress: Any,
) -> Model:
    from ._labelled import labelled
    from ._packaging.text import examples_of, write_text_package

    package = Path(model.path if isinstance(model, Model) else model)
    info = _checked(package)
    rows = labelled(data, text, label)
    if rows.labels is None:
        raise PackageError(
            f"the data has no column {label!r}",
            where="data=",
            why="what an engine loses is measured against the truth, on texts that were held out",
            fix='name the column of the labels, as in rml.optimize(model, data, label="sentiment")',
        )
    room = _siblings.load("roblox_ml_serving.text.optimize")
    source = room.Source(
        checkpoint=package / "model" / "hf",
        labels=tuple(str(name) for name in info["labels"]),
        max_length=int(info["options"]["max_length"]),
    )
    folder = Path(tempfile.mkdtemp(prefix="rml-optimised-"))
    try:
        room.optimize(
            source,
            rows.texts,
            rows.labels,
            budget=budget,
            engines=engines,
            folder=folder,
            most_texts=most_texts,
            seed=seed,
            serve=serve,
            progress=progress,
        )
        report = json.loads((folder / "report.json").read_text("utf-8"))
        metrics = _kept_metrics(package) | {
            name: float(report[name])
            for name in ("f1_drop", "f1_drop_high", "speedup_vs_fp32")
            if isinstance(report.get(name), int | float)
        }
        shutil.copytree(package / "model" / "hf", folder / "model" / "hf", dirs_exist_ok=True)
        examples = [*examples_of(package), *rows.texts[:_EXAMPLES_FROM_DATA]]
        path = write_text_package(folder, examples, metrics=metrics)
    except room.OptimizeError as error:
        raise PackageError(str(error), where="rml.optimize", fix="see docs/guides/text-models.md") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    made = Model(path)
    made.metadata.update({"optimized": "cpu", "engine": str(report.get("chosen", ""))})
    return made


def _checked(package: Path) -> dict[str, Any]:
    """package.json of a model that can be optimised."""
    file = package / "package.json"
    if not file.is_file():
        raise PackageError(
            f"{package} is not a model package",
            where="model",
            fix="give an rml.Model made by rml.Model.from_transformers(…)",
        )
    info: dict[str, Any] = json.loads(file.read_text("utf-8"))
    if info.get("format") not in _FORMATS or not (package / "model" / "hf" / "config.json").is_file():
        raise PackageError(
            f"a model of format {info.get('format')!r} cannot be optimised for CPUs",
            where="model",
            why="the engines are made from a Hugging Face checkpoint of a text or token classifier, which the package must hold",
            fix="package it with rml.Model.from_transformers(model, tokenizer, …)",
        )
    return info


def _kept_metrics(package: Path) -> dict[str, Any]:
    file = package / "metrics.json"
    return dict(json.loads(file.read_text("utf-8"))) if file.is_file() else {}


def _find_triton() -> None:
    """Where this machine's Triton is, for trials behind a door: this step's own copy of the code does not lie beside it."""
    if os.environ.get("RML_TRITON_DIR"):
        return
    ask = "from roblox_ml_serving.triton import find_installation; print(find_installation().root)"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=False, cwd="/")
    if done.returncode == 0 and done.stdout.strip():
        os.environ["RML_TRITON_DIR"] = done.stdout.strip().splitlines()[-1]
