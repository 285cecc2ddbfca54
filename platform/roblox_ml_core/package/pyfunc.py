"""MLflow's way in: the `python_function` flavor of a package, so that ``mlflow.pyfunc.load_model`` opens what we store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .layout import verify
from .loaders import LoadedModel, load

__all__ = ["PackagePredictor"]

_OF_MLFLOW = ("registered_model_meta",)  # MLflow writes it into what it has downloaded


class PackagePredictor:
    """What MLflow calls: `predict` takes its model input and returns outputs by name."""

    def __init__(self, model: LoadedModel) -> None:
        self.model = model

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Outputs by name. `params` must be empty: a package has no inference parameters besides its inputs."""
        if params:
            raise ValueError(f"this model takes no parameters, got {sorted(params)}")
        return self.model.predict(model_input)


def _load_pyfunc(path: str) -> PackagePredictor:
    """The name MLflow looks for in a loader module."""
    verify(Path(path), ignore=_OF_MLFLOW)
    return PackagePredictor(load(path, verified=True))
