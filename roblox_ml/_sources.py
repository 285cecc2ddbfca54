"""What a data set may be made of (a file, a folder, a data frame, bytes), read into the blob store.

Everything that cannot be stored is found in one walk and told at once: links that leave the folder, sockets, files nobody
may read.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ._artifacts import Artifact
from ._store import Store
from .errors import DatasetError

__all__ = ["FRAME_FILE", "store_source"]

FRAME_FILE = "data.parquet"
_SHOWN = 20


def store_source(source: Any, store: Store) -> dict[str, dict[str, Any]]:
    """Put every file of `source` into the store; the manifest's `files`: relative path → sha256 and size."""
    if isinstance(source, Artifact):
        source = source.path
    if isinstance(source, str | os.PathLike):
        return _stored_path(Path(source).expanduser(), store)
    if isinstance(source, Mapping):
        return _stored_bytes(source, store)
    if hasattr(source, "to_parquet") or hasattr(source, "write_parquet"):
        return _stored_bytes({FRAME_FILE: _parquet(source)}, store)
    raise DatasetError(
        f"a data set cannot be made of a {type(source).__name__}",
        why="it is files with digests, the same on every machine",
        fix="pass a file, a folder, a data frame, or a mapping of relative paths to bytes",
    )


def _stored_path(path: Path, store: Store) -> dict[str, dict[str, Any]]:
    if not path.exists():
        raise DatasetError(
            f"no file or folder {path}",
            why=f"looked from {Path.cwd()}" if not path.is_absolute() else "",
            fix="check the path (relative ones start at the notebook's folder)",
        )
    if not path.is_dir():
        found = [(path.name, path)]
    else:
        problems: list[str] = []
        found = sorted(_walk(path, path.resolve(), problems))
        if problems:
            shown = [*problems[:_SHOWN], *([f"… {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else [])]
            raise DatasetError(
                f"{len(problems)} entries of {path} cannot be stored:\n    " + "\n    ".join(shown),
                why="a data set must be whole by itself on any machine",
                fix="replace links by the files they point to, and remove what is no file",
            )
        if not found:
            raise DatasetError(f"{path} is empty", why="a data set has at least one file", fix="check the path")
    try:
        return {name: _stored_file(file, store) for name, file in found}
    except (FileNotFoundError, PermissionError) as error:
        raise DatasetError(
            f"{error.filename} cannot be read",
            why=f"{error.strerror}; it may have changed while it was added",
            fix="check the file and its mode, then add the data again",
        ) from None


def _stored_file(file: Path, store: Store) -> dict[str, Any]:
    digest = store.put_file(file)
    # The stored bytes' own size: the file may have grown since.
    size = store.path_of(digest).stat().st_size if store.folder else file.stat().st_size
    return {"sha256": digest, "size": size}


def _walk(folder: Path, root: Path, problems: list[str]) -> Iterator[tuple[str, Path]]:
    for directory, names, files in os.walk(folder):
        for name in sorted([*files, *names]):
            path = Path(directory) / name
            relative = path.relative_to(folder).as_posix()
            if path.is_symlink():
                target = path.resolve()
                if not target.exists():
                    problems.append(f"{relative}: a link to nothing")
                elif not target.is_relative_to(root):
                    problems.append(f"{relative}: a link out of the folder")
                elif target.is_dir():
                    problems.append(f"{relative}: a link to a folder")
                else:
                    yield relative, path
                continue
            mode = path.stat().st_mode
            if stat.S_ISREG(mode):
                if not os.access(path, os.R_OK):
                    problems.append(f"{relative}: no permission to read")
                yield relative, path
            elif not stat.S_ISDIR(mode):
                problems.append(f"{relative}: neither file nor folder")
            elif not os.access(path, os.R_OK | os.X_OK):
                problems.append(f"{relative}: no permission to read the folder")


def _stored_bytes(files: Mapping[Any, Any], store: Store) -> dict[str, dict[str, Any]]:
    if not files:
        raise DatasetError("the mapping is empty", why="a data set has at least one file")
    bad = [
        repr(name)
        for name, data in files.items()
        if not _is_relative(name) or not isinstance(data, bytes | bytearray | memoryview)
    ]
    if bad:
        raise DatasetError(
            f"these entries are no files: {', '.join(bad[:_SHOWN])}",
            why="a mapping has relative paths (no .., no leading /) as keys and bytes as values",
            fix='for example {"train.csv": text.encode()}',
        )
    stored = {}
    for name in sorted(files):
        data = bytes(files[name])
        stored[name] = {"sha256": store.put(data), "size": len(data)}
    return stored


def _is_relative(name: Any) -> bool:
    if not isinstance(name, str) or not name or "\\" in name or "\0" in name:
        return False
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and path.as_posix() == name and name != "."


def _parquet(frame: Any) -> bytes:
    sink = io.BytesIO()
    try:
        if hasattr(frame, "write_parquet"):  # polars
            frame.write_parquet(sink)
        else:
            frame.to_parquet(sink)
    except Exception as error:
        raise DatasetError(
            "the data frame cannot be written as Parquet",
            why=f"{type(error).__name__}: {error}",
            fix="give columns text names and one type each, or save the frame yourself and pass the file",
        ) from error
    return sink.getvalue()
