"""The stub processes of one repository: who is alive, how much memory they take.

Triton goes on calling a model READY after its stub died, and never starts another. The process table tells the truth at once,
where this agent may see it (same machine or pod with a shared process namespace); elsewhere the known-answer probe does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from ..repository.config import BATCH_SUFFIX

__all__ = ["Stub", "end_orphans", "memory", "model_of", "stubs"]

STUB = "triton_python_backend_stub"
SERVER = "tritonserver"


@dataclass(frozen=True, slots=True)
class Stub:
    """One instance's process; `started` tells it from a later process with the same number."""

    pid: int
    started: float
    model: str  # the public Triton model


def stubs(repository: Path) -> frozenset[Stub]:
    """Every living stub of the models in this repository."""
    found = set()
    for process in psutil.process_iter():
        try:
            # The kernel cuts names at 15 characters; the full command line is read only where the start fits.
            if not STUB.startswith(process.name()):
                continue
            model = model_of(process.cmdline(), repository)
            if model is not None and process.status() != psutil.STATUS_ZOMBIE:
                found.add(Stub(process.pid, process.create_time(), model))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return frozenset(found)


def model_of(command: list[str], repository: Path) -> str | None:
    """The public model a stub's command line names: `…/stub <repository>/<model>.batch/<version>/model.py …`."""
    if len(command) < 2 or Path(command[0]).name != STUB:
        return None
    script = Path(command[1])
    if not script.is_relative_to(repository):
        return None
    folder = script.relative_to(repository).parts[0]
    return folder.removesuffix(BATCH_SUFFIX) if folder.endswith(BATCH_SUFFIX) else None


def memory(members: Iterable[Stub]) -> int:
    """Resident bytes of these processes and their children (a plain-Python model's worker is a child)."""
    total = 0
    for stub in members:
        try:
            process = psutil.Process(stub.pid)
            if process.create_time() == stub.started:
                total += sum(member.memory_info().rss for member in [process, *process.children(recursive=True)])
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total


def end_orphans(repository: Path) -> list[int]:
    """Kill the stubs of this repository whose server is gone, with their children; returns the stubs' process ids.

    A stub that was still starting when its server was killed never notices, and holds the repository's lock for ever.
    """
    ended = []
    for stub in stubs(repository):
        try:
            process = psutil.Process(stub.pid)
            parent = process.parent()
            if process.create_time() != stub.started or (parent is not None and parent.name() == SERVER):
                continue
            for member in [*process.children(recursive=True), process]:
                member.kill()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        ended.append(stub.pid)
    return ended
