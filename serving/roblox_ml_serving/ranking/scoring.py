"""Rows to scores at the model server, scores to the best k. Pure; `endpoint` does the asking."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from roblox_ml_core.http import Response

from .spec import RankingSpec

__all__ = ["best", "decode", "encode"]

_LENGTH = b"inference-header-content-length"


def encode(spec: RankingSpec, rows: Any) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Headers and body of the v2 request for a matrix."""
    data = np.ascontiguousarray(rows, "<f4").tobytes()
    document = {
        "inputs": [
            {
                "name": spec.input, "datatype": "FP32", "shape": list(rows.shape), "parameters": {"binary_data_size": len(data)},
            }
        ],
        "outputs": [{"name": spec.output, "parameters": {"binary_data": True}}],
    }  # fmt: skip
    head = json.dumps(document, separators=(",", ":")).encode()
    return [(_LENGTH, b"%d" % len(head))], head + data


def decode(spec: RankingSpec, response: Response, candidates: int) -> Any:
    """float32 [candidates].

    Raises:
        ValueError, KeyError, TypeError: the answer is not one to this question.
    """
    length = int(response.header(_LENGTH) or b"")
    (output,) = json.loads(response.body[:length])["outputs"]
    if output["name"] != spec.output or output["datatype"] not in ("FP32", "FP64"):
        raise ValueError(f"it has {output['name']} {output['datatype']}, not {spec.output} in floats")
    kind = "<f4" if output["datatype"] == "FP32" else "<f8"
    shape = [int(size) for size in output["shape"]]
    scores = np.frombuffer(response.body, kind, offset=length).reshape(shape)
    if shape[0] != candidates or len(shape) > 2:
        raise ValueError(f"{spec.output} has shape {shape} for {candidates} candidates")
    if len(shape) == 2:
        column = spec.column if spec.column is not None else 0
        if not -shape[1] <= column < shape[1]:
            raise ValueError(f"{spec.output} has {shape[1]} columns, the package names column {column}")
        scores = scores[:, column]
    return scores.astype(np.float32)


def best(scores: Any, k: int) -> tuple[Any, int]:
    """Places of the at most `k` highest scores, the earlier candidate first where they are equal; how many are no numbers.

    A score that is no number ranks nobody: its candidate is left out.
    """
    odd = np.isnan(scores)
    unscored = int(odd.sum())
    # A stable sort of what is to be small keeps the order of the candidates among equals; NumPy puts NaN after infinity.
    order = np.argsort(-scores, kind="stable")
    return order[: min(k, len(scores) - unscored)], unscored
