"""What a notebook shows of a data set: its identity, its files, the first rows of its first table."""

from __future__ import annotations

import csv
import html
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .datasets import DatasetRef

__all__ = ["dataset_html", "human_bytes"]

_ROWS = 5
_FILES = 20
_CELL = 80


def human_bytes(count: float) -> str:
    """`1.4 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def dataset_html(ref: DatasetRef) -> str:
    """A small HTML card; a preview that fails is left out, never an error."""
    facts = [("digest", f"<code>{ref.digest[:12]}</code>"), ("added", html.escape(ref.created))]
    if ref.description:
        facts.append(("description", html.escape(ref.description)))
    facts += [(html.escape(key), html.escape(value)) for key, value in sorted(ref.tags.items())]
    rows = "".join(f"<tr><td>{key}</td><td>{value}</td></tr>" for key, value in facts)
    items = "".join(
        f"<li><code>{html.escape(name)}</code> {human_bytes(file.size)}</li>"
        for name, file in itertools.islice(sorted(ref.files.items()), _FILES)
    )
    more = f"<li>… {len(ref.files) - _FILES} more</li>" if len(ref.files) > _FILES else ""
    title = f"{html.escape(ref.name)} version {ref.version}: {len(ref.files)} files, {human_bytes(ref.size)}"
    return f"<div><b>{title}</b><table>{rows}</table><ul>{items}{more}</ul>{_table(ref)}</div>"


def _table(ref: DatasetRef) -> str:
    for name in sorted(ref.files):
        read = {".parquet": _parquet_rows, ".csv": _csv_rows, ".tsv": _csv_rows}.get(Path(name).suffix)
        if read is None:
            continue
        try:
            head, *rows = read(ref.path / name)
        except Exception as error:  # a broken file, a missing pyarrow: a preview is a courtesy
            return f"<p>no preview of <code>{html.escape(name)}</code>: {html.escape(str(error)[:_CELL])}</p>"
        header = "".join(f"<th>{_cell(value)}</th>" for value in head)
        body = "".join("<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row) + "</tr>" for row in rows)
        return f"<table><caption>{html.escape(name)}, first rows</caption><tr>{header}</tr>{body}</table>"
    return ""


def _parquet_rows(path: Path) -> list[Sequence[Any]]:
    import pyarrow.parquet as parquet

    with parquet.ParquetFile(path) as file:
        names = file.schema_arrow.names
        batch = next(file.iter_batches(batch_size=_ROWS), None)
        return [names, *([] if batch is None else ([row[name] for name in names] for row in batch.to_pylist()))]


def _csv_rows(path: Path) -> list[Sequence[Any]]:
    with path.open(encoding="utf-8", errors="replace", newline="") as lines:
        rows = csv.reader(lines, delimiter="\t" if path.suffix == ".tsv" else ",")
        return list(itertools.islice(rows, _ROWS + 1))


def _cell(value: Any) -> str:
    text = str(value)
    return html.escape(text if len(text) <= _CELL else text[: _CELL - 1] + "…")
