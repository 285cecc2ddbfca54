"""Wakes long polls when something changed: from any thread of this process at once, from other replicas at the next look."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeVar

__all__ = ["LOOK_EVERY_S", "Changes", "poll"]

LOOK_EVERY_S = 0.5  # how long a change by another replica, or a server's silence, may go unseen

T = TypeVar("T")


class Changes:
    """A bell: `ring` from any thread, `wait` in the event loop. A ring between `ticket` and `wait` is not lost."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._event = asyncio.Event()

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def ring(self) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
                self._loop.call_soon_threadsafe(self._fire)

    def _fire(self) -> None:
        self._event.set()
        self._event = asyncio.Event()

    def ticket(self) -> asyncio.Event:
        return self._event

    @staticmethod
    async def wait(ticket: asyncio.Event, timeout: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ticket.wait(), timeout)


async def poll(changes: Changes, look: Callable[[], int], after: int | None, wait: float) -> None:
    """Return as soon as `look()` differs from `after`, or after `wait` seconds. `look` runs in a thread."""
    loop = asyncio.get_running_loop()
    end = loop.time() + wait
    while after is not None:
        ticket = changes.ticket()
        # "Differs", not "is greater": after a restore the count may be lower, and the reader must still be told.
        if await asyncio.to_thread(look) != after or (left := end - loop.time()) <= 0:
            return
        await changes.wait(ticket, min(left, LOOK_EVERY_S))
