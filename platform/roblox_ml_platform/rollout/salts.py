"""Salts of layers and holdouts: what is made again under a name that was there before assigns its units anew.

With the old salt the units of a former experiment would be together again in the next one, with whatever the former one did to them.
The first of a name has generation 0 and no number in its salt; a number is added for each one of the name that was deleted. It only
changes when nothing uses the salt, so nobody who is in something that runs is ever moved.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from sqlalchemy import Connection, insert, select, update

from . import tables as t

__all__ = ["Kind", "generations", "retire", "salt"]

Kind = Literal["layer", "holdout"]


def salt(kind: Kind, name: str, generation: int) -> str:
    """Names have no slash in them, so two salts are the same only where kind, name and generation are."""
    return f"{kind}/{name}" if generation == 0 else f"{kind}/{name}/{generation}"


def generations(connection: Connection) -> Mapping[tuple[str, str], int]:
    """By kind and name; 0 where it is not named."""
    rows = connection.execute(select(t.retired_salts)).mappings()
    return {(row["kind"], row["name"]): int(row["times"]) for row in rows}


def retire(connection: Connection, kind: Kind, name: str) -> None:
    """It is deleted: who makes one of this name again gets another salt. The caller holds its row."""
    row = (t.retired_salts.c.kind == kind, t.retired_salts.c.name == name)
    changed = connection.execute(update(t.retired_salts).where(*row).values(times=t.retired_salts.c.times + 1))
    if changed.rowcount == 0:
        connection.execute(insert(t.retired_salts).values(kind=kind, name=name, times=1))
