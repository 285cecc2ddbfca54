"""A package in this process: `load(directory)` gives an object with `.predict(inputs)`, whatever the format.

A format whose engine belongs to another package is opened by that one, found by its entry point (`roblox_ml.package_loaders`).

One module per format, each with ``open_model(package) -> predict``; `predict` maps numpy arrays by input name to numpy arrays
by output name. Nothing heavier than numpy is imported before the format is known.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from ...errors import PackageError
from ..layout import ModelPackage, read, verify
from ..signature import DATATYPES, TensorSpec

__all__ = ["LoadedModel", "load"]

Predict = Callable[[Mapping[str, Any]], Mapping[str, Any]]
_GROUP = "roblox_ml.package_loaders"
_PROMISE = "correct signature.json or the model's predict"
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
        """Outputs by name, as numpy arrays of the signature's types, held to the same rules as behind an endpoint.

        `inputs`: a mapping by input name, or the one input's value itself.
        """
        arrays = self.package.signature.arrays(inputs)
        outputs = self._predict(arrays)
        missing = [spec.name for spec in self.package.signature.outputs if spec.name not in outputs]
        if missing:
            raise PackageError(
                f"the model gave {sorted(outputs)} but its signature promises {missing}",
                hint=_PROMISE,
            )
        rows = len(next(iter(arrays.values())))
        return {spec.name: _output(spec, outputs[spec.name], rows) for spec in self.package.signature.outputs}

    def check(self) -> list[str]:
        """Ask the model its package's examples; returns what differs from the known answers (empty: all agree)."""
        examples = self.package.examples
        if examples is None:
            return []
        try:
            return examples.check(self.predict(examples.input_arrays()))
        except PackageError as error:
            return [error.message]


def _opener(format: str) -> Callable[[ModelPackage], Predict]:
    if format in _MODULES:
        opener: Callable[[ModelPackage], Predict] = importlib.import_module(f".{_MODULES[format]}", __name__).open_model
        return opener
    for found in entry_points(group=_GROUP, name=format):
        from_elsewhere: Callable[[ModelPackage], Predict] = found.load()
        return from_elsewhere
    raise PackageError(
        f"nothing here opens a package of format {format!r} in this process",
        hint='pip install "roblox-ml[serving,text]", or deploy the model and ask its endpoint',
    )


def _output(spec: TensorSpec, value: Any, rows: int) -> Any:
    """One output as an array, or `PackageError`: what Triton would refuse must not pass here."""
    import numpy as np

    try:
        if spec.datatype == "BYTES":
            given = np.asarray(value, dtype=object)
            array: Any = np.empty(given.size, dtype=object)
            array[:] = [x.decode("utf-8", "replace") if isinstance(x, bytes) else str(x) for x in given.ravel()]
            array = array.reshape(given.shape)
        else:
            array = np.asarray(value, dtype=DATATYPES[spec.datatype])
    except (TypeError, ValueError) as error:
        raise PackageError(f"output {spec.name} does not convert to {spec.datatype}: {error}", hint=_PROMISE) from error
    wanted = (rows, *spec.shape[1:])
    if array.ndim != len(wanted) or any(w not in (-1, have) for w, have in zip(wanted, array.shape, strict=True)):
        raise PackageError(
            f"output {spec.name} has shape {list(array.shape)} for {rows} rows; its signature says {list(spec.shape)}",
            hint=_PROMISE,
        )
    return array


def load(directory: Path | str, *, check: bool = False, verified: bool = False) -> LoadedModel:
    """Open the package in `directory`. Its files are hashed first unless the caller has just done so (`verified`)."""
    root = Path(directory)
    package = read(root) if verified else verify(root)
    model = LoadedModel(package, _opener(package.format)(package))
    if check and (found := model.check()):
        raise PackageError(
            f"the model in {root} does not give its known answers: " + "; ".join(found),
            hint="it was built for other library versions or another processor, or it is damaged",
        )
    return model
