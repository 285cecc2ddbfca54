"""Follow the control plane's snapshot in a thread, and know how old what one has is.

Old is what the control plane has not called the current one for a while: it may be away, or unreachable from here, and somebody may
have rolled back meanwhile. After `max_age` nobody gets an answer by it.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from .. import _siblings
from .._addresses import control_url, translated
from .._credentials import token_for
from .._rollouts.forking import renewed_after_fork
from ..errors import NotRunning
from .view import View

__all__ = ["Follower", "SnapshotTooOld"]

_LONGEST_WAIT_S = 20.0
_TIMEOUT_S = 10.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0


class SnapshotTooOld(NotRunning):
    """The control plane has been away for longer than decisions may go on without it."""


class Follower:
    """Keeps the current view of an endpoint.

    Args:
        read: makes a view of a document and the view before.
        adopt: is told of each new view before anybody decides by it.
    """

    def __init__(
        self,
        endpoint: str,
        max_age: float,
        read: Callable[[Mapping[str, Any], View | None], View],
        adopt: Callable[[View], None],
    ) -> None:
        self.endpoint, self.max_age = endpoint, max_age
        self._read, self._adopt = read, adopt
        self._wait = min(_LONGEST_WAIT_S, max_age / 3)  # an idle control plane confirms three times before it is missed
        self._plane: Any = None
        self._begin()
        try:
            with translated():
                self.view = self._next(self._poll(None), None, None)
        except BaseException:
            self._close()
            raise
        renewed_after_fork(self)
        self._ensure()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        #: Why there is no news; empty when there is.
        self.problem = ""
        self._fix = ""

    def renew(self) -> None:
        """In a forked process: what is known stays true; the thread and its connection are the parent's."""
        stopped = self._stop.is_set()
        self._begin()
        self._plane = None
        if stopped:
            self._stop.set()

    @property
    def age(self) -> float:
        """Seconds since the control plane said that the view is the current one."""
        return max(0.0, _now() - self._confirmed)

    def current(self) -> View:
        """The view to decide by.

        Raises:
            SnapshotTooOld: it may not be used any more.
            NotRunning: the client is closed.
        """
        if self._stop.is_set():
            raise NotRunning(
                f"the direct client of endpoint {self.endpoint!r} is closed", fix=f"rml.direct({self.endpoint!r})"
            )
        thread = self._thread
        if thread is None or not thread.is_alive():  # a forked process has no threads but its own
            self._ensure()
        age, view = self.age, self.view  # in this order: a view is never older than it was called
        if age > self.max_age:
            since = datetime.fromtimestamp(time.time() - age, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
            raise SnapshotTooOld(
                f"endpoint {self.endpoint!r} is not answered: the snapshot is {age:.1f} s old, and max_age is {self.max_age:g} s",
                why=f"no news from the control plane since {since}: {self.problem or 'it has not answered yet'}",
                fix=f"{self._fix or 'look at `rml status`'}; the door goes on without it: rml.endpoint({self.endpoint!r}).predict(…)",
            )
        return view

    def stop(self) -> None:
        """Follow no more. The thread ends with the poll that is under way."""
        self._stop.set()

    def _ensure(self) -> None:
        with self._lock:
            if self._stop.is_set() or (self._thread is not None and self._thread.is_alive()):
                return
            self._thread = threading.Thread(target=self._run, args=(self._stop,), name="rml-direct", daemon=True)
            self._thread.start()

    def _run(self, stop: threading.Event) -> None:
        after: int | None = self.view.generation
        pause = _FIRST_PAUSE_S
        while not stop.is_set():
            asked = _now()
            try:
                with translated():
                    view = self._next(self._poll(after), self.view, after)
                if view.generation == after and _now() - asked < min(0.5, self._wait / 2):
                    stop.wait(
                        min(1.0, self._wait)
                    )  # a control plane that does not wait must not be asked without pause
                after, pause, self.problem = view.generation, _FIRST_PAUSE_S, ""
            except Exception as error:  # whatever it is: the last view goes on being used, and grows older
                self.problem, self._fix = getattr(error, "message", "") or repr(error), getattr(error, "fix", "")
                self._close()
                # Afterwards ask for whatever is current: a restored database may count from a lower generation.
                after = None
                stop.wait(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads clients, hides nothing
                pause = min(2 * pause, _LONGEST_PAUSE_S)
        self._close()

    def _poll(self, after: int | None) -> dict[str, Any]:
        if self._plane is None:  # anew after each failure: the stack may be elsewhere by now, a token be renewed
            url = control_url()
            client = _siblings.load("roblox_ml_core.registry").RegistryClient
            self._plane = client(url, token_for(url), timeout=_TIMEOUT_S)
        document: dict[str, Any] = self._plane.snapshot(after, 0.0 if after is None else self._wait)
        return document

    def _next(self, document: dict[str, Any], before: View | None, after: int | None) -> View:
        arrived = _now()
        view = before
        # Whoever asks for what is current takes it: a restored database may have come to the same number in another way.
        if before is None or after is None or not _same(document, before):
            view = self._read(document, before)
            self._adopt(view)
            self.view = view
        self._confirmed = arrived
        assert view is not None
        return view

    def _close(self) -> None:
        plane, self._plane = self._plane, None
        if plane is not None:
            plane.close()


def _same(document: Mapping[str, Any], view: View) -> bool:
    return document.get("generation") == view.generation and document.get("digest") == view.digest


def _now() -> float:
    """Seconds that go on while the machine sleeps, where the system counts them: a snapshot ages in its sleep too."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)
