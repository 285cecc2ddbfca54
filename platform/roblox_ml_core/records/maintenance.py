"""One maintenance of a folder of records at a time: deleting and rewriting must not meet."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from ..errors import Conflict
from .layout import Layout

__all__ = ["only_one"]


@contextlib.contextmanager
def only_one(layout: Layout, *, wait: bool) -> Iterator[None]:
    """Hold the folder's lock; in a bucket there is none, and maintenance is one place's business.

    Raises:
        Conflict: somebody else has it, and `wait` is False.
    """
    if layout.local is None:
        yield
        return
    layout.local.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(layout.local / ".maintenance", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise Conflict(
                f"records at {layout.url} are being swept or erased from", hint="try again in a moment"
            ) from None
        yield
    finally:
        os.close(handle)
