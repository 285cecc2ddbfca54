"""The package a pod brings with it: fetched by whoever starts the pod, wanted from the start, checked against its digest.

On Kubernetes a package may lie on the disk before the agent runs (a storage initialiser, a node's cache). The agent then
serves it even where no control plane answers, and takes its files from there instead of from the store. That somebody else
wrote them is why they are hashed first: another package than the one that was named is an error, not a model.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from roblox_ml_core.errors import Invalid
from roblox_ml_core.names import parse_reference
from roblox_ml_core.package import manifest, verify
from roblox_ml_core.registry import DesiredModel
from roblox_ml_core.storage import BlobStore

__all__ = ["Seed", "SeededStore", "read_seed"]

# Marks of those who fetch: KServe's initialiser and its caches leave files beside the package.
_BESIDE = frozenset({".done", "SUCCESS", "lost+found"})


@dataclass(frozen=True, slots=True)
class Seed:
    """The wish for the package, and where each of its blobs lies."""

    wish: DesiredModel
    files: Mapping[str, Path]

    def join(self, wishes: Sequence[DesiredModel]) -> tuple[DesiredModel, ...]:
        """All wishes and this one, once."""
        same = (self.wish.model, self.wish.version)
        return (*wishes, *(() if any((w.model, w.version) == same for w in wishes) else (self.wish,)))


def read_seed(folder: Path, reference: str) -> Seed:
    """The package in `folder`, which must be `name/3@<digest>`.

    Raises:
        PackageError: it is another one, or damaged.
        Invalid: the reference names no version with its digest.
    """
    named = parse_reference(reference)
    if named.version is None or named.digest is None:
        raise Invalid(f"{reference!r} cannot say what is in {folder}", hint="write name/3@<digest>")
    package = verify(folder, named.digest, ignore=_BESIDE)
    files = {path: entry for path, entry in manifest(folder).items() if path not in _BESIDE}
    return Seed(
        DesiredModel(named.name, named.version, package.digest, files),
        {entry["sha256"]: folder / path for path, entry in files.items()},
    )


class SeededStore(BlobStore):
    """A blob store that has the seed's blobs at hand."""

    def __init__(self, url: str, seed: Seed | None, *, token: str | None = None) -> None:
        super().__init__(url, token=token)
        self._files = {} if seed is None else seed.files

    @contextlib.contextmanager
    def open(self, digest: str) -> Iterator[BinaryIO]:
        if path := self._files.get(digest):
            with path.open("rb") as stream:
                yield stream
            return
        with super().open(digest) as stream:
            yield stream
