"""What a load generator sends: requests as finished bytes, so that building them costs nothing while the clock runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["GRPC_INFER", "Traffic", "grpc_texts", "rest_json", "rest_texts"]

GRPC_INFER = "/inference.GRPCInferenceService/ModelInfer"


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests for one server, asked in turn (after the last comes the first again).

    `protocol` is "rest" (POST `path`) or "grpc" (the unary method `path`); `rows` are the inferences in one request.
    """

    protocol: str
    address: str
    path: str
    bodies: Sequence[bytes]
    headers: tuple[tuple[str, str], ...] = ()
    rows: int = 1

    def __post_init__(self) -> None:
        if self.protocol not in ("rest", "grpc") or not self.bodies or self.rows < 1:
            raise ValueError(f"traffic needs protocol rest or grpc, a body and rows >= 1, not {self.protocol!r}")


def rest_texts(url: str, endpoint: str, texts: Sequence[str], *, rows: int = 1) -> Traffic:
    """Texts for a v2 endpoint over REST, `rows` of them in a request."""
    bodies = [
        json.dumps({"inputs": [_rest_input(part)]}, ensure_ascii=False, separators=(",", ":")).encode()
        for part in _parts(texts, rows)
    ]
    return rest_json(url, f"/v2/models/{endpoint}/infer", bodies, rows=rows)


def rest_json(
    url: str, path: str, bodies: Sequence[bytes], *, rows: int = 1, headers: tuple[tuple[str, str], ...] = ()
) -> Traffic:
    """Any server that takes JSON by POST."""
    address = url.removeprefix("http://").rstrip("/")
    return Traffic("rest", address, path, bodies, (("content-type", "application/json"), *headers), rows)


def grpc_texts(address: str, endpoint: str, texts: Sequence[str], *, rows: int = 1) -> Traffic:
    """Texts for a v2 endpoint over gRPC, `rows` of them in a request."""
    from tritonclient.grpc import service_pb2

    def message(part: Sequence[str]) -> bytes:
        request: Any = service_pb2.ModelInferRequest(model_name=endpoint)
        tensor = request.inputs.add(name="TEXT", datatype="BYTES", shape=[len(part)])
        tensor.contents.bytes_contents.extend(text.encode() for text in part)
        return bytes(request.SerializeToString())

    return Traffic("grpc", address, GRPC_INFER, [message(part) for part in _parts(texts, rows)], rows=rows)


def _rest_input(part: Sequence[str]) -> dict[str, Any]:
    return {"name": "TEXT", "datatype": "BYTES", "shape": [len(part)], "data": list(part)}


def _parts(texts: Sequence[str], rows: int) -> Iterator[Sequence[str]]:
    """Whole requests only: a last one with fewer rows would make `rows` a lie."""
    if len(texts) < rows:
        raise ValueError(f"{len(texts)} texts do not fill one request of {rows}")
    for start in range(0, len(texts) - rows + 1, rows):
        yield texts[start : start + rows]
