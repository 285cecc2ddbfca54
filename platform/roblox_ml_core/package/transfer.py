"""A package between a directory and the blob store: a manifest (path -> digest, size) and one blob per file.

`materialise` is the only way bytes of a registered model reach a disk, and it refuses them unless every digest agrees.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path

from ..digests import FileEntry, is_digest, tree
from ..errors import IntegrityError, PackageError
from ..storage import BlobStore
from .layout import METRICS, PACKAGE, ModelPackage, check_path, read, verify

__all__ = ["check_manifest", "manifest", "materialise", "upload"]


def manifest(root: Path) -> dict[str, FileEntry]:
    """Every file of a package with digest and size: what is registered, package.json and metrics.json included."""
    read(root)
    return tree(root)


def check_manifest(files: Mapping[str, FileEntry], info: Mapping[str, object]) -> list[str]:
    """What a manifest and a package.json disagree about; empty when the one lists exactly the files of the other."""
    found = []
    for path, entry in files.items():
        try:
            check_path(path)
        except PackageError as error:
            found.append(error.message)
        if not is_digest(entry["sha256"]) or entry["size"] < 0:
            found.append(f"{path[:120]!r} has no sha256 and size")
    listed = info.get("files")
    listed = listed if isinstance(listed, dict) else {}
    if PACKAGE not in files:
        found.append(f"the manifest lacks {PACKAGE}")
    for path, entry in listed.items():
        if path not in files:
            found.append(f"{path} is in {PACKAGE} but not in the manifest")
        elif dict(files[path]) != {"sha256": entry["sha256"], "size": entry["size"]}:
            found.append(f"{path} differs between {PACKAGE} and the manifest")
    extra = sorted(set(files) - set(listed) - {PACKAGE, METRICS})
    found += [f"{path} is in the manifest but not in {PACKAGE}" for path in extra]
    return found


def upload(root: Path, store: BlobStore) -> dict[str, FileEntry]:
    """Put every file of the (verified) package in `root` into the store; returns the manifest."""
    verify(root)
    files = manifest(root)
    for path, entry in files.items():
        store.put_file(root / path, entry["sha256"])
    return files


def materialise(
    files: Mapping[str, FileEntry], store: BlobStore, target: Path, digest: str | None = None
) -> ModelPackage:
    """Write the package of a manifest to `target`, which appears complete and verified or not at all.

    A `target` that already holds the intact package is left as it is; one that holds anything else is an error, since its
    files may be in use. `digest` is the package digest that the caller was promised.
    """
    for path in files:
        check_path(path)
    if target.exists():
        return _existing(target, digest)
    draft = target.with_name(f".{target.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
    try:
        for path, entry in files.items():
            store.get_file(entry["sha256"], draft / path)
            if (size := (draft / path).stat().st_size) != entry["size"]:
                raise IntegrityError(f"{path} has {size} bytes, the manifest says {entry['size']}")
        verify(draft, digest)
        try:
            draft.rename(target)
        except OSError:
            if not target.exists():
                raise
            return _existing(target, digest)  # somebody else finished first
        return read(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _existing(target: Path, digest: str | None) -> ModelPackage:
    try:
        return verify(target, digest)
    except PackageError as error:
        raise PackageError(
            f"{target} exists and is not the wanted package: {error.message}",
            hint="remove that directory or choose another one",
        ) from error
