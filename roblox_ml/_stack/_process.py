"""One supervised process: start, watch, restart with back-off, stop with its children.

Linux only where it matters: a part asks the kernel to be terminated when its supervisor dies (PR_SET_PDEATHSIG), so that
`kill -9` of the supervisor leaves no orphan holding a port.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PR_SET_PDEATHSIG = 1
STOP_GRACE_S = 10.0
STEADY_S = 20.0  # a part that lived this long starts its back-off anew
BACKOFF_S = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0)

_libc = ctypes.CDLL(None, use_errno=True)


def _die_with_parent() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@dataclass(slots=True)
class Supervised:
    """A part's process and what is known of its past."""

    name: str
    command: Sequence[str]
    env: Mapping[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    restarts: int = 0
    quick_deaths: int = 0
    not_before: float = 0.0
    last_exit: int | None = None
    children: list[int] = field(default_factory=list)

    def start(self) -> None:
        """Start the process in a group of its own, its output appended to the log."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as sink:
            self.process = subprocess.Popen(
                list(self.command),
                env=dict(self.env),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # safe: the supervisor has no other thread
            )
        self.started = time.monotonic()

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self.process.pid if self.process and self.process.poll() is None else None

    def tend(self, now: float) -> bool:
        """Notice a death and restart when the back-off allows; True when something changed."""
        if self.process is None:
            if now < self.not_before:
                return False
            self.start()
            return True
        code = self.process.poll()
        if code is None:
            return False
        self._sweep()
        self.last_exit = code
        self.quick_deaths = 0 if now - self.started > STEADY_S else self.quick_deaths + 1
        self.not_before = now + BACKOFF_S[min(self.quick_deaths, len(BACKOFF_S) - 1)]
        self.restarts += 1
        self.process = None
        return True

    def stop(self) -> None:
        """SIGTERM to the group, SIGKILL for what is left after the grace time."""
        if self.process is None:
            return
        self._signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_GRACE_S)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self.process.wait()
        self._sweep()
        self.process = None

    def _sweep(self) -> None:
        """Children of a dead leader (Triton's stubs, worker processes) must not live on without it."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        assert self.process is not None
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            return
