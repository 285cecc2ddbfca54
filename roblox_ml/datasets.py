"""Named data sets: a folder with a name, integer versions and a digest. `rml.datasets.add("comments", "folder")`.

A version is a record (`$RML_HOME/datasets/<name>/<n>.json`) that points at a manifest in the blob store; the digest is the
sha256 of that manifest, so the same files have the same digest on every machine, and steps that read them hit the cache.
"""

from __future__ import annotations

import builtins
import difflib
import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ._sources import store_source
from ._store import BlobMissing, digest_of, home, open_store
from .errors import DatasetError

__all__ = ["DatasetFile", "DatasetRef", "add", "get", "list", "remove", "resolve", "versions"]

SCHEMA = 1
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_REMOVED = ".removed"  # an empty file `<n>.removed` keeps a number from being given twice


@dataclass(frozen=True, slots=True)
class DatasetFile:
    """One file of a data set."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class DatasetRef:
    """One version of a named data set. `files` maps relative paths to digests and sizes (bytes)."""

    name: str
    version: int
    digest: str
    files: Mapping[str, DatasetFile]
    size: int
    created: str
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The files as a read-only folder on this machine, each verified when it is laid down. Shared: never write here."""
        folder = home() / "cache" / "datasets" / self.digest
        if not _is_whole(folder, self.files):
            _materialise(folder, self)
        return folder

    @property
    def blobs(self) -> tuple[str, ...]:
        """Digests of everything this version needs in a blob store: its manifest and its files."""
        return (self.digest, *sorted({file.sha256 for file in self.files.values()}))

    def __repr__(self) -> str:
        return f"DatasetRef({self.name!r}, version={self.version}, digest={self.digest[:12]!r}, {len(self.files)} files, {self.size} bytes)"

    def _repr_html_(self) -> str:
        from ._preview import dataset_html

        return dataset_html(self)


def add(name: str, source: Any, *, description: str = "", tags: Mapping[str, str] | None = None) -> DatasetRef:
    """Store `source` (a file, a folder, a data frame, or relative paths → bytes) as the next version of `name`.

    Adding what the newest version already holds returns that version. Safe from many processes at once.
    """
    _check_name(name)
    store = open_store()
    files = store_source(source, store)
    manifest = _manifest(files)
    digest = store.put(manifest)
    with _exclusive(name) as folder:
        numbers = _numbers(folder)
        newest = _load(name, numbers[-1]) if numbers else None
        if newest is not None and newest.digest == digest:
            if (not description or description == newest.description) and (tags is None or dict(tags) == newest.tags):
                return newest
            number, created = newest.version, newest.created
            description = description or newest.description
            tags = newest.tags if tags is None else tags
        else:
            number, created = _next(folder), datetime.now(UTC).isoformat(timespec="seconds")
        ref = DatasetRef(
            name,
            number,
            digest,
            {path: DatasetFile(**entry) for path, entry in files.items()},
            sum(entry["size"] for entry in files.values()),
            created,
            description,
            dict(tags or {}),
        )
        _write(folder / f"{number}.json", ref)
    if newest is None or newest.version != number:
        _tell(ref)
    return ref


def _tell(ref: DatasetRef) -> None:
    """A control plane elsewhere cannot watch this home's folder: tell it, for pipelines that wait for the data set."""
    if not os.environ.get("RML_CONTROL_URL"):
        return
    import warnings

    from ._runtime.control import ControlPlane
    from .errors import RmlSdkError

    try:
        body = {"kind": "dataset", "subject": ref.name, "version": ref.version}
        ControlPlane().call("POST", "/v1/occurrences", body)
    except RmlSdkError as error:
        warnings.warn(f"pipelines that wait for data set {ref.name!r} were not told of it: {error}", stacklevel=3)


def get(name: str, version: int | None = None) -> DatasetRef:
    """A version of a data set; the newest one unless `version` says otherwise."""
    _check_name(name)
    numbers = _numbers(_folder(name))
    if not numbers:
        near = difflib.get_close_matches(name, _names(), n=1)
        known = ", ".join(_names()) or "none yet"
        raise DatasetError(
            f"no data set {name!r}",
            why=f"known: {known}",
            fix=f"did you mean {near[0]!r}?" if near else f'add it: rml.datasets.add("{name}", "file or folder")',
        )
    if version is None:
        return _load(name, numbers[-1])
    if version not in numbers:
        raise DatasetError(
            f"data set {name!r} has no version {version}",
            why=f"its versions: {', '.join(map(str, numbers))}",
            fix=f'rml.dataset("{name}", version={numbers[-1]}) is the newest',
        )
    return _load(name, version)


resolve = get


def list() -> builtins.list[DatasetRef]:
    """The newest version of every data set, by name."""
    return [_load(name, _numbers(_folder(name))[-1]) for name in _names()]


def versions(name: str) -> builtins.list[DatasetRef]:
    """Every version of a data set, oldest first."""
    get(name)
    return [_load(name, number) for number in _numbers(_folder(name))]


def remove(name: str, version: int | None = None) -> builtins.list[DatasetRef]:
    """Forget a version, or the whole data set; what was forgotten. The bytes go with the next `rml.gc`.

    A number is never given again: a run's record that says `comments` version 2 stays true.
    """
    gone = [get(name, version)] if version is not None else versions(name)
    with _exclusive(name) as folder:
        for ref in gone:
            (folder / f"{ref.version}{_REMOVED}").touch()
            (folder / f"{ref.version}.json").unlink(missing_ok=True)
    return gone


def _manifest(files: Mapping[str, Mapping[str, Any]]) -> bytes:
    return json.dumps({"files": files}, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _check_name(name: str) -> None:
    if isinstance(name, str) and _NAME.fullmatch(name):
        return
    near = re.sub(r"[^a-z0-9_-]+", "-", str(name).lower()).strip("-_")[:63]
    raise DatasetError(
        f"{name!r} is no name for a data set",
        why="names are lowercase letters, digits, - and _, at most 63, starting with a letter or digit",
        fix=f"for example {near or 'comments'!r}",
    )


def _folder(name: str) -> Path:
    return home() / "datasets" / name


def _names() -> builtins.list[str]:
    folder = home() / "datasets"
    found = sorted(path.name for path in folder.iterdir() if _NAME.fullmatch(path.name)) if folder.is_dir() else []
    return [name for name in found if _numbers(_folder(name))]


def _numbers(folder: Path) -> builtins.list[int]:
    return sorted(int(path.stem) for path in folder.glob("*.json") if path.stem.isdecimal())


def _next(folder: Path) -> int:
    given = [
        int(path.stem) for path in folder.iterdir() if path.suffix in (".json", _REMOVED) and path.stem.isdecimal()
    ]
    return max(given, default=0) + 1


@contextmanager
def _exclusive(name: str) -> Iterator[Path]:
    folder = _folder(name)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield folder


def _write(path: Path, ref: DatasetRef) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps({"schema": SCHEMA, **asdict(ref)}, sort_keys=True, ensure_ascii=False), "utf-8")
    temporary.replace(path)


def _load(name: str, version: int) -> DatasetRef:
    path = _folder(name) / f"{version}.json"
    try:
        row = json.loads(path.read_text("utf-8"))
        if row.pop("schema") != SCHEMA:
            raise ValueError("written by another version of roblox_ml")
        files = row.pop("files")
        ref = DatasetRef(files={key: DatasetFile(**entry) for key, entry in files.items()}, **row)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"the record of data set {name!r} version {version} cannot be read",
            where=str(path),
            why=f"{type(error).__name__}: {error}",
            fix=f'add the data again, or forget the version: rml.datasets.remove("{name}", {version})',
        ) from None
    if digest_of(_manifest(files)) != ref.digest:
        raise DatasetError(
            f"the record of data set {name!r} version {version} was changed",
            where=str(path),
            why="its files do not have the digest it names",
            fix="restore the file, or add the data again",
        )
    return ref


def _is_whole(folder: Path, files: Mapping[str, DatasetFile]) -> bool:
    """Whether every file lies there in its length (the folder appears whole; this tells what was deleted since)."""
    try:
        return all((folder / name).stat().st_size == file.size for name, file in files.items())
    except OSError:
        return False


def _materialise(folder: Path, ref: DatasetRef) -> None:
    store = open_store()
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".incoming-", dir=folder.parent))
    try:
        for name, file in ref.files.items():
            store.copy_to(file.sha256, work / name, link=True)
        if folder.exists():  # somebody removed a file from it
            folder.rename(work.with_name(f"{work.name}-old"))
        work.chmod(0o755)
        work.rename(folder)
    except BlobMissing as error:
        raise DatasetError(f"bytes of {ref!r} are missing", why=str(error), fix="add the data again") from None
    except OSError:
        if not _is_whole(folder, ref.files):  # unless another process was faster
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
        shutil.rmtree(work.with_name(f"{work.name}-old"), ignore_errors=True)
