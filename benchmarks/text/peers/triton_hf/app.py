"""Triton's `model.py`: all texts of a dynamic batch in one call of the pipeline."""

import os
import sys

import numpy as np
import triton_python_backend_utils as pb

sys.path.insert(0, os.environ["PEER_CODE"])

from classifier import open_classifier


class TritonPythonModel:
    def initialize(self, args):
        self.classifier = open_classifier()

    def execute(self, requests):
        groups = [pb.get_input_tensor_by_name(request, "TEXT").as_numpy().reshape(-1) for request in requests]
        labels = iter(self.classifier([text.decode() for group in groups for text in group]))
        answers = []
        for group in groups:
            rows = np.array([[next(labels)] for _ in group], dtype=np.object_)
            answers.append(pb.InferenceResponse([pb.Tensor("label", rows)]))
        return answers
