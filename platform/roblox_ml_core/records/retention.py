"""Delete what has been kept long enough: each file says for how long, and how new its newest row can be."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from .layout import DataFile, Layout
from .maintenance import only_one
from .schema import DAY_US, STREAMS

__all__ = ["Swept", "sweep"]


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep did, or would do."""

    files: int
    bytes: int
    by_stream: Mapping[str, int]


def sweep(
    url: str,
    *,
    now: float | None = None,
    retention: Mapping[str, int] | None = None,
    dry_run: bool = False,
    wait: bool = False,
) -> Swept:
    """Delete files whose day is older than the retention they were written with.

    `retention` are the days of endpoints as they are set now: where these are fewer, they count.

    Raises:
        Conflict: another maintenance is under way, and `wait` is False.
    """
    layout = Layout(url)
    today = int((time.time() if now is None else now) * 1e6) // DAY_US
    gone: dict[str, int] = {}
    size = 0
    with only_one(layout, wait=wait):
        for stream in STREAMS:
            for file in list(layout.files(stream)):
                # The day itself still counts: a row of its last second is kept as long as one of its first.
                if file.day + _days(layout, file, retention or {}) >= today:
                    continue
                if not dry_run:
                    layout.delete(file.path)
                gone[stream] = gone.get(stream, 0) + 1
                size += file.size
        if not dry_run:
            layout.prune()
    return Swept(sum(gone.values()), size, gone)


def _days(layout: Layout, file: DataFile, retention: Mapping[str, int]) -> int:
    from .tables import metadata_of

    said = int(metadata_of(layout, file.path).get("rml.retention_days", 30))
    return min(said, retention.get(file.endpoint, said))
