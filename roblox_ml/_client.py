"""The SDK's connection to the control plane and the blob store: opened for one act, errors in the SDK's own words.

The HTTP itself (httpx, loaded on first use) is the client that every service uses; this module adds what a notebook needs:
the local stack is started when nothing answers, and blobs are found whether or not this machine shares the store's folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import _siblings
from ._addresses import control_url, translated
from ._credentials import token_for
from .errors import PackageError

__all__ = ["Connection", "connect"]


@dataclass(frozen=True, slots=True)
class Connection:
    """The control plane's client and the two ways to its blobs: this machine's store, and the control plane itself."""

    registry: Any
    store: Any
    remote: Any

    def upload(self, root: Path) -> dict[str, Any]:
        """Store every file of the package in `root` where the control plane finds it; returns the manifest."""
        files: dict[str, Any] = _siblings.load("roblox_ml_core.package").upload(root, self.store)
        for path, entry in files.items():
            # With the local stack both are one folder, and there is nothing left to send.
            if not self.remote.has(entry["sha256"]):
                self.remote.put_file(root / path, entry["sha256"])
        return files

    def download(self, manifest: Mapping[str, Any], target: Path, digest: str) -> Path:
        """The package at `target`, every byte verified, complete or not at all."""
        if target.is_dir() and not any(target.iterdir()):
            target.rmdir()  # an empty folder that the user made for it
        store = self.holder(entry["sha256"] for entry in manifest.values())
        materialise: Callable[..., Any] = _siblings.load("roblox_ml_core.package").materialise
        return Path(materialise(manifest, store, target, digest).root)

    def blob(self, digest: str) -> bytes | None:
        """A blob's verified bytes, or None where neither store has it."""
        for store in (self.store, self.remote):
            if store.has(digest):
                data: bytes = store.get(digest)
                return data
        return None

    def holder(self, digests: Iterator[str]) -> Any:
        """The store to read from: this machine's when it has all of them."""
        return self.store if all(self.store.has(digest) for digest in digests) else self.remote


@contextmanager
def connect() -> Iterator[Connection]:
    """A connection; starts the local control plane when none answers and no address was set."""
    with translated(), _package_errors():
        settings = _siblings.load("roblox_ml_core.settings")
        storage = _siblings.load("roblox_ml_core.storage")
        url = control_url(start=True)
        token = token_for(url)
        registry = _siblings.load("roblox_ml_core.registry").RegistryClient(url, token)
        home = settings.HomeSettings()
        with registry:
            local = storage.BlobStore(home.store_url, token=token_for(home.store_url))
            yield Connection(registry, local, storage.BlobStore(f"{registry.url}/v1/store", token=token))


@contextmanager
def _package_errors() -> Iterator[None]:
    """A broken package is the package's fault, whoever found it: the control plane or this process."""
    try:
        yield
    except Exception as error:
        if getattr(error, "code", None) not in ("package_invalid", "digest_mismatch"):
            raise
        raise PackageError(str(getattr(error, "message", error)), fix=str(getattr(error, "hint", ""))) from error
