"""Put another name into a message without decoding it: protobuf's first fields, and the head of Triton's JSON.

A request names an endpoint, Triton knows a model per version. Only these bytes change; tensors are copied, never read.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

__all__ = ["Malformed", "Names", "rename_json", "rename_request", "rename_response", "scan", "wrap"]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10


class Malformed(ValueError):
    """The bytes are not a protobuf message."""


class Names(NamedTuple):
    """The first two fields of a v2 message, and the spans of everything else."""

    name: str
    version: str
    rest: tuple[tuple[int, int], ...]


def scan(message: bytes) -> Names:
    """Read fields 1 and 2 (strings) at the top level; with several, the last counts, as protobuf has it.

    Every top-level field is visited: a name in front and another one at the end must not be two different answers.

    Raises:
        Malformed: lengths, wire types or the names' UTF-8 are wrong.
    """
    values = [b"", b""]
    spans: list[tuple[int, int]] = []
    position, size = 0, len(message)
    keep_from = 0
    while position < size:
        start = position
        tag, position = _varint(message, position)
        field, wire = tag >> 3, tag & 7
        if field == 0 or field > 0x1FFFFFFF:
            raise Malformed(f"field number {field} at byte {start}")
        if wire == _BYTES:
            length, position = _varint(message, position)
            value_at, position = position, position + length
        elif wire == _VARINT:
            value_at = position
            _, position = _varint(message, position)
        elif wire == _FIXED64:
            value_at, position = position, position + 8
        elif wire == _FIXED32:
            value_at, position = position, position + 4
        else:
            raise Malformed(f"wire type {wire} at byte {start}")
        if position > size:
            raise Malformed(f"field {field} at byte {start} is longer than the message")
        if field <= 2:
            if wire != _BYTES:
                raise Malformed(f"field {field} is not a string")
            values[field - 1] = message[value_at:position]
            if start > keep_from:
                spans.append((keep_from, start))
            keep_from = position
    if size > keep_from:
        spans.append((keep_from, size))
    try:
        return Names(values[0].decode(), values[1].decode(), tuple(spans))
    except UnicodeDecodeError as error:
        raise Malformed(f"a name is not UTF-8: {error}") from None


def rename_request(message: bytes, names: Names, name: str, version: str) -> bytes:
    """The request for `name` and `version`; every other byte is the client's."""
    return b"".join([_head(name, version), *(message[start:end] for start, end in names.rest)])


def rename_response(message: bytes, name: str) -> bytes:
    """The response as that of `name`; the version and every other byte stay.

    Raises:
        Malformed: the upstream's bytes are not a message.
    """
    names = scan(message)
    return rename_request(message, names, name, names.version)


def wrap(field: int, payload: bytes) -> bytes:
    """`payload` as length-delimited field `field`."""
    return _encode_varint(field << 3 | _BYTES) + _encode_varint(len(payload)) + payload


@lru_cache(maxsize=1024)
def _head(name: str, version: str) -> bytes:
    return (wrap(1, name.encode()) if name else b"") + (wrap(2, version.encode()) if version else b"")


def _varint(message: bytes, position: int) -> tuple[int, int]:
    try:
        byte = message[position]
        if byte < 0x80:
            return byte, position + 1
        value = byte & 0x7F
        for length in range(1, _MAX_VARINT_BYTES):
            byte = message[position + length]
            value |= (byte & 0x7F) << 7 * length
            if byte < 0x80:
                return value, position + length + 1
    except IndexError:
        raise Malformed("the message ends inside a number") from None
    raise Malformed(f"a number at byte {position} has more than {_MAX_VARINT_BYTES} bytes")


def _encode_varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


# Triton writes the id (the client's own text, hence the full string grammar), then model_name. Anchored: nothing behind
# the head is looked at, however large the answer is.
_JSON_HEAD = rb'\s*\{\s*(?:"id"\s*:\s*"(?:[^"\\]|\\.)*"\s*,\s*)?"model_name"\s*:\s*"'


def rename_json(body: bytes, triton_model: str, endpoint: str) -> bytes:
    """A v2 inference response with `model_name` set from `triton_model` to `endpoint`.

    A body of another form (an error, another server's order of fields) is returned as it is.
    """
    usual, renamed = _usual(triton_model, endpoint)
    if body.startswith(usual):
        return renamed + body[len(usual) :]
    found = _json_pattern(triton_model).match(body)
    if found is None:
        return body
    return b"".join([body[: found.end(1)], endpoint.encode(), b'"', body[found.end() :]])


@lru_cache(maxsize=1024)
def _usual(triton_model: str, endpoint: str) -> tuple[bytes, bytes]:
    """How an answer without an id begins, and how it shall."""
    return (b'{"model_name":"' + triton_model.encode() + b'"', b'{"model_name":"' + endpoint.encode() + b'"')


@lru_cache(maxsize=1024)
def _json_pattern(triton_model: str) -> re.Pattern[bytes]:
    return re.compile(b"(" + _JSON_HEAD + b")" + re.escape(triton_model.encode()) + b'"', re.DOTALL)
