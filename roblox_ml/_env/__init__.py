"""Environments: from the names a step imports to a hashed lock. The one part of the SDK that asks a package index."""

from __future__ import annotations

from ._errors import LockError
from ._locks import Lock, lock_for

__all__ = ["Lock", "LockError", "lock_for"]
