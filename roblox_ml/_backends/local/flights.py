"""One at a time for what is equal: trials of a sweep start together and share steps, which then need to run only once.

A file lock per cache key, held while the step runs: the kernel drops it however the holder ends, and whoever waited
looks into the cache before it runs the step itself. Only trials do this; other runs never wait for one another.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from pathlib import Path

__all__ = ["begin", "end"]

_LOOK = 0.05


async def begin(folder: Path, key: str, cancelled: asyncio.Event) -> int | None:
    """Wait until nobody else runs `key`; a handle for `end`, or None when the run was cancelled meanwhile."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / key
    while not cancelled.is_set():
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The one before us removed the file: a lock on it is a lock on nothing.
            if os.stat(path).st_ino == os.fstat(handle).st_ino:  # noqa: PTH116
                return handle
        except (BlockingIOError, FileNotFoundError):
            pass
        os.close(handle)
        await asyncio.sleep(_LOOK)
    return None


def end(folder: Path, key: str, handle: int) -> None:
    """Let the next one in."""
    (folder / key).unlink(missing_ok=True)
    os.close(handle)
