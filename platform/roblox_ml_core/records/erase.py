"""Erase a unit: every file that holds rows of it is replaced, whole, by one without them.

A shadow comparison says whose it is; where it does not, it is found by the inference ids of the unit's other rows.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import Invalid
from .layout import DataFile, Layout
from .maintenance import only_one
from .schema import NO_ENDPOINT, STREAMS

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Erased", "erase"]


@dataclass(frozen=True, slots=True)
class Erased:
    """What was erased: rows by stream, and how many files were changed or removed."""

    rows: Mapping[str, int]
    files: int

    def to_json(self) -> dict[str, Any]:
        return {"rows": dict(self.rows), "files": self.files}


def erase(url: str, unit: str, endpoint: str | None = None) -> Erased:
    """Remove every written row of `unit` (of one endpoint, where given) from all streams.

    What a living door has in memory is not written yet: do it again after its `flush_s`. With an endpoint, outcome events stay,
    for they belong to none. Readers see a file before or after, never in between; an interrupted erasure is done again.
    """
    if not unit:
        raise Invalid("no unit was named", hint="name the unit id whose rows are to go")
    layout = Layout(url)
    rows: dict[str, int] = {}
    changed = 0
    with only_one(layout, wait=True):
        files = {name: list(layout.files(name, endpoint)) for name in STREAMS}
        ids = _ids(layout, unit, files)
        for stream, listed in files.items():
            if endpoint is not None and endpoint != NO_ENDPOINT and STREAMS[stream].endpoint_at < 0:
                continue
            for file in listed:
                count = _rewrite(layout, stream, file, unit, ids)
                if count:
                    rows[stream] = rows.get(stream, 0) + count
                    changed += 1
        layout.prune()
        _note(layout, unit, endpoint, rows, changed)
    return Erased(rows, changed)


def _ids(layout: Layout, unit: str, files: Mapping[str, list[DataFile]]) -> pa.Array:
    """The inference ids of the unit's requests: the client chooses ids, so only a door's own rows are believed."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found = []
    for file in files["requests"]:
        table = _columns(layout, file.path, ["unit", "inference_id"])
        found += table.filter(pc.equal(table["unit"], unit))["inference_id"].to_pylist()
    return pa.array([one for one in dict.fromkeys(found) if one], pa.string())


def _rewrite(layout: Layout, stream: str, file: DataFile, unit: str, ids: pa.Array) -> int:
    """How many rows of the file are gone."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from .tables import metadata_of, to_parquet

    linked = stream == "shadows" and len(ids) > 0
    known = _columns(layout, file.path, ["unit", "inference_id"] if linked else ["unit"])
    theirs = pc.fill_null(pc.equal(known["unit"], unit), False)
    if linked:
        nobodys = pc.is_in(pc.fill_null(known["unit"], ""), value_set=_nobody())
        theirs = pc.or_(theirs, pc.and_(nobodys, pc.is_in(known["inference_id"], value_set=ids)))
    count = int(pc.sum(theirs).as_py() or 0)
    if not count:
        return 0
    if count == known.num_rows:
        layout.delete(file.path)
        return count
    table = pq.read_table(file.path, filesystem=layout.filesystem, partitioning=None).filter(pc.invert(theirs))
    about = metadata_of(layout, file.path)
    about["rml.erased"] = str(int(about.get("rml.erased", 0)) + count)
    layout.put(file.path, to_parquet(table, about))
    return count


def _nobody() -> pa.Array:
    import pyarrow as pa

    return pa.array([""], pa.string())


def _columns(layout: Layout, path: str, names: list[str]) -> pa.Table:
    import pyarrow.parquet as pq

    return pq.read_table(path, columns=names, filesystem=layout.filesystem, partitioning=None)


def _note(layout: Layout, unit: str, endpoint: str | None, rows: Mapping[str, int], files: int) -> None:
    """Proof that it was done, without saying whom it was about: the sha256 of the unit id."""
    now = time.time_ns()
    note = {
        "at_us": now // 1000, "unit_sha256": hashlib.sha256(unit.encode()).hexdigest(), "endpoint": endpoint,
        "rows": dict(rows), "files": files,
    }  # fmt: skip
    layout.put(layout.path("erasures", f"{now}.json"), json.dumps(note, sort_keys=True).encode())
