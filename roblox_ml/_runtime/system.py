"""The two steps that ship with the SDK: load a named dataset, register a model.

They run like any other step (same bootstrap, same protocol) but come from the SDK's own zip, so they need no bundle and
no lock; standard library only, the control plane is reached with urllib.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from .._artifacts import Dataset, Metrics, Model
from .._store import digest_of_file, open_store
from ..errors import DatasetError, PackageError
from . import control

__all__ = ["Registered", "load_dataset", "register"]


class Registered(NamedTuple):
    """What the registry answered: the version it assigned (or found), and whether the alias moved."""

    version: int
    digest: str
    promoted: bool


def load_dataset(name: str, version: int, digest: str) -> Dataset:
    """The files of a dataset version from the blob store, each one verified."""
    store = open_store()
    manifest = json.loads(store.get(digest))
    files: dict[str, Any] = manifest["files"]
    dataset = Dataset(metadata={"name": name, "version": version, "digest": digest, "files": len(files)})
    root = dataset.path.resolve()
    # Links share the store's bytes. They are read-only files, which root would write to all the same.
    link = os.geteuid() != 0
    for relative, entry in files.items():
        target = root / relative
        if not target.resolve().is_relative_to(root):
            raise DatasetError(f"dataset {name} version {version} holds the path {relative!r}, which leaves its folder")
        store.copy_to(entry["sha256"], target, link=link)
    dataset.metadata["rml.data"] = [f"{name}/{version}@{digest}"]
    size = sum(int(entry["size"]) for entry in files.values())
    print(f"dataset {name} version {version}: {len(files)} files, {size:,} bytes")
    return dataset


def register(
    model: Model,
    name: str,
    gate: dict[str, Any] | None = None,
    tags: dict[str, Any] | None = None,
    alias: str = "champion",
    metrics: Metrics | None = None,
) -> Registered:
    """Store a model package and register it; the gate decides in the control plane whether the alias moves."""
    package = _package(model)
    files = {path.relative_to(model.path).as_posix(): path for path in sorted(model.path.rglob("*")) if path.is_file()}
    manifest = {
        relative: {"sha256": digest_of_file(path), "size": path.stat().st_size} for relative, path in files.items()
    }
    measured = {**model.metrics, **_numbers(metrics)}
    body = {
        "package": package,
        "manifest": manifest,
        "signature": _read(model.path / "signature.json"),
        "metrics": measured,
        "params": {},
        "tags": {str(k): str(v) for k, v in (tags or {}).items()},
        "lineage": _lineage(model),
        "gate": gate or None,
        "alias": alias,
    }
    plane = control.ControlPlane()
    plane.upload({str(entry["sha256"]): files[relative] for relative, entry in manifest.items()})
    answer = plane.call("POST", f"/v1/models/{name}/versions", body)
    moved = bool((answer.get("alias") or {}).get("moved"))
    _report(name, answer, moved)
    return Registered(int(answer["version"]), str(answer["digest"]), moved)


def _report(name: str, answer: dict[str, Any], moved: bool) -> None:
    made = "registered" if answer.get("created", True) else "an identical package exists as"
    print(f"{made} {name}/{answer['version']} ({answer['digest'][:12]})")
    verdict = answer.get("gate") or {}
    for finding in verdict.get("findings") or []:
        print(f"gate: {finding if isinstance(finding, str) else finding.get('message', finding)}")
    alias = (answer.get("alias") or {}).get("name")
    if alias:
        print(f"{name}@{alias} {'now means this version' if moved else 'stays where it was'}")


def _package(model: Model) -> dict[str, Any]:
    package = _read(model.path / "package.json")
    if package is None:
        raise PackageError(
            "this artifact is no model package: it has no package.json",
            why="only a package says how to load, check and serve the model",
            fix="build it with rml.Model.from_transformers(…), from_sklearn(…), from_onnx(…) or from_python(…)",
        )
    found: dict[str, Any] = package
    return found


def _numbers(metrics: Metrics | None) -> dict[str, float]:
    if metrics is None:
        return {}
    metadata = metrics.metadata
    return {k: v for k, v in metadata.items() if isinstance(v, int | float) and not isinstance(v, bool)}


def _lineage(model: Model) -> dict[str, Any]:
    """Run, step, code, lock and data, as every output artifact carries them."""
    about = model.metadata
    lineage: dict[str, Any] = {
        "kind": "pipeline",
        **{key: about.get(f"rml.{key}", "") for key in ("run", "step", "task", "code", "lock")},
        "pipeline": os.environ.get("RML_PIPELINE", ""),
        "data": about.get("rml.data") or [],
    }
    git = os.environ.get("RML_GIT")
    if git:
        lineage["git"] = json.loads(git)
    return lineage


def _read(path: Path) -> Any:
    return json.loads(path.read_text("utf-8")) if path.is_file() else None
