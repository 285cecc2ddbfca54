"""The wire between a model's stub and its worker: named arrays as .npy bytes behind a JSON header. No pickle on either side.

    frame   = uint32 length of header (little-endian), header (JSON), the parts' bytes one after the other
    header  = {"kind": "predict" | "answer" | "error" | "ready", "text": …, "parts": [{"name", "text": bool, "size"}]}
    part    = an .npy file; of text (object arrays): an .npy of the shape's UTF-8 lengths, then the UTF-8 bytes

Used by both interpreters (the stub's with numpy 1, the model's own with whatever its lock says), so it stays this small.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

MAX_HEADER = 1 << 20
_LENGTH = struct.Struct("<I")


class Closed(ConnectionError):
    """The other side is gone."""


def send(stream: BinaryIO, kind: str, arrays: Mapping[str, Any] | None = None, text: str = "") -> None:
    """Write one frame and flush it."""
    parts, bodies = [], []
    for name, array in (arrays or {}).items():
        array = np.asarray(array)
        is_text = array.dtype.kind in "OUS"
        body = pack_text(array) if is_text else pack(array)
        parts.append({"name": name, "text": is_text, "size": len(body)})
        bodies.append(body)
    header = json.dumps({"kind": kind, "text": text, "parts": parts}).encode()
    stream.write(_LENGTH.pack(len(header)) + header + b"".join(bodies))
    stream.flush()


def receive(stream: BinaryIO) -> tuple[str, dict[str, Any], str]:
    """Read one frame: (kind, arrays by name, text). `Closed` at the end of the stream."""
    length = _LENGTH.unpack(exactly(stream, _LENGTH.size))[0]
    if length > MAX_HEADER:
        raise ConnectionError(f"a header of {length} bytes: the other side does not speak this protocol")
    header = json.loads(exactly(stream, length))
    arrays = {}
    for part in header["parts"]:
        body = exactly(stream, part["size"])
        arrays[part["name"]] = unpack_text(body) if part["text"] else np.load(io.BytesIO(body), allow_pickle=False)
    return header["kind"], arrays, header["text"]


def pack(array: Any) -> bytes:
    sink = io.BytesIO()
    np.save(sink, np.ascontiguousarray(array), allow_pickle=False)
    return sink.getvalue()


def pack_text(array: Any) -> bytes:
    encoded = [
        value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")
        for value in array.reshape(-1).tolist()
    ]
    lengths = np.array([len(value) for value in encoded], dtype=np.int64).reshape(array.shape)
    return pack(lengths) + b"".join(encoded)


def unpack_text(body: bytes) -> Any:
    source = io.BytesIO(body)
    lengths = np.load(source, allow_pickle=False)
    flat = np.empty(lengths.size, dtype=np.object_)
    for i, length in enumerate(lengths.reshape(-1)):
        flat[i] = source.read(int(length)).decode("utf-8", "replace")
    return flat.reshape(lengths.shape)


def exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if data is None or len(data) < size:
        raise Closed("the other side closed the connection")
    return data
