"""Rows of any make (data frames, mappings, sequences) as one HTML table, bounded in rows, columns and cells."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any

from .text import escaped, number

__all__ = ["Table", "rows_of", "to_html"]

_COLUMNS = 60
_CELL = 400


@dataclass(frozen=True, slots=True)
class Table:
    """Columns, the rows that are shown, and how many there are in all (None: nobody knows)."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    total: int | None


def rows_of(data: Any, columns: Sequence[Any] | None, limit: int) -> Table:
    """A table from a data frame, a mapping of columns, a list of mappings, or a list of rows.

    Raises TypeError when it is none of these.
    """
    if hasattr(data, "to_frame") and not hasattr(data, "columns"):
        data = data.to_frame()  # a Series
    if hasattr(data, "columns") and hasattr(data, "head"):
        return _frame(data, columns, limit)
    if isinstance(data, Mapping):
        if data and all(isinstance(value, Sequence) and not isinstance(value, str | bytes) for value in data.values()):
            names = list(data) if columns is None else [name for name in columns if name in data]
            lengths = {len(data[name]) for name in names}
            shown = itertools.islice(itertools.zip_longest(*(data[name] for name in names), fillvalue=""), limit)
            return Table(tuple(map(_name, names)), tuple(shown), max(lengths, default=0))
        shown_pairs = tuple(itertools.islice(data.items(), limit))
        return Table(tuple(map(_name, columns or ("name", "value"))), shown_pairs, len(data))
    if not isinstance(data, Iterable) or isinstance(data, str | bytes):
        raise TypeError(
            f"table() got {type(data).__name__}: pass a data frame, a list of dicts, a list of rows, or a dict of columns"
        )
    total = len(data) if isinstance(data, Sized) else None
    rows = list(itertools.islice(data, limit))
    return _listed(rows, columns, total)


def to_html(table: Table, caption: str) -> str:
    """The table with its caption, column headings and what was left out."""
    columns = table.columns[:_COLUMNS]
    numeric = [_is_numeric(table.rows, index) for index in range(len(columns))]
    heads = zip(columns, numeric, strict=True)
    head = "".join(f'<th scope="col"{_right(right)}>{escaped(name, _CELL)}</th>' for name, right in heads)
    body = "".join(
        "<tr>"
        + "".join(f"<td{_right(right)}>{_cell(value)}</td>" for value, right in zip(row, numeric, strict=False))
        + "</tr>"
        for row in table.rows
    )
    notes = []
    if table.total is not None and table.total > len(table.rows):
        notes.append(f"{table.total - len(table.rows):,} more rows of {table.total:,}")
    if len(table.columns) > _COLUMNS:
        notes.append(f"{len(table.columns) - _COLUMNS:,} more columns")
    note = f'<p class="note">… {escaped("; ".join(notes))}</p>' if notes else ""
    if not table.rows:
        note = '<p class="note">no rows</p>'
    title = f"<caption>{escaped(caption, 200)}</caption>" if caption else ""
    # Wide tables scroll in their own box, which the keyboard must reach too.
    label = escaped(caption or "table", 200)
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{label}"><table>{title}'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{note}"
    )


def _frame(frame: Any, columns: Sequence[Any] | None, limit: int) -> Table:
    """A data frame of pandas, or of anything that looks enough like it."""
    if columns is not None:
        frame = frame[list(columns)]
    total = len(frame)
    head = frame.head(limit)
    names = [_name(name) for name in head.columns]
    if not hasattr(head, "itertuples"):
        return Table(tuple(names), tuple(tuple(row) for row in head.rows()), total)  # polars
    index = getattr(head, "index", None)
    # An index of row numbers says nothing; one with names does.
    named = index is not None and type(index).__name__ != "RangeIndex"
    rows = tuple(tuple(row) if named else tuple(row)[1:] for row in head.itertuples(index=True, name=None))
    return Table((_name(index.name or "") if index is not None else "", *names) if named else tuple(names), rows, total)


def _listed(rows: list[Any], columns: Sequence[Any] | None, total: int | None) -> Table:
    if rows and all(isinstance(row, Mapping) for row in rows):
        names = list(columns) if columns is not None else list(dict.fromkeys(key for row in rows for key in row))
        return Table(tuple(map(_name, names)), tuple(tuple(row.get(name, "") for name in names) for row in rows), total)
    cells = [
        tuple(row) if isinstance(row, Iterable) and not isinstance(row, str | bytes | Mapping) else (row,)
        for row in rows
    ]
    width = max((len(row) for row in cells), default=0)
    heads = [_name(name) for name in columns] if columns is not None else [str(n + 1) for n in range(width)]
    heads += [""] * (width - len(heads))
    return Table(tuple(heads), tuple(cells), total)


def _name(value: Any) -> str:
    return " / ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") and getattr(value, "shape", None) == () else value


def _is_numeric(rows: Sequence[Sequence[Any]], index: int) -> bool:
    values = [_plain(row[index]) for row in rows if index < len(row)]
    return bool(values) and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in values if value is not None
    )


def _right(right: bool) -> str:
    return ' class="number"' if right else ""


def _cell(value: Any) -> str:
    if value is None:
        return ""
    plain = _plain(value)
    if isinstance(plain, int | float) and not isinstance(plain, bool):
        return escaped(number(plain))
    return escaped(plain, _CELL)
