"""``rml:/<name>/<version>@<digest>`` as an MLflow artifact URI: MLflow knows the version, the bytes stay in the blob store.

Installed as the `mlflow.artifact_repository` entry point `rml`, so ``mlflow.pyfunc.load_model("models:/name@champion")``
downloads from our store and verifies every digest. `register_scheme` does the same for a process without entry points.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlflow.entities import FileInfo
from mlflow.store.artifact.artifact_repo import ArtifactRepository

from ..errors import Invalid
from ..names import Reference, parse_reference
from ..registry import RegistryClient
from ..settings import HomeSettings
from ..storage import BlobStore
from .layout import check_path
from .transfer import materialise

__all__ = ["RmlArtifactRepository", "register_scheme", "source_uri"]

_SCHEME = "rml:/"


def source_uri(name: str, version: int, digest: str) -> str:
    """The source of the MLflow model version that stands for ours."""
    return f"{_SCHEME}{Reference(name, version=version, digest=digest)}"


def register_scheme() -> None:
    """Make `rml:` known to MLflow in this process."""
    from mlflow.store.artifact.artifact_repository_registry import _artifact_repository_registry

    _artifact_repository_registry.register("rml", RmlArtifactRepository)


class RmlArtifactRepository(ArtifactRepository):  # type: ignore[misc]  # MLflow is not typed here
    """Read-only: packages enter the store through registration."""

    def __init__(self, artifact_uri: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(artifact_uri, *args, **kwargs)
        if not artifact_uri.startswith(_SCHEME):
            raise Invalid(
                f"{artifact_uri!r} is not an rml: URI", hint="it looks like rml:/comment-sentiment/3@<digest>"
            )
        self._reference = parse_reference(artifact_uri.removeprefix(_SCHEME).strip("/"))
        if self._reference.version is None:
            raise Invalid(f"{artifact_uri!r} names no version", hint="it looks like rml:/comment-sentiment/3@<digest>")

    def _detail(self) -> dict[str, Any]:
        with RegistryClient() as client:
            detail = client.version(self._reference.name, self._reference.version or 0)
        if self._reference.digest not in (None, detail["digest"]):
            raise Invalid(
                f"{self._reference} is registered with another digest ({detail['digest']})",
                hint="MLflow's copy of the registry is out of date or was edited; compare with `rml models show`",
            )
        return detail

    def _store(self) -> BlobStore:
        home = HomeSettings()
        return BlobStore(home.store_url, token=home.read_token())

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        prefix = f"{path.strip('/')}/" if path else ""
        found: dict[str, FileInfo] = {}
        for name, entry in self._detail()["manifest"].items():
            if name.startswith(prefix):
                head, slash, _ = name[len(prefix) :].partition("/")
                size = None if slash else entry["size"]
                found[prefix + head] = FileInfo(prefix + head, bool(slash), size)
        return [found[name] for name in sorted(found)]

    def download_artifacts(self, artifact_path: str, dst_path: str | None = None) -> str:
        """The whole package is fetched and verified, whichever part is asked for: a part alone could not be verified."""
        detail = self._detail()
        if not dst_path:
            import tempfile

            dst_path = tempfile.mkdtemp(prefix="rml-model-")
        target = Path(dst_path) / detail["digest"]
        materialise(detail["manifest"], self._store(), target, detail["digest"])
        return str(target / check_path(artifact_path) if artifact_path else target)

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        entry = self._detail()["manifest"][remote_file_path]
        self._store().get_file(entry["sha256"], Path(local_path))

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        raise Invalid(
            "a registered package cannot be changed", hint="register a new version: roblox_ml.models.register"
        )

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        self.log_artifact(local_dir, artifact_path)
