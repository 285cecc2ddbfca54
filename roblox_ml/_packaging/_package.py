"""The package's own files: signature, examples, metrics, MLmodel and, last, the manifest that lists them all.

Written by hand in plain JSON and YAML text, so that a step needs nothing installed for it. No time, host, path or random
number goes in: the same model packaged twice is the same package, and the registry will say so.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import PackageError
from ._tensors import Tensor, record

__all__ = ["TOLERANCE", "extended", "model_folder", "write_package"]

TOLERANCE = 1e-4
_METRICS, _PACKAGE = "metrics.json", "package.json"
_CHUNK = 1 << 20


def model_folder(path: str | Path | None) -> tuple[Path, Path]:
    """The package's root (a temporary directory unless given, which must then be empty) and its `model/` folder."""
    root = Path(tempfile.mkdtemp(prefix="rml-model-")) if path is None else Path(path)
    if root.is_dir() and any(root.iterdir()):
        raise PackageError(
            f"{root} is not empty",
            why="a package's manifest lists every file of its directory; leftovers would become part of the model",
            fix="give an empty directory, or leave path= out",
        )
    folder = root / "model"
    folder.mkdir(parents=True, exist_ok=True)
    return root, folder


def write_package(
    root: Path,
    *,
    format: str,
    inputs: Mapping[Tensor, Any],
    outputs: Mapping[Tensor, Any],
    labels: Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    tolerance: float = TOLERANCE,
) -> Path:
    """Describe what lies in `root / "model"`: `inputs` and `outputs` map each tensor to its recorded values."""
    _dump(
        root / "signature.json",
        {"inputs": [t.to_json() for t in inputs], "outputs": [t.to_json() for t in outputs]},
    )
    _dump(
        root / "examples.json",
        {
            "inputs": [record(tensor, value) for tensor, value in inputs.items()],
            "outputs": [record(tensor, value) for tensor, value in outputs.items()],
            "tolerance": tolerance,
        },
    )
    _dump(root / _METRICS, _numbers(metrics or {}))
    (root / "MLmodel").write_text(_mlmodel(format), encoding="utf-8")
    _dump(
        root / _PACKAGE,
        {
            "schema": 1,
            "format": format,
            "files": _files(root),
            "labels": None if labels is None else list(labels),
            "options": dict(options or {}),
        },
    )
    return root


def extended(source: Path, add: Callable[[Path], Mapping[str, Any]], path: str | Path | None = None) -> Path:
    """A copy of a package with more in it: `add(model folder)` writes files and returns the options that go with them."""
    root, folder = model_folder(path)
    shutil.copytree(source, root, dirs_exist_ok=True)
    info = json.loads((root / _PACKAGE).read_bytes())
    options = {**info.get("options", {}), **add(folder)}
    (root / _PACKAGE).unlink()
    _dump(root / _PACKAGE, {**info, "files": _files(root), "options": options})
    return root


def _files(root: Path) -> dict[str, dict[str, Any]]:
    """Every file but the manifest and the metrics: measuring a model again must not make another model of it."""
    files = {}
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        relative = path.relative_to(root).as_posix()
        if relative not in (_METRICS, _PACKAGE):
            digest = hashlib.sha256()
            with path.open("rb") as stream:
                while chunk := stream.read(_CHUNK):
                    digest.update(chunk)
            files[relative] = {"sha256": digest.hexdigest(), "size": path.stat().st_size}
    return files


def _mlmodel(format: str) -> str:
    return (
        "flavors:\n"
        "  python_function:\n"
        "    loader_module: roblox_ml_core.package.pyfunc\n"
        "  roblox_ml:\n"
        f"    format: {format}\n"
        "    schema: 1\n"
    )


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Metrics as JSON numbers; everything that is none is named in the one error."""
    numbers: dict[str, float] = {}
    wrong = []
    for name, value in metrics.items():
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if math.isfinite(number):
            numbers[str(name)] = number
        else:
            wrong.append(f"{name}={value!r}")
    if wrong:
        raise PackageError(
            f"these metrics are not finite numbers: {', '.join(wrong)}",
            where="metrics=",
            why="a gate compares them, and NaN compares with nothing",
            fix='give plain numbers, as in metrics={"f1": 0.81}',
        )
    return numbers


def _dump(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
