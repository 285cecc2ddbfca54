"""The model package on disk: which files it has, how it is written, read, verified and named by one digest.

`package.json` lists every file with its sha256; the digest of its canonical JSON names the package. `metrics.json` stays
outside the list: measuring a model again must not make another model of it.
"""

from __future__ import annotations

import json
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..digests import FileEntry, is_digest, sha256_file, sha256_json, tree
from ..errors import PackageError
from .examples import Examples
from .signature import Signature

__all__ = [
    "EXAMPLES", "FORMATS", "METRICS", "MLMODEL", "PACKAGE", "SIGNATURE",
    "ModelPackage", "check_path", "mlmodel_text", "package_digest", "package_findings", "read", "verify", "write",
]  # fmt: skip

PACKAGE, SIGNATURE, EXAMPLES, METRICS, MLMODEL = (
    "package.json",
    "signature.json",
    "examples.json",
    "metrics.json",
    "MLmodel",
)
SCHEMA = 1
# What each format cannot do without.
FORMATS: Mapping[str, tuple[str, ...]] = {
    "hf-text-classifier": ("model/tokenizer.json",),
    "onnx": ("model/model.onnx",),
    "sklearn-skops": ("model/model.skops",),
    "python": (),
    "text-cpu": ("model/tokenizer.json", "model/text.json"),
}
_DOCS = "see docs/formats/model-package.md"


@dataclass(frozen=True, slots=True)
class ModelPackage:
    """A package that has been read: its directory and what its JSON files say."""

    root: Path
    format: str
    digest: str
    info: Mapping[str, Any]
    signature: Signature
    examples: Examples | None
    metrics: Mapping[str, Any]

    @property
    def labels(self) -> tuple[str, ...] | None:
        labels = self.info.get("labels")
        return None if labels is None else tuple(str(label) for label in labels)

    @property
    def options(self) -> Mapping[str, Any]:
        options: Mapping[str, Any] = self.info.get("options") or {}
        return options


def package_digest(info: Mapping[str, Any]) -> str:
    """The package's digest, from the content of its package.json."""
    files = {path: entry for path, entry in info["files"].items() if path != METRICS}
    return sha256_json({**info, "files": files})


def write(
    root: Path,
    *,
    format: str,
    signature: Signature,
    examples: Examples | None = None,
    labels: Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
) -> ModelPackage:
    """Turn a directory whose ``model/`` is in place into a package: writes the JSON files and MLmodel, package.json last."""
    root.mkdir(parents=True, exist_ok=True)
    (root / PACKAGE).unlink(missing_ok=True)
    _dump(root / SIGNATURE, signature.to_json())
    if examples is not None:
        _dump(root / EXAMPLES, examples.to_json())
    _dump(root / METRICS, dict(metrics or {}))
    (root / MLMODEL).write_text(mlmodel_text(format), encoding="utf-8")
    files = {path: entry for path, entry in tree(root).items() if path != METRICS}
    info = {
        "schema": SCHEMA,
        "format": format,
        "files": files,
        "labels": None if labels is None else list(labels),
        "options": dict(options or {}),
    }
    _dump(root / PACKAGE, info)
    return verify(root)


def read(root: Path) -> ModelPackage:
    """Read a package's description; the files are not hashed (`verify` does that)."""
    info = _load(root, PACKAGE)
    found = package_findings(info)
    if found:
        raise PackageError(f"{root} is not a model package: " + "; ".join(found), hint=_DOCS)
    examples = Examples.from_json(_load(root, EXAMPLES)) if (root / EXAMPLES).is_file() else None
    metrics = _load(root, METRICS) if (root / METRICS).is_file() else {}
    signature = Signature.from_json(_load(root, SIGNATURE))
    if examples is not None and (found := examples.findings(signature)):
        raise PackageError(f"{EXAMPLES} in {root} does not fit {SIGNATURE}: " + "; ".join(found), hint=_DOCS)
    return ModelPackage(root, info["format"], package_digest(info), info, signature, examples, metrics)


def verify(root: Path, digest: str | None = None, *, ignore: Container[str] = ()) -> ModelPackage:
    """Read a package and hash all of it; every file that is missing, changed or not listed is in the one error.

    `ignore` names files that another tool may have put beside the package.
    """
    package = read(root)
    known = {PACKAGE, METRICS}
    listed: Mapping[str, FileEntry] = package.info["files"]
    found = []
    if digest is not None and digest != package.digest:
        found.append(f"its digest is {package.digest}, expected {digest}")
    for path, entry in listed.items():
        file = root / path
        if not file.is_file() or file.is_symlink():
            found.append(f"{path} is missing")
        elif file.stat().st_size != entry["size"] or sha256_file(file) != entry["sha256"]:
            found.append(f"{path} was changed")
    present = (path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    extra = (path for path in sorted(present) if path not in listed and path not in known and path not in ignore)
    found += [f"{path} is not listed" for path in extra]
    found += [f"a {package.format} package needs {path}" for path in FORMATS[package.format] if path not in listed]
    if found:
        raise PackageError(f"the package in {root} is damaged: " + "; ".join(found), hint="build or download it again")
    return package


def check_path(path: str) -> str:
    """`path` itself when it is a plain relative POSIX path, else `PackageError`: it is joined to folders on other machines."""
    pure = PurePosixPath(path)
    plain = (
        0 < len(path) <= 512
        and not pure.is_absolute()
        and str(pure) == path
        and ".." not in pure.parts
        and path != "."
        and "\\" not in path
        and ":" not in pure.parts[0]
        and path.isprintable()
    )
    if not plain:
        raise PackageError(
            f"{path[:120]!r} is not a path inside a package",
            hint="use relative paths with '/' and without '..', as model/model.onnx",
        )
    return path


def mlmodel_text(format: str) -> str:
    """The MLmodel file: constant per format (no time, no uuid), so that equal packages have equal digests."""
    return (
        "flavors:\n"
        "  python_function:\n"
        "    loader_module: roblox_ml_core.package.pyfunc\n"
        "  roblox_ml:\n"
        f"    format: {format}\n"
        f"    schema: {SCHEMA}\n"
    )


def package_findings(info: Any) -> list[str]:
    """What is wrong with the content of a package.json; empty when nothing is."""
    if not isinstance(info, dict):
        return [f"{PACKAGE} is not an object"]
    found = []
    if info.get("schema") != SCHEMA:
        found.append(f"schema {info.get('schema')!r} is not {SCHEMA}: this version of roblox_ml cannot read it")
    if info.get("format") not in FORMATS:
        found.append(f"format {info.get('format')!r} is none of {', '.join(FORMATS)}")
    files = info.get("files")
    if not isinstance(files, dict):
        return [*found, "files is not an object"]
    for path, entry in files.items():
        try:
            check_path(path)
        except PackageError as error:
            found.append(error.message)
        size = entry.get("size") if isinstance(entry, dict) else None
        if not isinstance(entry, dict) or not is_digest(entry.get("sha256")) or not isinstance(size, int) or size < 0:
            found.append(f"{path[:120]!r} has no sha256 and size")
    if PACKAGE in files:
        found.append(f"{PACKAGE} lists itself")
    if SIGNATURE not in files:
        found.append(f"{SIGNATURE} is not listed")
    labels, options = info.get("labels"), info.get("options")
    if labels is not None and not (isinstance(labels, list) and all(isinstance(label, str) for label in labels)):
        found.append("labels is not a list of texts")
    if options is not None and not isinstance(options, dict):
        found.append("options is not an object")
    return found


def _load(root: Path, name: str) -> Any:
    try:
        return json.loads((root / name).read_bytes())
    except FileNotFoundError:
        raise PackageError(f"{root} has no {name}: it is not a model package", hint=_DOCS) from None
    except ValueError as error:
        raise PackageError(f"{root / name} is not JSON: {error}", hint="build the package again") from error


def _dump(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
