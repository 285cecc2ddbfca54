"""What a step would do, as a digest, and the outputs it had when it last did exactly that.

The key covers the command and its arguments (which name SDK, code and lock by digest), the image, the input parameters,
the content and metadata of input artifacts, and the declared outputs. Not the run, the paths, the resources, the
environment variables. An entry is used only if the recorded artifacts still are what they were.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..._store import digest_of_file, home
from .spec import Component

__all__ = ["Cache", "intact", "step_key", "tree_digest", "tree_stamp"]

# Which run and which task of it made an artifact differs from run to run, and changes nothing for who reads it.
_INCIDENTAL = frozenset({"rml.run", "rml.task"})


def tree_digest(path: Path) -> str:
    """The content of a directory (or file): sha256 of the canonical JSON of {path: {sha256, size}}."""
    files: dict[str, Any] = {}
    if path.is_file():
        files["."] = {"sha256": digest_of_file(path), "size": path.stat().st_size}
    for found in sorted(path.rglob("*")) if path.is_dir() else ():
        if found.is_file():
            relative = found.relative_to(path).as_posix()
            files[relative] = {"sha256": digest_of_file(found), "size": found.stat().st_size}
    return _digest({"files": files})


def tree_stamp(path: Path) -> tuple[tuple[str, int, int, int], ...]:
    """Names, sizes, times and inodes of a tree's files: cheap to look at, and different once something was written."""
    found = []
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if not file.is_dir():
            state = file.lstat()
            found.append((file.relative_to(path).as_posix(), state.st_size, state.st_mtime_ns, state.st_ino))
    return tuple(found)


def step_key(component: Component, parameters: Mapping[str, Any], artifacts: Mapping[str, Any]) -> str:
    """The digest of everything a step's outputs can depend on."""
    container = component.container
    assert container is not None, "only containers run"
    return _digest(
        {
            "command": container.command,
            "args": container.args,
            "image": container.image,
            "env": dict(container.env),
            "parameters": dict(parameters),
            "artifacts": {name: [_content(a) for a in listed] for name, listed in artifacts.items()},
            "outputs": [dict(component.output_parameters), dict(component.output_artifacts)],
        }
    )


def intact(outputs: Mapping[str, Any]) -> bool:
    """Whether every recorded artifact is still there with the content it had."""
    try:
        return all(
            tree_digest(Path(artifact["uri"])) == artifact["digest"] and Path(artifact["uri"]).exists()
            for listed in outputs["artifacts"].values()
            for artifact in listed
        )
    except OSError:
        return False


class Cache:
    """`$RML_HOME/cache/tasks/<aa>/<key>.json`. Entries appear by rename; a damaged one is no entry."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or home() / "cache" / "tasks"

    def get(self, key: str) -> dict[str, Any] | None:
        """{"source": "run/task", "outputs": …} if there is one and its artifacts are intact."""
        try:
            entry: dict[str, Any] = json.loads(self._path(key).read_text("utf-8"))
            return entry if intact(entry["outputs"]) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def put(self, key: str, source: str, outputs: Mapping[str, Any]) -> None:
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{key}.{os.urandom(4).hex()}")
        fresh.write_text(json.dumps({"source": source, "outputs": outputs}), "utf-8")
        fresh.replace(path)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"


def _content(artifact: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {k: v for k, v in (artifact.get("metadata") or {}).items() if k not in _INCIDENTAL}
    return {"digest": artifact["digest"], "type": artifact["type"], "metadata": metadata}


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
