"""Environments: from the names a step imports to a hashed lock. The one part of the SDK that asks a package index."""

from __future__ import annotations

from ._carried import Wheel
from ._drift import changes
from ._errors import LockError
from ._installed import installed
from ._locks import Lock, lock_for

__all__ = ["Lock", "LockError", "Wheel", "changes", "lock_for", "owners_of"]


def owners_of(module: str) -> tuple[str, ...]:
    """The installed distributions that a top-level import name belongs to."""
    return installed().by_import.get(module, ())
