"""Format onnx: the signature's tensors go to the graph's inputs and outputs of the same names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rml_backend import Model
from rml_onnx import open_session


class TritonPythonModel(Model):
    def load(self, folder: Path, package: Mapping[str, Any], signature: Mapping[str, Any]) -> None:
        self.session = open_session(folder / "model" / "model.onnx")
        self.outputs = [spec["name"] for spec in signature["outputs"]]
        for kind, nodes in (("inputs", self.session.get_inputs()), ("outputs", self.session.get_outputs())):
            present = {node.name for node in nodes}
            missing = [spec["name"] for spec in signature[kind] if spec["name"] not in present]
            if missing:
                raise ValueError(f"signature.json names {kind} {missing}, model.onnx has {sorted(present)}")

    def predict(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        return dict(zip(self.outputs, self.session.run(self.outputs, batch)))  # noqa: B905
