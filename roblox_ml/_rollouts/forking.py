"""What holds threads, locks or sockets starts anew in a forked process: a lock may be held by a thread that is not there any more,
and two processes that read one socket get each other's answers.

    renewed_after_fork(self)    # then `self.renew()` is called in every child, before anything else runs there
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol

__all__ = ["Renewed", "renewed_after_fork"]


class Renewed(Protocol):
    """Something that `renew` makes usable in a forked process: no waiting, no lock of before."""

    def renew(self) -> None: ...


_KNOWN: weakref.WeakSet[Renewed] = weakref.WeakSet()
_LOCK = threading.Lock()
_hooked = False


def renewed_after_fork(thing: Renewed) -> None:
    """Have `thing.renew()` called in forked processes, for as long as it lives."""
    global _hooked
    with _LOCK:
        _KNOWN.add(thing)
        if not _hooked:
            os.register_at_fork(before=_LOCK.acquire, after_in_parent=_LOCK.release, after_in_child=_renew)
            _hooked = True


def _renew() -> None:
    _LOCK.release()  # taken before the fork, so that nobody was in the middle of a change
    for thing in list(_KNOWN):
        thing.renew()
