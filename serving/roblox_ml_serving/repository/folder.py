"""Put a package into Triton's model repository, complete or not at all.

comment-sentiment.3/         config.pbtxt, 3/ (empty), rml.json (last: says that both folders are complete)
comment-sentiment.3.batch/   config.pbtxt, warmup/TEXT, 3/model.py, 3/rml_*.py, 3/package/… (the package, untouched)
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from roblox_ml_core.names import triton_name
from roblox_ml_core.package import ModelPackage

from ..backends import FOLDER as BACKENDS
from ..backends import MODEL_FILES, SUPPORT_FILES
from .config import BATCH_SUFFIX, Options, batch_config, public_config
from .warmup import WARMUP_FOLDER, warmup_files

__all__ = ["MARKER", "Materialised", "materialise", "materialised", "remove"]

MARKER = "rml.json"


@dataclass(frozen=True, slots=True)
class Materialised:
    """A version as it lies in the repository."""

    name: str  # the public Triton model
    digest: str  # of the package
    instances: int  # stub processes Triton starts for it

    @property
    def batch_name(self) -> str:
        return self.name + BATCH_SUFFIX


def materialise(
    package: ModelPackage, repository: Path, name: str, version: int, options: Options | None = None
) -> Materialised:
    """Write both model folders of a version; what lies there already is replaced.

    The batch model's folder takes its place first and the public one last, so that whatever this process's end leaves behind
    is either complete or has no public model.
    """
    chosen = options or Options()
    public = triton_name(name, version)
    result = Materialised(public, package.digest, chosen.instances)

    def write_batch(folder: Path) -> None:
        code = folder / str(version)
        code.mkdir()
        (folder / "config.pbtxt").write_text(batch_config(package, name, version, chosen), encoding="utf-8")
        shutil.copyfile(BACKENDS / MODEL_FILES[package.format], code / "model.py")
        for support in SUPPORT_FILES[package.format]:
            shutil.copyfile(BACKENDS / support, code / support)
        for file, data in warmup_files(package).items():
            (folder / WARMUP_FOLDER).mkdir(exist_ok=True)
            (folder / WARMUP_FOLDER / file).write_bytes(data)
        # Links, because a package can be gigabytes; its files are never written again.
        shutil.copytree(package.root, code / "package", copy_function=link_or_copy)

    def write_public(folder: Path) -> None:
        (folder / str(version)).mkdir()
        (folder / "config.pbtxt").write_text(public_config(package, name, version), encoding="utf-8")
        (folder / MARKER).write_text(json.dumps(asdict(result), sort_keys=True), encoding="utf-8")

    remove(repository, public)
    _appear(repository / result.batch_name, write_batch)
    _appear(repository / public, write_public)
    return result


def materialised(repository: Path, public: str) -> Materialised | None:
    """What the repository holds under a public name; None when nothing complete does."""
    try:
        marker = json.loads((repository / public / MARKER).read_text(encoding="utf-8"))
        found = Materialised(str(marker["name"]), str(marker["digest"]), int(marker["instances"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if (repository / found.batch_name / "config.pbtxt").is_file() else None


def remove(repository: Path, public: str) -> None:
    """Take a version out of the repository; the public folder goes first, as it came last."""
    for name in (public, public + BATCH_SUFFIX):
        folder = repository / name
        if folder.exists():
            grave = repository / f".{name}.{uuid.uuid4().hex[:8]}.gone"
            folder.rename(grave)
            shutil.rmtree(grave, ignore_errors=True)


def link_or_copy(source: str, target: str) -> None:
    """A hard link, or a copy where the two places do not share a disk."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _appear(target: Path, write: Callable[[Path], None]) -> None:
    """Fill a temporary neighbour and give it the name in one step. The dot keeps half a folder out of Triton's sight."""
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.new")
    draft.mkdir(parents=True)
    try:
        write(draft)
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
