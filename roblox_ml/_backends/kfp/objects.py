"""The object store that Kubeflow's launcher writes to: where a step's artifacts and its kept log lie, and a copy of them here.

The layout is the launcher's: `<root>/<pipeline>/<run>/<task>/<attempt>/<artifact>`. Access is by the usual variables (AWS_ACCESS_KEY_ID,
AWS_ENDPOINT_URL …): the server has keys of its own and lends them to nobody.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from ..._store import home
from ...errors import MissingExtra, RunError

if TYPE_CHECKING:
    from .run import RemoteRun

__all__ = ["attempts", "fetch", "kept_log", "kept_logs", "reachable", "root_of"]

DEFAULT_ROOT = "minio://mlpipeline/v2/artifacts"
LOG = "executor-logs"


def root_of(run: RemoteRun) -> str:
    """The run's pipeline root: its own, the connection's, or what Kubeflow uses when nobody says otherwise."""
    own = (run._fixed().get("runtime_config") or {}).get("pipeline_root")
    return str(own or run._connection.pipeline_root or DEFAULT_ROOT).rstrip("/")


def reachable(uri: str) -> bool:
    """Whether it is worth asking: a folder, or a store that somebody gave us keys for."""
    return _is_local(uri) or bool(os.environ.get("AWS_ACCESS_KEY_ID") or os.environ.get("AWS_PROFILE"))


def attempts(run: RemoteRun, task: str) -> list[str]:
    """The folders of a step's executions, oldest first."""
    files, folder = _open("/".join([root_of(run), run.pipeline, run.id, task]))
    if not files.isdir(folder):
        return []
    listed = [entry for entry in files.ls(folder, detail=True) if entry["type"] == "directory"]
    # An object store's folders have no time; the log in them has.
    return sorted((str(e["name"]) for e in listed), key=lambda name: (_modified(files, name), name))


def kept_log(run: RemoteRun, task: str, index: int = -1) -> str | None:
    """The log that the launcher kept of a step's execution (the last one, unless `index` says which)."""
    found = attempts(run, task)
    if not found:
        return None
    return _log_in(run, found[index] if -len(found) <= index < len(found) else found[-1])


def kept_logs(run: RemoteRun, task: str) -> Iterator[str]:
    """The logs that the launcher kept of all executions of a step, oldest first."""
    found = (_log_in(run, folder) for folder in attempts(run, task))
    return (log for log in found if log is not None)


def _log_in(run: RemoteRun, folder: str) -> str | None:
    files, _ = _open(root_of(run))
    path = f"{folder.rstrip('/')}/{LOG}"
    return files.cat_file(path).decode("utf-8", "replace") if files.isfile(path) else None


def fetch(uri: str) -> Path:
    """The artifact at `uri` as a folder or file on this machine: itself when it is here, else a copy, made once."""
    if _is_local(uri):
        return Path(_local(uri))
    target = home() / "cache" / "artifacts" / hashlib.sha256(uri.encode()).hexdigest()
    if target.exists():
        return target
    files, path = _open(uri)
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=target.parent, prefix=".new-"))
    try:
        copy = fresh / "data"
        files.get(path, str(copy), recursive=files.isdir(path))
        # Complete or not there: a copy that was cut off must not be taken for the artifact.
        copy.rename(target)
    except (OSError, ValueError) as error:
        raise RunError(
            f"the artifact {uri} could not be copied here: {error}",
            why="it is in the cluster's object store",
            fix="set AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to keys that may read it",
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return target


def _open(uri: str) -> tuple[Any, str]:
    """A file system and the path in it."""
    try:
        import fsspec
    except ModuleNotFoundError as error:
        raise MissingExtra("fsspec is not installed", fix='pip install "roblox-ml[kfp]"') from error
    if _is_local(uri):
        return fsspec.filesystem("file"), _local(uri)
    parts = urlsplit(uri)
    # `minio://` is Kubeflow's word for S3 at an address of its own.
    scheme = "s3" if parts.scheme == "minio" else parts.scheme
    options: dict[str, Any] = {}
    if scheme == "s3" and (endpoint := os.environ.get("AWS_ENDPOINT_URL")):
        options = {
            "endpoint_url": endpoint,
            "config_kwargs": {"s3": {"addressing_style": "path"}},
            "use_listings_cache": False,
        }
    return fsspec.filesystem(scheme, **options), f"{parts.netloc}{parts.path}"


def _modified(files: Any, folder: str) -> float:
    try:
        return float(files.modified(f"{folder.rstrip('/')}/{LOG}").timestamp())
    except (OSError, NotImplementedError):
        return 0.0


def _is_local(uri: str) -> bool:
    return uri.startswith(("file:", "/"))


def _local(uri: str) -> str:
    return unquote(urlsplit(uri).path) if uri.startswith("file:") else uri
