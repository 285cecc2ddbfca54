"""The runtimes, in MLServer's own interpreter: its Hugging Face one, and one with our engine.

Its Hugging Face runtime imports Optimum's pipelines, and they an ONNX exporter that the PyTorch of today has left behind; and
transformers' class of conversations, which is gone. Nothing is exported here (`optimum_model` is off) and nobody converses, so empty
names stand for them; what computes is unchanged.
"""

import json
import sys
import types

optimum_pipelines = types.ModuleType("optimum.pipelines")
optimum_pipelines.__dict__.update(pipeline=None, ORT_SUPPORTED_TASKS={})
sys.modules["optimum.pipelines"] = optimum_pipelines

import transformers.pipelines  # noqa: E402

if not hasattr(transformers.pipelines, "Conversation"):
    transformers.pipelines.Conversation = type("Conversation", (), {})

import torch  # noqa: E402
from classifier import open_classifier  # noqa: E402
from mlserver import MLModel  # noqa: E402
from mlserver.codecs import StringCodec  # noqa: E402
from mlserver.types import InferenceRequest, InferenceResponse  # noqa: E402
from mlserver_huggingface import HuggingFaceRuntime  # noqa: E402

torch.set_num_threads(1)


class Pipeline(HuggingFaceRuntime):
    """Unchanged."""


class Engine(MLModel):
    async def load(self) -> bool:
        self.classifier = open_classifier()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        labels = self.classifier(StringCodec.decode_input(payload.inputs[0]))
        answers = [json.dumps({"label": label}) for label in labels]
        output = StringCodec.encode_output("output", answers)
        return InferenceResponse(model_name=self.name, outputs=[output])
