"""A skops file without the process it was written in.

skops names objects by their address in memory and its zip entries carry the time. Two dumps of one estimator would be two
models; here the addresses become running numbers, members are named in the order the schema mentions them, and times go.
scikit-learn keeps one address of its own (`_stop_words_id`, to notice a changed list); without it, it looks again.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

__all__ = ["canonical"]

_SCHEMA = "schema.json"
_EPOCH = (1980, 1, 1, 0, 0, 0)


def canonical(file: Path) -> None:
    """Rewrite `file` in place; the objects in it stay what they were."""
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    schema = json.loads(members.pop(_SCHEMA))
    ids: dict[int, int] = {}
    files: dict[str, str] = {}
    _renumber(schema, ids, files, members)
    temporary = file.with_name(file.name + ".new")
    with zipfile.ZipFile(temporary, "w") as archive:
        for old, new in files.items():
            _add(archive, new, members[old])
        _add(archive, _SCHEMA, json.dumps(schema, separators=(",", ":")).encode())
    temporary.replace(file)


def _renumber(node: Any, ids: dict[int, int], files: dict[str, str], members: dict[str, bytes]) -> None:
    """Walk the schema in its own order; equal addresses keep equal numbers, since skops uses them to share objects."""
    if isinstance(node, list):
        for item in node:
            _renumber(item, ids, files, members)
    elif isinstance(node, dict):
        if isinstance(node.get("__id__"), int):
            node["__id__"] = ids.setdefault(node["__id__"], len(ids))
        named = node.get("file")
        if isinstance(named, str) and named in members:
            suffix = "".join(Path(named).suffixes[-1:])
            node["file"] = files.setdefault(named, f"{len(files)}{suffix}")
        address = node.get("_stop_words_id")
        if isinstance(address, dict) and address.get("is_json"):
            address["content"] = "null"
        for value in node.values():
            _renumber(value, ids, files, members)


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o644 << 16
    archive.writestr(info, data)
