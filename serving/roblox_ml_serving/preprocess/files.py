"""The files of preprocessing on the door's disk: `$RML_HOME/serving/preprocess/<sha256>`.

They are fetched once from the blob store and stay, so that a door that restarts while the control plane and the store are
away answers as before. What no snapshot speaks of any more is removed after a while.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection
from pathlib import Path

from roblox_ml_core.digests import sha256_file
from roblox_ml_core.storage import BlobStore

from .spec import Spec

__all__ = ["Files"]

_KEEP_S = 7 * 24 * 3600.0


class Files:
    """A folder of blobs by digest, filled from a store. Safe to share between doors of one home."""

    def __init__(self, folder: Path, store: BlobStore) -> None:
        self._folder = folder
        self._store = store
        self._verified: set[str] = set()

    def paths(self, spec: Spec) -> dict[str, Path] | None:
        """The files of `spec` by their path in the package, or None while one of them is missing or damaged."""
        found = {path: self._folder / digest for path, digest in spec.files}
        return found if all(self._has(digest) for _, digest in spec.files) else None

    def fetch(self, spec: Spec) -> None:
        """Bring what is missing. Blocking: call it in a thread.

        Raises:
            RmlError: the store does not have it, or cannot be reached.
        """
        for _, digest in spec.files:
            if not self._has(digest):
                self._store.get_file(digest, self._folder / digest)
                self._verified.add(digest)

    def sweep(self, specs: Collection[Spec]) -> None:
        """Remove what none of `specs` has and nobody has used for a week; mark the others as used."""
        wanted = {digest for spec in specs for _, digest in spec.files}
        limit = time.time() - _KEEP_S
        with contextlib.suppress(OSError):
            for path in self._folder.iterdir():
                with contextlib.suppress(OSError):
                    if path.name in wanted:
                        path.touch()
                    elif path.stat().st_mtime < limit:
                        path.unlink()
                        self._verified.discard(path.name)

    def _has(self, digest: str) -> bool:
        path = self._folder / digest
        if digest in self._verified:
            return path.is_file()
        try:
            intact = sha256_file(path) == digest
        except OSError:
            return False
        if intact:
            self._verified.add(digest)
        return intact
