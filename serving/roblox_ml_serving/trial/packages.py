"""A folder that shall be tried, as a package: one that is packaged already, or a text model fresh from its optimisation."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from roblox_ml_core.errors import PackageError
from roblox_ml_core.package import ModelPackage, Signature, TensorSpec, read, write

from ..repository.folder import link_or_copy

__all__ = ["as_package", "text_signature"]

TEXT_CPU = "text-cpu"


def as_package(folder: Path, into: Path) -> ModelPackage:
    """The package in `folder`, or one made below `into` from a text model's files (`[model/]text.json` and what it names)."""
    if (folder / "package.json").is_file():
        return read(folder)
    files = next((place for place in (folder / "model", folder) if (place / "text.json").is_file()), None)
    if files is None:
        raise PackageError(
            f"{folder} has neither package.json nor text.json", hint="try a package, or the folder of rml.optimize"
        )
    shutil.copytree(files, into / "model", copy_function=link_or_copy)
    plan = json.loads((into / "model" / "text.json").read_bytes())
    labels = [str(label) for label in plan["labels"]]
    options = {"max_length": int(plan["max_length"]), "preprocess": "text"}
    signature = text_signature(str(plan["task"]), len(labels))
    return write(into, format=TEXT_CPU, signature=signature, labels=labels, options=options)


def text_signature(task: str, labels: int) -> Signature:
    """What clients of a text model send and get."""
    texts = (TensorSpec("TEXT", "BYTES", (-1,)),)
    if task == "token":
        return Signature(texts, (TensorSpec("entities", "BYTES", (-1,)),))
    return Signature(texts, (TensorSpec("label", "BYTES", (-1,)), TensorSpec("scores", "FP32", (-1, labels))))
