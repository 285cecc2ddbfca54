"""Many small files of a day to few: doors write every few seconds, and whoever reads a month would open half a million files.

The merged file names what it replaces, and readers leave those out. So there is no moment at which a row is there twice or not at
all, and whoever is interrupted leaves nothing that the next one does not finish.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from .layout import DataFile, Layout, file_name
from .maintenance import only_one
from .schema import STREAMS

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["MERGED", "merge", "without_replaced"]

#: The "door" of merged files. No door can be called so.
MERGED = "merged~"
_LEAST, _MOST_BYTES = 8, 64 << 20
_Key = tuple[str, str]


def without_replaced(layout: Layout, files: Iterable[DataFile]) -> list[DataFile]:
    """Those whose rows are in no merged file beside them."""
    found = list(files)
    gone = {path for file in found if file.door == MERGED for path in _replaced(layout, file)}
    return [file for file in found if file.path not in gone] if gone else found


def merge(url: str, *, min_files: int = _LEAST, wait: bool = False) -> int:
    """Merge small files of the same folder, data class and retention; returns how many files there are fewer.

    Only in a folder: in a bucket nothing keeps two from merging the same.

    Raises:
        Conflict: another maintenance is under way, and `wait` is False.
    """
    layout = Layout(url)
    if layout.local is None:
        return 0
    fewer = 0
    with only_one(layout, wait=wait):
        for stream in STREAMS:
            files = list(layout.files(stream))
            fewer += _finish(layout, files)
            files = without_replaced(layout, list(layout.files(stream)))
            # A door that was killed tells by its newest file how many rows it had written.
            newest = {file.door: file.sequence for file in sorted(files, key=lambda file: file.sequence)}
            folders: dict[tuple[str, int], list[DataFile]] = {}
            for file in files:
                if file.size < _MOST_BYTES // 2 and (file.door == MERGED or newest[file.door] != file.sequence):
                    folders.setdefault((file.endpoint, file.day), []).append(file)
            for several in folders.values():
                if len(several) >= min_files:
                    fewer += _merge(layout, stream, several, min_files)
    return fewer


def _finish(layout: Layout, files: Sequence[DataFile]) -> int:
    """Delete what an interrupted merge has replaced and left."""
    here = {file.path for file in files}
    left = {path for file in files if file.door == MERGED for path in _replaced(layout, file)} & here
    for path in left:
        layout.delete(path)
    return len(left)


def _merge(layout: Layout, stream: str, files: Sequence[DataFile], min_files: int) -> int:
    from .tables import metadata_of

    alike: dict[_Key, list[DataFile]] = {}
    for file in files:
        about = metadata_of(layout, file.path)
        alike.setdefault((about.get("rml.data_class", ""), about.get("rml.retention_days", "")), []).append(file)
    fewer = 0
    for (data_class, retention), several in alike.items():
        kept = {"rml.data_class": data_class, "rml.retention_days": retention}
        parts: list[list[DataFile]] = [[]]
        for file in sorted(several, key=lambda file: file.sequence):
            if sum(one.size for one in parts[-1]) + file.size > _MOST_BYTES:
                parts.append([])
            parts[-1].append(file)
        fewer += sum(_write(layout, stream, part, kept) for part in parts if len(part) >= min_files)
    return fewer


def _write(layout: Layout, stream: str, files: Sequence[DataFile], about: Mapping[str, str]) -> int:
    from .tables import to_parquet

    first = files[0]
    described = {
        "rml.stream": stream, "rml.endpoint": first.endpoint, "rml.door": MERGED, **about,
        "rml.replaces": ",".join(file.path.rsplit("/", 1)[-1] for file in files),
    }  # fmt: skip
    name = file_name(MERGED, time.time_ns())
    layout.put(f"{first.path.rsplit('/', 1)[0]}/{name}", to_parquet(_rows(stream, files), described))
    for file in files:
        layout.delete(file.path)
    return len(files) - 1


def _rows(stream: str, files: Sequence[DataFile]) -> pa.Table:
    import pyarrow.dataset as ds

    return ds.dataset([file.path for file in files], schema=STREAMS[stream].arrow(), format="parquet").to_table()


def _replaced(layout: Layout, file: DataFile) -> list[str]:
    from .tables import metadata_of

    folder = file.path.rsplit("/", 1)[0]
    names = metadata_of(layout, file.path).get("rml.replaces", "")
    return [f"{folder}/{name}" for name in names.split(",") if name]
