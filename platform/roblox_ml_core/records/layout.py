"""Where records lie: ``<url>/<stream>/endpoint=<e>/date=YYYY-MM-DD/<door>-<sequence>.parquet``, in a folder or a bucket.

Readers and maintenance see only names of that form: what is being written has a name that begins with a dot.
"""

from __future__ import annotations

import contextlib
import os
import re
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from ..errors import Invalid

__all__ = ["DataFile", "Layout", "day_of", "day_text", "file_name"]

_EPOCH = date(1970, 1, 1)
_NAME = re.compile(r"(?P<door>[A-Za-z0-9][A-Za-z0-9._~-]*)-(?P<sequence>[0-9]{12,})\.parquet\Z")
_DATE = re.compile(r"date=(\d{4}-\d{2}-\d{2})\Z")
_PARTITION = re.compile(r"endpoint=([a-z0-9_][a-z0-9-]{0,62})\Z")


def day_text(day: int) -> str:
    """A day since 1970 as YYYY-MM-DD."""
    return (_EPOCH + timedelta(days=day)).isoformat()


def day_of(moment: datetime | date | float) -> int:
    """The day since 1970 (UTC) of a moment; a naive `datetime` is UTC, a number seconds since 1970."""
    if isinstance(moment, datetime):
        moment = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC).date()
    elif not isinstance(moment, date):
        moment = datetime.fromtimestamp(moment, UTC).date()
    return (moment - _EPOCH).days


def file_name(door: str, sequence: int) -> str:
    return f"{door}-{sequence:012d}.parquet"


class DataFile(NamedTuple):
    """One finished file. `path` is what the layout's methods take."""

    path: str
    endpoint: str
    day: int
    door: str
    sequence: int
    size: int


class Layout:
    """The records at a URL, through fsspec; a local folder without it."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        parts = urlsplit(self.url)
        self.local: Path | None = None
        self._fs: Any = None
        if parts.scheme in ("", "file"):
            self.local = Path(os.path.abspath(unquote(parts.path) if parts.scheme else self.url))  # noqa: PTH100
            self._root = str(self.local)
        elif parts.scheme in ("http", "https"):
            raise Invalid(
                f"records cannot be at {url}", hint="RML_RECORDS is a folder or a bucket: s3://bucket/records"
            )
        else:
            import fsspec

            from ..storage import _s3_options

            self._fs, self._root = fsspec.core.url_to_fs(self.url, **(_s3_options() if parts.scheme == "s3" else {}))

    @property
    def filesystem(self) -> Any:
        """What Arrow needs to read this layout's paths; None for the machine's own files."""
        return self._fs

    def path(self, *parts: str) -> str:
        return "/".join((self._root, *parts))

    def partition(self, stream: str, endpoint: str, day: int) -> str:
        return self.path(stream, f"endpoint={endpoint}", f"date={day_text(day)}")

    def files(
        self, stream: str, endpoint: str | None = None, first_day: int | None = None, last_day: int | None = None
    ) -> Iterator[DataFile]:
        """Every finished file of a stream, of one endpoint and of some days (both inclusive) where given."""
        for folder in self._folders(self.path(stream)):
            at = _PARTITION.search(folder)
            if at is None or (endpoint is not None and at[1] != endpoint):
                continue
            for dated in self._folders(folder):
                found = _DATE.search(dated)
                if found is None:
                    continue
                day = (date.fromisoformat(found[1]) - _EPOCH).days
                if (first_day is not None and day < first_day) or (last_day is not None and day > last_day):
                    continue
                for path, size in self._listed(dated):
                    if name := _NAME.match(path.rsplit("/", 1)[-1]):
                        yield DataFile(path, at[1], day, name["door"], int(name["sequence"]), size)

    def accounts(self) -> Iterator[str]:
        """The accounts that doors have left."""
        for path, _ in self._listed(self.path("accounts")):
            if path.endswith((".json", ".counters")) and not path.rsplit("/", 1)[-1].startswith("."):
                yield path

    # -- bytes -----------------------------------------------------------------------------------------------------

    def read_bytes(self, path: str) -> bytes:
        if self._fs is None:
            return Path(path).read_bytes()
        return bytes(self._fs.cat_file(path))

    def put(self, path: str, data: bytes) -> None:
        """`path` holds `data`, or what it held before: never a part. Survives a loss of power once it returns."""
        if self._fs is not None:
            self._fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
            if "s3" in self._fs.protocol:
                self._fs.pipe_file(path, data)  # an object appears whole
                return
            draft = f"{path.rsplit('/', 1)[0]}/.{uuid.uuid4().hex}"
            self._fs.pipe_file(draft, data)
            self._fs.mv(draft, path)
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft_path = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
        try:
            handle = os.open(draft_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "wb", buffering=0) as stream:
                view = memoryview(data)
                while view:  # a raw write may take a part: what is left tells a full disk by its error
                    view = view[stream.write(view) :]
                os.fsync(stream.fileno())
            draft_path.replace(target)
        except BaseException:
            draft_path.unlink(missing_ok=True)
            raise
        with contextlib.suppress(OSError):  # the file is there: to call it missing would have its rows written twice
            folder = os.open(target.parent, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def delete(self, path: str) -> None:
        """Remove a file; one that is gone already is fine."""
        if self._fs is None:
            Path(path).unlink(missing_ok=True)
            return
        try:
            self._fs.rm_file(path)
        except FileNotFoundError:
            return

    def prune(self) -> None:
        """Remove empty folders of dates (buckets have none)."""
        if self.local is None:
            return
        for folder in self.local.glob("*/endpoint=*/date=*"):
            try:
                folder.rmdir()
            except OSError:
                continue  # not empty

    def remove_drafts(self, door: str) -> None:
        """Remove what this door was writing when it ended."""
        if self.local is not None:
            for path in self.local.glob(f"*/endpoint=*/date=*/.{door}-*"):
                path.unlink(missing_ok=True)

    # -- listing ---------------------------------------------------------------------------------------------------

    def _folders(self, path: str) -> list[str]:
        if self._fs is None:
            try:
                with os.scandir(path) as entries:
                    return sorted(entry.path for entry in entries if entry.is_dir())
            except FileNotFoundError:
                return []
        return sorted(info["name"] for info in self._ls(path) if info["type"] == "directory")

    def _listed(self, path: str) -> list[tuple[str, int]]:
        if self._fs is None:
            found = []
            try:
                with os.scandir(path) as entries:
                    for entry in entries:
                        try:
                            found.append((entry.path, entry.stat().st_size))
                        except FileNotFoundError:  # deleted just now
                            continue
            except FileNotFoundError:
                return []
            return sorted(found)
        return sorted((info["name"], int(info["size"] or 0)) for info in self._ls(path) if info["type"] == "file")

    def _ls(self, path: str) -> list[dict[str, Any]]:
        try:
            return list(self._fs.ls(path, detail=True))
        except FileNotFoundError:
            return []
