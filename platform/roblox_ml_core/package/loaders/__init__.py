"""A package in this process: `load(directory)` gives an object with `.predict(inputs)`, whatever the format.

One module per format, each with ``open_model(package) -> predict``; `predict` maps numpy arrays by input name to numpy arrays
by output name. Nothing heavier than numpy is imported before the format is known.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...errors import PackageError
from ..layout import ModelPackage, read, verify

__all__ = ["LoadedModel", "load"]

Predict = Callable[[Mapping[str, Any]], Mapping[str, Any]]
_MODULES = {
    "hf-text-classifier": "hf_text",
    "onnx": "onnx",
    "sklearn-skops": "sklearn_skops",
    "python": "python",
}


class LoadedModel:
    """A model ready to answer in this process."""

    def __init__(self, package: ModelPackage, predict: Predict) -> None:
        self.package = package
        self._predict = predict

    def __repr__(self) -> str:
        takes = ", ".join(spec.name for spec in self.package.signature.inputs)
        gives = ", ".join(spec.name for spec in self.package.signature.outputs)
        return f"LoadedModel({self.package.format}: {takes} -> {gives})"

    def predict(self, inputs: Any) -> dict[str, Any]:
        """Outputs by name, as numpy arrays. `inputs`: a mapping by input name, or the one input's value itself."""
        arrays = self.package.signature.arrays(inputs)
        outputs = self._predict(arrays)
        missing = [spec.name for spec in self.package.signature.outputs if spec.name not in outputs]
        if missing:
            raise PackageError(
                f"the model gave {sorted(outputs)} but its signature promises {missing}",
                hint="correct signature.json or the model's predict",
            )
        return {spec.name: outputs[spec.name] for spec in self.package.signature.outputs}

    def check(self) -> list[str]:
        """Ask the model its package's examples; returns what differs from the known answers (empty: all agree)."""
        examples = self.package.examples
        return [] if examples is None else examples.check(self.predict(examples.input_arrays()))


def load(directory: Path | str, *, check: bool = False, verified: bool = False) -> LoadedModel:
    """Open the package in `directory`. Its files are hashed first unless the caller has just done so (`verified`)."""
    root = Path(directory)
    package = read(root) if verified else verify(root)
    module = importlib.import_module(f".{_MODULES[package.format]}", __name__)
    model = LoadedModel(package, module.open_model(package))
    if check and (found := model.check()):
        raise PackageError(
            f"the model in {root} does not give its known answers: " + "; ".join(found),
            hint="it was built for other library versions or another processor, or it is damaged",
        )
    return model
