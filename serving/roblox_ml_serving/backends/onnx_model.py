"""Format onnx: the signature's tensors go to the graph's inputs and outputs of the same names."""

from rml_backend import Model
from rml_onnx import open_session


class TritonPythonModel(Model):
    def load(self, folder, package, signature):
        self.session = open_session(folder / "model" / "model.onnx")
        self.outputs = [spec["name"] for spec in signature["outputs"]]
        for kind, nodes in (("inputs", self.session.get_inputs()), ("outputs", self.session.get_outputs())):
            present = {node.name for node in nodes}
            missing = [spec["name"] for spec in signature[kind] if spec["name"] not in present]
            if missing:
                raise ValueError(f"signature.json names {kind} {missing}, model.onnx has {sorted(present)}")

    def predict(self, batch):
        return dict(zip(self.outputs, self.session.run(self.outputs, batch)))  # noqa: B905
