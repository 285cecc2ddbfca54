"""`python -m roblox_ml_serving.kserve.fetch rml://name/3@<digest> FOLDER`: a package out of the blob store into a folder.

KServe runs this as a pod's init container. The registry names the files of the version, the store has them by their digest,
and nothing appears in the folder unless all of it is what the reference promises.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from roblox_ml_core.errors import Conflict, Invalid, RmlError
from roblox_ml_core.names import Reference, parse_reference
from roblox_ml_core.package import materialise
from roblox_ml_core.registry import RegistryClient
from roblox_ml_core.settings import HomeSettings
from roblox_ml_core.storage import BlobStore

__all__ = ["fetch", "main", "reference_of"]

SCHEME = "rml://"


def reference_of(uri: str) -> Reference:
    """The version that a URI names. It must be pinned: an alias may have moved by the time the pod restarts."""
    hint = f"write {SCHEME}name/3@<digest>"
    try:
        found = parse_reference(uri.removeprefix(SCHEME)) if uri.startswith(SCHEME) else None
    except Invalid as error:
        raise Invalid(f"{uri!r} names no package: {error.message}", hint=hint) from error
    if found is None or found.digest is None:
        raise Invalid(f"{uri!r} names no package", hint=hint)
    return found


def fetch(uri: str, folder: Path, client: RegistryClient, store: BlobStore) -> None:
    """Fill `folder` (a mount point that exists) with the package of `uri`, verified."""
    wanted = reference_of(uri)
    assert wanted.version is not None and wanted.digest is not None
    known = client.version(wanted.name, wanted.version)
    if known["digest"] != wanted.digest:
        raise Conflict(
            f"{wanted.name}/{wanted.version} has the digest {known['digest']} in the registry, not {wanted.digest}",
            hint="this InferenceService was written for another registry: run `rml manifests` again",
        )
    folder.mkdir(parents=True, exist_ok=True)
    # A restarted init container finds what the first one left.
    for old in folder.iterdir():
        shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as draft:
        package = Path(draft) / "package"
        materialise(known["manifest"], store, package, wanted.digest)
        for part in package.iterdir():
            part.rename(folder / part.name)


def main(arguments: list[str]) -> int:
    """Exit status 1 and the reason on standard error, which KServe shows in the InferenceService's status."""
    if len(arguments) != 2:
        print("usage: python -m roblox_ml_serving.kserve.fetch rml://name/3@<digest> FOLDER", file=sys.stderr)
        return 2
    home = HomeSettings()
    try:
        with RegistryClient(actor="storage-initializer") as client:
            fetch(arguments[0], Path(arguments[1]), client, BlobStore(home.store_url, token=home.read_token()))
    except (RmlError, OSError) as error:
        print(f"cannot fetch {arguments[0]}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
