"""Records as tables, for analysis: finished files only, chosen by endpoint and day, then by time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ..errors import Invalid, Unavailable
from .accounts import Accounts, Counters
from .layout import DataFile, Layout, day_of
from .merging import MERGED, without_replaced
from .schema import STREAMS

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Moment", "microseconds", "read", "read_accounts"]

#: A `datetime` (without a zone: UTC), or seconds since 1970.
Moment = datetime | float
_ATTEMPTS = 5


def microseconds(moment: Moment) -> int:
    """A moment as rows carry it."""
    if isinstance(moment, datetime):
        moment = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return round(moment * 1e6)


def read(
    url: str,
    stream: str,
    *,
    endpoint: str | None = None,
    since: Moment | None = None,
    until: Moment | None = None,
    columns: Sequence[str] | None = None,
) -> pa.Table:
    """The rows of a stream with `since <= at < until`, in no particular order; columns as in the schema, or those named.

    Events belong to no endpoint: `endpoint` leaves none of them. A file that cannot be read is an error, not a gap.

    Raises:
        Invalid: there is no such stream or column.
        Unavailable: a file is damaged.
    """
    import pyarrow as pa
    import pyarrow.dataset as ds

    schema = STREAMS.get(stream)
    if schema is None:
        raise Invalid(f"there is no stream {stream!r}", hint=f"there are {', '.join(STREAMS)}")
    wanted = list(schema.names if columns is None else columns)
    if unknown := [name for name in wanted if name not in schema.names]:
        raise Invalid(f"{stream} has no column {', '.join(unknown)}", hint=f"it has {', '.join(schema.names)}")
    chosen = None
    if since is not None:
        chosen = ds.field("at_us") >= microseconds(since)
    if until is not None:
        before = ds.field("at_us") < microseconds(until)
        chosen = before if chosen is None else chosen & before
    layout, arrow = Layout(url), schema.arrow()
    first, last = None if since is None else day_of(since), None if until is None else day_of(until)
    gone: FileNotFoundError | None = None
    for _ in range(_ATTEMPTS):  # what is swept or merged between listing and opening is no error
        try:
            listed = list(layout.files(stream, endpoint, first, last))
            paths = [file.path for file in without_replaced(layout, listed)]
            if paths:
                dataset = ds.dataset(paths, schema=arrow, format="parquet", filesystem=layout.filesystem)
                table = dataset.to_table(columns=wanted, filter=chosen)
            else:
                table = arrow.empty_table().select(wanted)
            # A merge while the folder was listed could have hidden both what it replaced and what it made.
            if _merged(listed) == _merged(layout.files(stream, endpoint, first, last)):
                return table
        except FileNotFoundError as error:
            gone = error
        except (pa.ArrowException, OSError) as error:
            raise Unavailable(
                f"records at {url} cannot be read: {error}", hint="move the file it names away; its rows are lost"
            ) from error
    raise Unavailable(f"records at {url} change faster than they can be read: {gone}", hint="ask again in a moment")


def _merged(files: Iterable[DataFile]) -> set[str]:
    return {file.path for file in files if file.door == MERGED}


def read_accounts(url: str) -> dict[str, dict[str, Accounts]]:
    """What every door has accounted for, by door and stream: from its counters where they are here, else as it last said."""
    layout = Layout(url)
    found: dict[str, dict[str, Accounts]] = {}
    for path in layout.accounts():
        door, _, kind = path.rsplit("/", 1)[-1].rpartition(".")
        if kind == "counters":
            if layout.local is not None:
                found[door] = Counters.peek(layout.local / "accounts" / f"{door}.counters")
        elif door not in found:
            found[door] = _said(layout.read_bytes(path))
    return found


def _said(document: bytes) -> dict[str, Accounts]:
    try:
        streams: dict[str, dict[str, Any]] = json.loads(document)["streams"]
        return {name: Accounts(**streams[name]) if name in streams else Accounts() for name in STREAMS}
    except (ValueError, KeyError, TypeError):
        return {name: Accounts() for name in STREAMS}
