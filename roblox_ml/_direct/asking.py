"""One call: decide, ask a server of the version, once more or the champion where that came to nothing, count, say who was reached."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

from .._rollouts.forking import renewed_after_fork
from ..errors import NotRunning, RemoteError, RmlSdkError
from .exposing import Exposures
from .following import Follower, SnapshotTooOld
from .rest import Late, Lost
from .servers import Server, Servers
from .view import Target, View

__all__ = ["Asker", "Attempt", "Reached"]

# A challenger that does not answer must leave the champion time to.
_CHALLENGERS_PART = 0.5


class Reached(NamedTuple):
    """What came of a call: `status` as HTTP has it, `payload` whatever the protocol answered with."""

    status: int
    payload: Any
    target: Target
    identity: str
    arms: dict[str, str]
    fallback: bool


#: Asks one server for a version before a deadline: (status, payload), or raises Lost or Late.
Attempt = Callable[[Server, Target, float], tuple[int, Any]]


class Asker:
    """Whatever the protocol. For many threads."""

    def __init__(self, endpoint: str, follower: Follower, servers: Servers, exposures: Exposures) -> None:
        self._endpoint, self._follower, self._servers, self._exposures = endpoint, follower, servers, exposures
        self.renew()
        renewed_after_fork(self)

    def renew(self) -> None:
        """In a forked process: it counts what it asks itself."""
        self._lock = threading.Lock()
        self._counts = {"requests": 0, "errors": 0, "fallbacks": 0, "retries": 0, "too_old": 0}
        self._answered: dict[int, int] = {}

    def counts(self) -> dict[str, Any]:
        """`requests` = `errors` + all of `answered` (by version)."""
        with self._lock:
            return {**self._counts, "answered": dict(sorted(self._answered.items()))}

    def view(self) -> View:
        """The view to ask by. A call that ends here is counted.

        Raises:
            SnapshotTooOld, NotFound, NeedsDoor, NotRunning: nothing can be asked by it.
        """
        try:
            view = self._follower.current()
            view.ready()
        except RmlSdkError as error:
            with self._lock:
                self._counts["requests"] += 1
                self._counts["errors"] += 1
                self._counts["too_old"] += isinstance(error, SnapshotTooOld)
            raise
        return view

    def call(self, attempt: Attempt, unit: str | None, context: str, timeout: float) -> Reached:
        """`context` is JSON, read only where something depends on it.

        Raises:
            As `view`; NotRunning, RemoteError: no server answered.
        """
        view, identity, started = self.view(), uuid.uuid4().hex, time.monotonic()
        # Through JSON, as the door reads it: a tuple has become a list, a key a text.
        facts = json.loads(context) if context and view.rules.contextual else {}
        decision, target = view.decide(unit, facts, identity)
        champion = view.ready()
        self._servers.earn()
        fallback = False
        status, payload = 500, None
        try:
            if target is not champion:
                try:
                    status, payload = self._ask(attempt, target, started + _CHALLENGERS_PART * timeout)
                except (NotRunning, RemoteError):
                    status = 500
                fallback = status >= 500
            if fallback or target is champion:
                target = champion
                status, payload = self._ask(attempt, target, started + timeout)
        except BaseException:
            self._count(None, fallback)
            raise
        self._count(target.version if status < 500 else None, fallback)
        if not decision.reached:
            return Reached(status, payload, target, identity, {}, fallback)
        if status < 400:
            reached = not fallback and target.key == decision.ref.key
            self._exposures.log(decision, target.version, identity, reached=reached)
        return Reached(status, payload, target, identity, dict(decision.arms), fallback)

    def _ask(self, attempt: Attempt, target: Target, deadline: float) -> tuple[int, Any]:
        """The answer of one version: of a ready server, and where that one was lost once more, of another one if there is one.

        Raises:
            NotRunning: none answered.
            RemoteError: none did before the deadline.
        """
        tried: list[Server] = []
        said: list[str] = []
        while True:
            server = self._servers.lease(target.servers, tried)
            if server is None:
                raise NotRunning(
                    f"no model server of {target.key} can be asked for endpoint {self._endpoint!r}",
                    why="its servers have just left, or report no usable address",
                    fix="ask again in a moment, or look at `rml status`",
                )
            started = time.monotonic()
            try:
                answer = attempt(server, target, deadline)
            except Lost as error:
                self._servers.failed(server, lost=True)
                tried.append(server)
                said.append(f"{server.name}: {error}")
            except Late as error:
                self._servers.failed(server, lost=False)
                raise RemoteError(
                    f"{target.key} did not answer for endpoint {self._endpoint!r} before the deadline",
                    why=f"{server.name}: {error}", fix="a longer timeout=, or look at `rml status`", status=504,
                ) from None  # fmt: skip
            else:
                self._servers.answered(server, time.monotonic() - started)
                return answer
            finally:
                self._servers.give_back(server)
            if len(tried) > 1 or time.monotonic() >= deadline or not self._servers.spend():
                raise NotRunning(
                    f"no model server answered for {target.key} of endpoint {self._endpoint!r}", why="; ".join(said),
                    fix="ask again in a moment, or look at `rml status` and `rml logs triton`",
                )  # fmt: skip
            with self._lock:
                self._counts["retries"] += 1

    def _count(self, version: int | None, fallback: bool) -> None:
        with self._lock:
            self._counts["requests"] += 1
            self._counts["fallbacks"] += fallback
            if version is None:
                self._counts["errors"] += 1
            else:
                self._answered[version] = self._answered.get(version, 0) + 1
