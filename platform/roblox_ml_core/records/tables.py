"""Rows to Arrow tables to Parquet bytes, in slices short enough that the event loop beside it does not notice."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .schema import SCHEMA, StreamSchema
from .stream import Row, pieces

__all__ = ["metadata_of", "table_of", "to_parquet", "usable"]

#: Rows that are converted in one go. Making an Arrow column holds the interpreter: 50,000 texts would be milliseconds.
_SLICE = 1024
#: Columns with (nearly) as many values as rows: a dictionary would make the file larger, and take longer.
_DISTINCT = frozenset((
    "at_us", "inference_id", "event_id", "unit", "value", "latency_us", "primary_us", "shadow_us", "request", "response",
    "attributes_json", "tensors_json",
))  # fmt: skip


def table_of(schema: StreamSchema, rows: Sequence[Row]) -> pa.Table:
    """The rows as a table.

    Raises:
        pa.ArrowException, TypeError, ValueError, OverflowError: a value is not of its field's type.
    """
    arrow = schema.arrow()
    batches = []
    for piece in pieces(rows, _SLICE):
        columns = zip(*piece, strict=True)
        arrays = []
        for values, kind in zip(columns, arrow.types, strict=True):
            arrays.append(pa.array(values, kind))
            time.sleep(0)
        batches.append(pa.RecordBatch.from_arrays(arrays, schema=arrow))
    return pa.Table.from_batches(batches, schema=arrow)


def usable(schema: StreamSchema, rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """The rows that can become a table, and the others."""
    try:
        table_of(schema, rows)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        if len(rows) == 1:
            return [], list(rows)
        half = len(rows) // 2
        (good, bad), (more_good, more_bad) = usable(schema, rows[:half]), usable(schema, rows[half:])
        return good + more_good, bad + more_bad
    return list(rows), []


def to_parquet(table: pa.Table, about: Mapping[str, str]) -> bytes:
    """A Parquet file (zstd) with `about` in its metadata."""
    described = table.replace_schema_metadata({"rml.schema": str(SCHEMA), **about})
    sink = io.BytesIO()
    repeated = [name for name in table.column_names if name not in _DISTINCT]
    pq.write_table(described, sink, compression="zstd", use_dictionary=repeated)
    return sink.getvalue()


def metadata_of(layout: Any, path: str) -> dict[str, str]:
    """What a file says about itself."""
    found: dict[bytes, bytes] = pq.read_schema(path, filesystem=layout.filesystem).metadata or {}
    return {key.decode(): value.decode() for key, value in found.items() if key.startswith(b"rml.")}
