"""The answer of a ranking endpoint in the Open Inference Protocol v2, REST and gRPC."""

from __future__ import annotations

import json
from collections.abc import Sequence
from struct import Struct
from typing import Any, NamedTuple

import numpy as np
from tritonclient.grpc import service_pb2 as v2

from .request import RankingRequest
from .wire import Key

__all__ = ["DEFAULTED", "Headers", "Ranked", "to_grpc", "to_rest"]

Headers = list[tuple[bytes, bytes]]
#: The answer's parameter that says how many of the model's values were defaults.
DEFAULTED = "features_defaulted"
_SIZE = Struct("<I")


class Ranked(NamedTuple):
    """The best, best first; `scores` float32."""

    items: Sequence[Key]
    scores: Any
    datatype: str  # of the items
    defaulted: int


def to_rest(request: RankingRequest, endpoint: str, version: str, ranked: Ranked) -> tuple[Headers, bytes]:
    """Headers (without Content-Length) and body."""
    tensors, parts = [], [b""]
    for name in request.outputs:
        tensor: dict[str, Any] = {"name": name, "datatype": _type(name, ranked), "shape": [len(ranked.items)]}
        if name in request.binary:
            parts.append(_raw(name, ranked))
            tensor["parameters"] = {"binary_data_size": len(parts[-1])}
        elif name == "SCORES":
            # An infinite score is a number to the model, but not to JSON.
            tensor["data"] = np.nan_to_num(ranked.scores).tolist()
        else:
            tensor["data"] = [
                item.decode("utf-8", "replace") if isinstance(item, bytes) else item for item in ranked.items
            ]
        tensors.append(tensor)
    tree: dict[str, Any] = {"id": request.id} if request.id else {}
    tree |= {"model_name": endpoint, "model_version": version}
    tree |= {"parameters": {DEFAULTED: ranked.defaulted}, "outputs": tensors}
    # ASCII escapes: half a surrogate pair in an id is JSON, and no UTF-8.
    parts[0] = json.dumps(tree, separators=(",", ":")).encode()
    if len(parts) == 1:
        return [(b"content-type", b"application/json")], parts[0]
    length = (b"inference-header-content-length", b"%d" % len(parts[0]))
    return [(b"content-type", b"application/octet-stream"), length], b"".join(parts)


def to_grpc(request: RankingRequest, endpoint: str, version: str, ranked: Ranked) -> bytes:
    """A serialised ModelInferResponse."""
    response = v2.ModelInferResponse(model_name=endpoint, model_version=version, id=request.id)
    response.parameters[DEFAULTED].int64_param = ranked.defaulted
    for name in request.outputs:
        response.outputs.add(name=name, datatype=_type(name, ranked), shape=[len(ranked.items)])
        response.raw_output_contents.append(_raw(name, ranked))
    return bytes(response.SerializeToString())


def _type(name: str, ranked: Ranked) -> str:
    return "FP32" if name == "SCORES" else ranked.datatype


def _raw(name: str, ranked: Ranked) -> bytes:
    if name == "SCORES":
        return bytes(np.asarray(ranked.scores, "<f4").tobytes())
    if ranked.datatype == "INT64":
        return bytes(np.asarray(ranked.items, "<i8").tobytes())
    return b"".join(
        [part for item in ranked.items if isinstance(item, bytes) for part in (_SIZE.pack(len(item)), item)]
    )
