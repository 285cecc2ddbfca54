"""ONNX through ONNX Runtime on the CPU: tensors by the graph's own names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..layout import ModelPackage
from . import Predict

__all__ = ["open_model", "session"]


def session(path: Path) -> Any:
    """An inference session on the CPU. Reads the graph as data; custom operator libraries are never loaded."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def open_model(package: ModelPackage) -> Predict:
    graph = session(package.root / "model/model.onnx")
    wanted = [spec.name for spec in package.signature.outputs]

    def predict(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        return dict(zip(wanted, graph.run(wanted, dict(inputs)), strict=True))

    return predict
