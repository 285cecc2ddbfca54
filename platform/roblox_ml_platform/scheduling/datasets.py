"""Data sets of this home: which have a version that their triggers have not seen.

`rml.datasets.add` writes a record into a folder and needs no server for it, so the folder is what is watched; only the data
sets that somebody waits for are looked at. Elsewhere (a home on another machine) `add` tells the control plane itself.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import select

from ..database import Database
from . import tables as t
from .occurrences import dataset_grew

__all__ = ["look", "newest"]


def look(database: Database, folder: Path, at: float) -> int:
    """Note new versions of the data sets that triggers wait for; returns how many."""
    w = t.triggers.c
    with database.read() as connection:
        query = select(w.subject, w.seen).where(w.kind == "dataset")
        waiting = connection.execute(query).tuples().all()
    found = 0
    for name, seen in set(waiting):
        version = newest(folder / name)
        if version > seen:
            with database.write() as connection:
                found += dataset_grew(connection, name, version, at)
    return found


def newest(folder: Path) -> int:
    """The number of the newest version whose record lies in `folder`; 0 when there is none."""
    numbers = (path.stem for path in folder.glob("*.json"))
    return max((int(number) for number in numbers if number.isdigit()), default=0)
