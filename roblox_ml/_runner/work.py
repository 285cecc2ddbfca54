"""The runner's loop: claim what is due, look after what runs, say how it ended. One thread; the runs have their own.

The control plane may go away and come back: what runs goes on, and is reported when it answers. A run that was given to another
runner meanwhile is ended here and not reported.
"""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .._runs import Run
from .._runtime.control import ControlPlane
from .._store import home
from ..errors import NotFound, NotRunning, RemoteError
from .stored import ENDED, LOST, begin

__all__ = ["Runner"]

_LOG = logging.getLogger(__name__)
_CONCURRENCY = 4
_IDLE_WAIT_S = 10.0
_BUSY_WAIT_S = 0.5
_LEASE_S = 30.0
_BACK_OFF_S = 2.0
_LONGEST_REASON = 20_000


@dataclass(slots=True)
class Runner:
    """Runs of this home. `RML_RUNNER_CONCURRENCY` bounds how many go on at once."""

    connect: Callable[[], ControlPlane]
    concurrency: int = field(default_factory=lambda: int(os.environ.get("RML_RUNNER_CONCURRENCY") or _CONCURRENCY))
    # The same after a restart, so that what was begun comes back at once.
    name: str = field(default_factory=lambda: _name())
    # Sorts after those of the processes before this one.
    instance: str = field(default_factory=lambda: f"{time.time_ns():019d}-{uuid.uuid4().hex[:12]}")
    active: dict[str, Run] = field(default_factory=dict)
    # Ends that the control plane does not know yet: run → (state, reason).
    ends: dict[str, tuple[str, str]] = field(default_factory=dict)
    lease_s: float = _LEASE_S
    _beat: float = 0.0

    def forever(self) -> None:
        """Work until the process is ended; a control plane that does not answer is asked again."""
        said = ""
        while True:
            try:
                self.step(_BUSY_WAIT_S if self.active or self.ends else _IDLE_WAIT_S)
                said = ""
            except (NotRunning, RemoteError) as error:
                if (text := str(error)) != said:
                    _LOG.warning("%s", text)
                said = text
                time.sleep(_BACK_OFF_S)

    def step(self, wait: float) -> None:
        """One round."""
        plane = self.connect()
        self._look()
        self._report(plane)
        self._heartbeat(plane)
        slots = self.concurrency - len(self.active)
        if slots <= 0:
            time.sleep(wait)
            return
        body = {"runner": self.name, "instance": self.instance, "slots": slots, "wait": wait}
        answer = plane.call("POST", "/v1/runner/claim", body)
        self.lease_s = float(answer["lease_s"])
        for order in answer["runs"]:
            self._begin(order)

    def _begin(self, order: Mapping[str, Any]) -> None:
        name = str(order["run"])
        if name in self.active or name in self.ends:
            return
        try:
            run = begin(order)
        except Exception as error:  # whatever keeps it from starting is how this run ended
            _LOG.exception("run %s could not start", name)
            self.ends[name] = ("FAILED", f"it could not start: {error}")
            return
        _LOG.info("run %s (%s, attempt %s)", name, order["source"], order["attempt"])
        self.active[name] = run
        if order["cancel"]:
            run.cancel()

    def _look(self) -> None:
        for name, run in list(self.active.items()):
            state = run.state
            if state in ENDED:
                self.ends[name] = (state, run.error)
            elif state == "INTERRUPTED":
                self.ends[name] = ("FAILED", "its execution ended without saying why; see the runner's log")
            else:
                continue
            del self.active[name]

    def _report(self, plane: ControlPlane) -> None:
        for name, (state, reason) in list(self.ends.items()):
            body = {"runner": self.name, "instance": self.instance, "run": name, "state": state}
            try:
                plane.call("POST", "/v1/runner/report", {**body, "reason": reason[:_LONGEST_REASON]})
            except NotFound:
                _LOG.warning("the control plane does not know run %s", name)
            except RemoteError as error:
                if error.status != 409:
                    raise
                _LOG.warning("run %s: %s", name, error)
            del self.ends[name]

    def _heartbeat(self, plane: ControlPlane) -> None:
        if not self.active or time.monotonic() < self._beat:
            return
        body = {"runner": self.name, "instance": self.instance, "runs": list(self.active)}
        told = plane.call("POST", "/v1/runner/heartbeat", body)["runs"]
        self._beat = time.monotonic() + min(self.lease_s / 3, 2.0)
        for name, word in told.items():
            if word == "go":
                continue
            self.active[name].cancel(LOST if word == "lost" else "cancelled")
            if word == "lost":
                _LOG.warning("run %s is another runner's now: it is ended here", name)
                del self.active[name]


def _name() -> str:
    place = hashlib.sha256(str(home().resolve()).encode()).hexdigest()[:8]
    return f"{socket.gethostname()}:{place}"
