"""The answer of a text endpoint in the Open Inference Protocol v2, as Triton would give it, REST and gRPC."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from struct import Struct
from typing import Any

import numpy as np
from tritonclient.grpc import service_pb2 as v2

from .request import TextRequest

__all__ = ["Headers", "to_grpc", "to_rest"]

Headers = list[tuple[bytes, bytes]]
#: An output is either texts (BYTES [rows], str or UTF-8) or an array of numbers (FP32 [rows, n]).
Output = Any

_SIZE = Struct("<I")
_JSON: Headers = [(b"content-type", b"application/json")]


def to_rest(request: TextRequest, endpoint: str, version: str, outputs: Mapping[str, Output]) -> tuple[Headers, bytes]:
    """Headers (without Content-Length) and body.

    `outputs` has what the request wants: for BYTES a sequence of texts (str or UTF-8); for FP32 an array [texts, n].
    """
    tensors = []
    parts = [b""]
    for name in request.outputs:
        value = outputs[name]
        numeric = isinstance(value, np.ndarray) and value.dtype.kind == "f"
        tensor: dict[str, Any] = {
            "name": name,
            "datatype": "FP32" if numeric else "BYTES",
            "shape": list(value.shape) if numeric else [len(value)],
        }
        if name in request.binary:
            parts.append(_raw(value, numeric))
            tensor["parameters"] = {"binary_data_size": len(parts[-1])}
        elif numeric:
            # A float32 as the double it equals, as Triton writes it.
            tensor["data"] = value.ravel().tolist()
        else:
            tensor["data"] = [text if isinstance(text, str) else text.decode("utf-8", "replace") for text in value]
        tensors.append(tensor)
    tree: dict[str, Any] = {"id": request.id} if request.id else {}
    tree |= {"model_name": endpoint, "model_version": version, "outputs": tensors}
    parts[0] = json.dumps(tree, separators=(",", ":"), ensure_ascii=False).encode()
    if len(parts) == 1:
        return list(_JSON), parts[0]
    headers = [
        (b"content-type", b"application/octet-stream"),
        (b"inference-header-content-length", b"%d" % len(parts[0])),
    ]
    return headers, b"".join(parts)


def to_grpc(request: TextRequest, endpoint: str, version: str, outputs: Mapping[str, Output]) -> bytes:
    """A serialised ModelInferResponse; `outputs` as for `to_rest`."""
    response = v2.ModelInferResponse(model_name=endpoint, model_version=version, id=request.id)
    for name in request.outputs:
        value = outputs[name]
        numeric = isinstance(value, np.ndarray) and value.dtype.kind == "f"
        shape = value.shape if numeric else (len(value),)
        response.outputs.add(name=name, datatype="FP32" if numeric else "BYTES", shape=shape)
        response.raw_output_contents.append(_raw(value, numeric))
    return bytes(response.SerializeToString())


def _raw(value: Output, numeric: bool) -> bytes:
    if numeric:
        return bytes(np.ascontiguousarray(value, dtype="<f4").tobytes())
    return _with_lengths(value)


def _with_lengths(texts: Sequence[bytes | str]) -> bytes:
    encoded = [text.encode() if isinstance(text, str) else text for text in texts]
    return b"".join([part for text in encoded for part in (_SIZE.pack(len(text)), text)])
