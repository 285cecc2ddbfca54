"""Slice → deterministic zip. The digest is the name under which a step's code is stored, sent and cached.

Stored, not deflated: compressed bytes differ between zlib builds, and a digest must not. Everything else a zip could
vary in is fixed: order, time stamp, permissions, host system.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

from roblox_ml._capture._types import Bundle, Slice

SCHEMA = 1
MANIFEST = "MANIFEST.json"
_STAMP = (1980, 1, 1, 0, 0, 0)


def build_bundle(slice_: Slice, *, python: str, lock: str) -> Bundle:
    """The code bundle of `slice_` for Python `python` ("3.11") and the environment lock with digest `lock` ("" for none)."""
    manifest = {
        "schema": SCHEMA,
        "entry": slice_.entry,
        "python": python,
        "lock": lock,
        "imports": sorted(slice_.imports),
        "files": {path: hashlib.sha256(data).hexdigest() for path, data in sorted(slice_.files.items())},
    }
    return _bundle({**slice_.files, MANIFEST: _canonical(manifest)}, manifest)


def pack(files: Mapping[str, bytes]) -> bytes:
    """The same zip for the same files, wherever and whenever it is made."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(files):
            info = zipfile.ZipInfo(path, _STAMP)
            info.external_attr = 0o100644 << 16
            info.create_system = 3
            archive.writestr(info, files[path])
    return buffer.getvalue()


def bundle_of(files: Mapping[str, bytes]) -> Bundle:
    """A bundle without a manifest inside it (the SDK's own zip)."""
    return _bundle(files, {"files": {path: hashlib.sha256(data).hexdigest() for path, data in sorted(files.items())}})


def _bundle(files: Mapping[str, bytes], manifest: Mapping[str, Any]) -> Bundle:
    data = pack(files)
    return Bundle(hashlib.sha256(data).hexdigest(), data, manifest)


def _canonical(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
