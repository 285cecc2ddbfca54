"""What doors keep of their work, from a terminal: where it is, what is accounted for, what may be erased.

Works on the folder or bucket of the records itself (``RML_RECORDS``): no control plane is asked.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from . import _siblings
from ._addresses import translated

__all__ = ["address", "erase", "show", "status", "sweep"]


def address(url: str = "") -> str:
    """Where the records are: `url`, else as the settings say."""
    if url:
        return url
    settings = _siblings.load("roblox_ml_core.settings")
    return str(settings.RecordsSettings().resolve(settings.HomeSettings()))


def status(url: str = "") -> dict[str, Any]:
    """Accounts by stream over all doors, and the files: how many, how large, of which days."""
    records, layouts = (
        _siblings.load("roblox_ml_core.records"),
        _siblings.load("roblox_ml_core.records.layout"),
    )
    where = address(url)
    with translated():
        doors = records.read_accounts(where)
        layout = layouts.Layout(where)
        streams = {}
        for name in records.STREAMS:
            files = list(layout.files(name))
            total = records.Accounts.total([streams_of[name] for streams_of in doors.values()])
            streams[name] = total.to_json() | {
                "balanced": total.balanced,
                "files": len(files),
                "bytes": sum(file.size for file in files),
                "endpoints": sorted({file.endpoint for file in files}),
                "first": min((layouts.day_text(file.day) for file in files), default=None),
                "last": max((layouts.day_text(file.day) for file in files), default=None),
            }
    return {"url": where, "doors": sorted(doors), "streams": streams}


def erase(
    unit: str, endpoint: str | None = None, url: str = "", *, settle_s: float | None = None, say: Callable[[str], None]
) -> dict[str, Any]:
    """Erase a unit, wait until doors have written what they had in memory of it, and erase that too."""
    records, settings = _siblings.load("roblox_ml_core.records"), _siblings.load("roblox_ml_core.settings")
    where = address(url)
    wait = 2 * settings.RecordsSettings().flush_s if settle_s is None else settle_s
    with translated():
        first = records.erase(where, unit, endpoint)
        if wait > 0:
            say(f"{sum(first.rows.values())} rows erased; once more in {wait:.0f} s, for what doors have in memory")
            time.sleep(wait)
        second = records.erase(where, unit, endpoint)
    rows = {name: first.rows.get(name, 0) + second.rows.get(name, 0) for name in {**first.rows, **second.rows}}
    return {"unit": unit, "endpoint": endpoint, "rows": rows, "files": first.files + second.files, "url": where}


def sweep(url: str = "", *, dry_run: bool = False) -> dict[str, Any]:
    """Delete what has been kept for as long as it was to be kept."""
    where = address(url)
    with translated():
        swept = _siblings.load("roblox_ml_core.records").sweep(where, dry_run=dry_run, wait=True)
    return {"url": where, "files": swept.files, "bytes": swept.bytes, "by_stream": dict(swept.by_stream)}


def show(
    stream: str, endpoint: str | None = None, url: str = "", *, hours: float = 24.0, rows: int = 20
) -> list[dict[str, Any]]:
    """The newest rows of a stream, the newest first."""
    records = _siblings.load("roblox_ml_core.records")
    with translated():
        table = records.read(address(url), stream, endpoint=endpoint, since=time.time() - hours * 3600)
    newest: list[dict[str, Any]] = table.sort_by([("at_us", "descending")]).slice(0, rows).to_pylist()
    return newest
