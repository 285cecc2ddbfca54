"""Processes of the benchmark: started on free ports, pinned to cores, their CPU time read from the kernel."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

__all__ = ["Process", "cpu_ns", "family", "free_port", "pin"]

PROC = Path("/proc")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    found, pending = [], [pid]
    while pending:
        found.append(pending.pop())
        for children in PROC.glob(f"{found[-1]}/task/*/children"):
            try:
                pending += map(int, children.read_text().split())
            except OSError:
                continue
    return found


def cpu_ns(pids: Iterable[int]) -> int:
    """Nanoseconds of CPU, user and kernel, that all threads of these processes had so far."""
    total = 0
    for pid in pids:
        for file in PROC.glob(f"{pid}/task/*/schedstat"):
            try:
                total += int(file.read_text().split()[0])
            except (OSError, IndexError):
                continue
    return total


def pin(pids: Iterable[int], core: int) -> None:
    """Keep every thread of these processes on one core."""
    for pid in pids:
        for task in PROC.glob(f"{pid}/task/*"):
            try:
                os.sched_setaffinity(int(task.name), {core})
            except ProcessLookupError:
                continue


class Process:
    """One started process and its descendants."""

    def __init__(self, command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None) -> None:
        with log.open("wb") as stream:
            self._process = subprocess.Popen(
                list(command), stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True,
                env={**os.environ, **(env or {})},
            )  # fmt: skip
        self._log = log

    @property
    def pids(self) -> list[int]:
        return family(self._process.pid)

    def wait_for(self, ready: Callable[[], bool], seconds: float = 60.0) -> None:
        """Until `ready`, or an error with the end of the log."""
        deadline = time.monotonic() + seconds
        while not ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(
                    f"{self._process.args!r} did not start: {self._log.read_text(errors='replace')[-600:]}"
                )
            time.sleep(0.05)

    def listens(self, port: int, seconds: float = 60.0) -> None:
        def ready() -> bool:
            with socket.socket() as probe:
                probe.settimeout(0.2)
                return probe.connect_ex(("127.0.0.1", port)) == 0

        self.wait_for(ready, seconds)

    def stop(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
