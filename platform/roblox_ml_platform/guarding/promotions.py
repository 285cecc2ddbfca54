"""New champions, watched for a while against what answered before them.

Only moves that this process saw are watched, and only moves forward: whoever goes back does so because something is wrong already, and
a guard that took that back would swing between two bad versions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, select

from .. import tables as t
from .counts import Key
from .watches import Watch

__all__ = ["Promotions", "went_back"]


class Promotions:
    """Remembers every endpoint's champion; `watches` are those young enough to be judged."""

    def __init__(self, bake_s: float) -> None:
        self._bake_s = bake_s
        self._champions: dict[str, str] = {}
        self._young: dict[str, Watch] = {}

    def see(self, endpoints: Sequence[Mapping[str, Any]], back: Mapping[str, bool], at: float) -> None:
        """What the champions are now; `back`: whether an endpoint's latest move was a rollback."""
        now = {row["name"]: f"{row['model']}/{row['version']}" for row in endpoints}
        for name, version in now.items():
            before = self._champions.get(name)
            if before is None or before == version:
                continue
            self._young.pop(name, None)
            if not back.get(name, False):
                keys = (Key(name, version.rpartition("/")[2]), Key(name, before.rpartition("/")[2]))
                self._young[name] = Watch("promotion", name, "", version, before, *keys, at)
        self._champions = now
        self._young = {name: watch for name, watch in self._young.items() if name in now}

    def watches(self, at: float) -> list[Watch]:
        self._young = {name: watch for name, watch in self._young.items() if at - watch.begin <= self._bake_s}
        return list(self._young.values())


def went_back(connection: Connection, endpoint: Mapping[str, Any]) -> bool:
    """Whether the endpoint is where it is by a rollback: of the alias it follows, or of itself; the later move counts."""
    moves: list[Any] = []
    query = select(t.endpoint_events.c.at, t.endpoint_events.c.kind).where(
        t.endpoint_events.c.endpoint == endpoint["name"]
    )
    moves += connection.execute(query.order_by(t.endpoint_events.c.id.desc()).limit(1)).tuples().all()
    if endpoint["alias"] is not None:
        here = (t.alias_events.c.model == endpoint["model"], t.alias_events.c.alias == endpoint["alias"])
        query = select(t.alias_events.c.at, t.alias_events.c.kind).where(*here)
        moves += connection.execute(query.order_by(t.alias_events.c.generation.desc()).limit(1)).tuples().all()
    return bool(moves) and max(moves)[1] == "rollback"
