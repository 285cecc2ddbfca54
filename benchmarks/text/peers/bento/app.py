"""The service, in BentoML's own interpreter."""

import os

import bentoml
from classifier import BATCH, open_classifier

LARGEST = BATCH if os.environ["PEER_ENGINE"] == "torch" else 32


@bentoml.service(
    workers=int(os.environ["PEER_WORKERS"]), traffic={"timeout": 60}, logging={"access": {"enabled": False}}
)
class Classifier:
    def __init__(self) -> None:
        self.classifier = open_classifier()

    @bentoml.api(batchable=True, batch_dim=0, max_batch_size=LARGEST, max_latency_ms=10_000)
    def classify(self, texts: list[str]) -> list[str]:
        return self.classifier(texts)
