"""Version 1 of how features are asked over HTTP: docs/formats/feature-wire.md. Pure.

A message is a JSON header and, behind it, arrays as they lie in memory (little-endian): a frame of four bytes with the header's
length, the header padded with spaces to a multiple of eight, then the arrays in the header's order. Every reader has the whole
message before it believes a word of it: sizes are computed from the header and must be the body's, to the byte.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Any

import numpy as np

__all__ = [
    "CONTENT_TYPE", "MAX_KEYS", "MAX_VALUES", "PATH", "VERSION", "Ask", "Block", "Rows", "WireError", "read_answer", "read_request",
    "write_answer", "write_request",
]  # fmt: skip

VERSION = 1
PATH = b"/v1/features"
CONTENT_TYPE = b"application/vnd.rml.features"
#: Keys in one request, over all blocks.
MAX_KEYS = 100_000
#: Values in one answer: keys times features, over all views. A view may name keys that others name as well.
MAX_VALUES = 8_000_000
_SIZE = Struct("<I")
_ALIGN = 8

#: An entity's key: an integer (type int64) or a text (type string, its UTF-8).
Key = int | bytes
Floats = Any  # an array of float32


class WireError(ValueError):
    """A message that is not of this format. `code` is the one that a server answers with."""

    def __init__(self, message: str, code: str = "malformed") -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Block:
    """Keys of one kind of entity."""

    entity: str
    keys: Sequence[Key]


@dataclass(frozen=True, slots=True)
class Ask:
    """One view's features for the keys of a block (by its place in the request)."""

    view: str
    block: int
    features: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rows:
    """A view's answer, a row for each key in the order asked.

    Attributes:
        ages: seconds since the row's event; NaN: there is no such row.
        values: by feature, then row; NaN where there is none.
        error: why this view has no answer; the others have theirs.
    """

    view: str
    ages: Floats
    values: Floats
    error: str = ""

    def part(self, start: int, end: int) -> Rows:
        """Some of the rows."""
        return Rows(self.view, self.ages[start:end], self.values[:, start:end], self.error)


def write_request(blocks: Sequence[Block], asks: Sequence[Ask]) -> bytes:
    """The body of `POST /v1/features`."""
    described, arrays = [], []
    for block in blocks:
        integers = bool(block.keys) and not isinstance(block.keys[0], bytes)
        data = np.asarray(block.keys, dtype="<i8").tobytes() if integers else _strings(block.keys)
        described.append(
            {
                "entity": block.entity,
                "type": "int64" if integers else "string",
                "count": len(block.keys),
                "bytes": len(data),
            }
        )
        arrays.append(data)
    views = [{"view": ask.view, "keys": ask.block, "features": list(ask.features)} for ask in asks]
    return _frame({"version": VERSION, "keys": described, "views": views}, arrays)


def read_request(body: bytes) -> tuple[list[Block], list[Ask]]:
    """Raises:
    WireError: it is no request of this version.
    """
    header, at = _open(body)
    blocks, total = [], 0
    try:
        for entry in header["keys"]:
            count, size, kind = _count(entry["count"]), _count(entry["bytes"]), entry["type"]
            total += count
            if total > MAX_KEYS:
                raise WireError(f"{total} keys in one request; at most {MAX_KEYS}", "too_many_keys")
            data = body[at : at + size]
            if len(data) != size:
                raise WireError(f"the keys of {entry['entity']!r} say {size} bytes and {len(data)} are left")
            blocks.append(Block(str(entry["entity"]), _keys(data, count, kind)))
            at += size
        asks = [Ask(str(entry["view"]), _count(entry["keys"]), _names(entry["features"])) for entry in header["views"]]
    except (KeyError, TypeError) as error:
        raise WireError(f"the header lacks or misuses {error}") from None
    if at != len(body):
        raise WireError(f"{len(body) - at} bytes follow the last keys")
    if wrong := [ask.view for ask in asks if ask.block >= len(blocks)]:
        raise WireError(f"views {', '.join(wrong)} name keys that the request has not")
    values = sum(len(blocks[ask.block].keys) * len(ask.features) for ask in asks)
    if values > MAX_VALUES:
        raise WireError(f"{values} values asked in one request; at most {MAX_VALUES}", "too_many_values")
    return blocks, asks


def write_answer(views: Sequence[Rows]) -> bytes:
    """The body of a 200."""
    described: list[dict[str, Any]] = []
    arrays: list[bytes] = []
    for rows in views:
        features, count = rows.values.shape
        described.append({"view": rows.view, "rows": count, "features": features})
        if rows.error:
            described[-1]["error"] = rows.error
        null = np.isnan(rows.values)
        arrays += (
            rows.ages.astype("<f4").tobytes(),
            np.where(null, np.float32(0), rows.values).astype("<f4").tobytes(),
        )
        bits = np.packbits(null, axis=1, bitorder="little").tobytes() if count else b""
        arrays.append(bits + bytes(-len(bits) % 4))
    return _frame({"version": VERSION, "views": described}, arrays)


def read_answer(body: bytes) -> list[Rows]:
    """Raises:
    WireError: it is no answer of this version.
    """
    header, at = _open(body)
    found = []
    try:
        for entry in header["views"]:
            count, features = _count(entry["rows"]), _count(entry["features"])
            width = (count + 7) // 8
            bitmap = features * width
            size = 4 * count + 4 * count * features + bitmap + -bitmap % 4
            if len(body) - at < size:
                raise WireError(f"view {entry['view']!r} says {size} bytes and {len(body) - at} are left")
            ages = np.frombuffer(body, "<f4", count, at)
            values = np.frombuffer(body, "<f4", count * features, at + 4 * count).reshape(features, count)
            bits = np.frombuffer(body, np.uint8, bitmap, at + 4 * count * (features + 1)).reshape(features, width)
            null = np.unpackbits(bits, axis=1, bitorder="little", count=count) if width else bits
            # Not a number is not the same as nothing: whoever computed it must hear of it.
            odd = np.where(np.isfinite(values), values, np.float32(np.inf))
            found.append(
                Rows(str(entry["view"]), ages, np.where(null, np.float32(np.nan), odd), str(entry.get("error", "")))
            )
            at += size
    except (KeyError, TypeError) as error:
        raise WireError(f"the header lacks or misuses {error}") from None
    if at != len(body):
        raise WireError(f"{len(body) - at} bytes follow the last view")
    return found


def _frame(header: dict[str, Any], arrays: Sequence[bytes]) -> bytes:
    head = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    head += b" " * (-(len(head) + _SIZE.size) % _ALIGN)
    return b"".join((_SIZE.pack(len(head)), head, *arrays))


def _open(body: bytes) -> tuple[dict[str, Any], int]:
    if len(body) < _SIZE.size:
        raise WireError(f"{len(body)} bytes are no message: it begins with its header's length, 4 bytes little-endian")
    end = _SIZE.size + _SIZE.unpack_from(body)[0]
    if end > len(body):
        raise WireError(f"the header says {end - _SIZE.size} bytes and {len(body) - _SIZE.size} are there")
    try:
        header = json.loads(body[_SIZE.size : end])
    except (ValueError, RecursionError):
        raise WireError("the header is not JSON") from None
    if not isinstance(header, dict):
        raise WireError("the header is no JSON object")
    if header.get("version") != VERSION:
        raise WireError(f"version {str(header.get('version'))[:20]!r} is not {VERSION}", "unsupported_version")
    return header, end


def _strings(keys: Sequence[Key]) -> bytes:
    parts: list[bytes] = []
    for key in keys:
        if not isinstance(key, bytes):
            raise TypeError(f"{key!r} is no text's UTF-8, as the keys before it")
        parts += (_SIZE.pack(len(key)), key)
    return b"".join(parts)


def _keys(data: bytes, count: int, kind: object) -> Sequence[Key]:
    if kind == "int64":
        if len(data) != 8 * count:
            raise WireError(f"{count} int64 keys have {len(data)} bytes")
        listed: list[Key] = np.frombuffer(data, "<i8").tolist()
        return listed
    if kind != "string":
        raise WireError(f"keys are of type {str(kind)[:20]!r}; there are int64 and string")
    found: list[Key] = []
    at = 0
    for _ in range(count):
        start = at + _SIZE.size
        if start > len(data):
            raise WireError("string keys end inside a length")
        at = start + _SIZE.unpack_from(data, at)[0]
        found.append(data[start:at])
    if at != len(data):
        raise WireError(f"{count} string keys take {at} bytes and {len(data)} are said")
    return found


def _names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise WireError(f"{str(value)[:40]!r} is no list of features")
    return tuple(value)


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
        raise WireError(f"{str(value)[:40]!r} is no count")
    return value
