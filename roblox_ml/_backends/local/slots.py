"""How many steps run at once on this machine: a number of slots, its memory, its GPUs.

Steps often wait (for a download, a database, a lock), so the slots are more than the cores: at least eight, or
`RML_LOCAL_SLOTS`. A step that asks for more memory than there is runs alone; GPUs are handed out one by one through
`CUDA_VISIBLE_DEVICES`, and a machine without any runs the step on its CPU. Who waits is served in order, but a step
that fits passes one that does not yet.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Lease", "Slots", "machine"]

_AT_LEAST = 8


@dataclass(frozen=True, slots=True)
class Lease:
    """What a running step holds: bytes of memory and GPU numbers."""

    memory: int
    gpus: tuple[int, ...]


class Slots:
    """Resources of one executor; used from its event loop only."""

    def __init__(self, count: int, memory: int, gpus: int) -> None:
        self.count = count
        self.free = count
        self.memory = memory
        self.free_memory = memory
        self.gpus = gpus
        self.free_gpus = list(range(gpus))
        self._waiting: list[tuple[int, int, asyncio.Future[Lease]]] = []

    async def acquire(self, memory: int, gpus: int) -> Lease:
        """Wait until the step fits. A request over what the machine has is cut down to all of it."""
        future: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        self._waiting.append((min(memory, self.memory), min(gpus, self.gpus), future))
        self._serve()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.release(future.result())
            raise

    def release(self, lease: Lease) -> None:
        """Give back, and let in who fits now."""
        self.free += 1
        self.free_memory += lease.memory
        self.free_gpus = sorted([*self.free_gpus, *lease.gpus])
        self._serve()

    def _serve(self) -> None:
        waiting = []
        for memory, gpus, future in self._waiting:
            if future.cancelled():
                continue
            if self.free and memory <= self.free_memory and gpus <= len(self.free_gpus):
                self.free -= 1
                self.free_memory -= memory
                taken, self.free_gpus = tuple(self.free_gpus[:gpus]), self.free_gpus[gpus:]
                future.set_result(Lease(memory, taken))
            else:
                waiting.append((memory, gpus, future))
        self._waiting = waiting


def machine() -> Slots:
    """The slots of this machine, or what RML_LOCAL_SLOTS, RML_LOCAL_MEMORY (bytes) and RML_LOCAL_GPUS say."""
    count = int(os.environ.get("RML_LOCAL_SLOTS") or max(_AT_LEAST, os.cpu_count() or 1))
    memory = int(os.environ.get("RML_LOCAL_MEMORY") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    gpus = os.environ.get("RML_LOCAL_GPUS")
    found = int(gpus) if gpus else len(list(Path("/dev").glob("nvidia[0-9]*")))
    return Slots(max(1, count), memory, found)
