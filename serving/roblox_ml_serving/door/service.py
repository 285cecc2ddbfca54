"""What both protocols share: the snapshot in use, the choice of a server, one second attempt, one set of metrics."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Any, TypeVar

from roblox_ml_core.http.budget import RetryBudget
from roblox_ml_core.policy import Decision, decide_for
from roblox_ml_core.settings import DoorSettings

from .authentication import Authentication
from .fleet import Fleet, Server
from .metrics import Metrics
from .recording import Recorder
from .refusals import Reason, Refusal, Refused
from .snapshot import EMPTY, Snapshot, Target, resolve
from .tracing import Tracing

if TYPE_CHECKING:
    from ..preprocess import Handler, Prepared

__all__ = ["Door", "Lost", "read_context", "read_unit", "timeout_seconds"]

TIMEOUT_HEADER = "x-rml-timeout-ms"
VERSION_HEADER = "x-rml-model-version"
MODEL_HEADER = "x-rml-model"
UNIT_HEADER = "x-rml-unit"
CONTEXT_HEADER = "x-rml-context"
ARMS_HEADER = "x-rml-arms"
FALLBACK_HEADER = "x-rml-fallback"
_MAX_CONTEXT, _MAX_UNIT = 4096, 256
_MAX_TIMEOUT_MS = 24 * 3600 * 1000
T = TypeVar("T")


class Lost(Exception):
    """A server did not answer for the model: its connection ended, or it does not hold the version (any more)."""


class Door:
    """The state of one door process. The snapshot is replaced as a whole, never changed."""

    def __init__(self, settings: DoorSettings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.fleet = Fleet()
        self.snapshot: Snapshot = EMPTY
        self.retries = RetryBudget()
        self.auth: Authentication = Authentication(None, anonymous=True)  # the process sets the real one
        self.recorder: Recorder = Recorder()
        self.prepared: Prepared | None = None  # set by the process that owns this door
        self.tracing: Tracing | None = None
        self._confirmed = time.monotonic()
        self.metrics.generation.set_function(lambda: self.snapshot.generation)
        self.metrics.age.set_function(lambda: time.monotonic() - self._confirmed)

    def adopt(self, snapshot: Snapshot) -> None:
        """Use another snapshot from the next request on."""
        self.fleet.update(snapshot)
        self.snapshot = snapshot
        self.recorder.adopt(snapshot.rules)
        if self.prepared is not None:
            champions = [entry for entry in snapshot.endpoints.values() if isinstance(entry, Target)]
            self.prepared.adopt([*champions, *snapshot.challengers.values()])

    def confirm(self, age_s: float = 0.0) -> None:
        """The control plane said, `age_s` seconds ago, that the snapshot in use is the current one."""
        self._confirmed = time.monotonic() - age_s

    @property
    def ready(self) -> bool:
        """A snapshot is there, from the control plane or from the disk."""
        return self.snapshot is not EMPTY

    def target(self, endpoint: str) -> Target:
        """Which version answers `endpoint`.

        Raises:
            Refused: nothing does.
        """
        entry = resolve(self.snapshot, endpoint)
        if isinstance(entry, Refusal):
            raise Refused.of(entry)
        return entry

    def admit(self, authorization: str | None, endpoint: str) -> Target:
        """Which version answers `endpoint`, for somebody who may ask it.

        Raises:
            Refused: who asks is nobody, or may not; else that nothing answers. Names of endpoints are told only to who is known.
        """
        entry = resolve(self.snapshot, endpoint)
        if isinstance(entry, Refusal):
            self.auth.check_client(authorization)
            raise Refused.of(entry)
        self.auth.check(authorization, entry.serving.model)
        return entry

    def decide(
        self, endpoint: str, unit: str | None = None, context: str | None = None, inference_id: str = ""
    ) -> tuple[Decision, Target]:
        """Who should answer this request, and who will: the champion where the one that should is not ready.

        `context` is the request's JSON, read only where something depends on it.

        Raises:
            Refused: nothing answers the endpoint, or the context is no JSON object.
        """
        champion = self.target(endpoint)
        rules = self.snapshot.rules.endpoints[endpoint]
        if rules.plain:
            return decide_for(rules, unit), champion
        facts = {**(read_context(context) if context and rules.contextual else {}), "inference_id": inference_id}
        decision = decide_for(rules, unit, facts)
        if decision.ref is decision.champion:
            return decision, champion
        return decision, self.snapshot.target_of(endpoint, decision.ref) or champion

    def handler(self, target: Target) -> Handler | None:
        """Who answers the target's requests; None where bytes pass through."""
        if target.serving.preprocess is None or self.prepared is None:
            return None
        return self.prepared.handler(target)

    def tensors(self, target: Target) -> tuple[list[dict[str, Any]], list[dict[str, Any]]] | None:
        """Inputs and outputs that clients see; None where they are the model's own."""
        handler = self.handler(target)
        return None if handler is None else getattr(handler, "tensors", None)

    def refuse_version(self, endpoint: str) -> Refused:
        """The answer to a client that names a version."""
        return Refused(
            Reason.VERSION_NAMED,
            f"endpoint {endpoint[:80]!r} was asked for a version: which version answers is decided behind the endpoint, so that "
            f"promotion and rollback reach every client. Leave the version out; the answer names it in {VERSION_HEADER}",
        )

    def lease(self, target: Target, avoid: Collection[Server] = (), drawn: Server | None = None) -> Server:
        """A ready server (`drawn` if it is still there), with one more request counted as under way there until `give_back`.

        Raises:
            Refused: there is none, or it has as many of the version under way as it may.
        """
        if drawn is not None and drawn in self.fleet:
            server: Server | None = drawn
        else:
            server = self.fleet.choose(target, avoid) or self.fleet.choose(target)
        if server is None:
            raise Refused(
                Reason.NOT_READY, f"the servers of endpoint {target.endpoint!r} have just left; ask again in a moment"
            )
        running = server.under_way.get(target.triton_model, 0)
        if target.concurrency and running >= target.concurrency:
            raise Refused(
                Reason.BUSY,
                f"endpoint {target.endpoint!r} has {running} requests under way on {server.name}, as many as it may; "
                "ask again in a moment",
                max(0.05, server.health.latency_s),
            )
        server.under_way[target.triton_model] = running + 1
        server.health.in_flight += 1
        return server

    def give_back(self, server: Server, target: Target) -> None:
        """The request that `lease` counted has ended."""
        server.under_way[target.triton_model] -= 1
        server.health.in_flight -= 1

    async def ask(
        self,
        target: Target,
        protocol: str,
        call: Callable[[Server, Target], Awaitable[T]],
        *,
        again: bool = True,
        lost: tuple[Server, Lost] | None = None,
        drawn: Server | None = None,
    ) -> T:
        """Call a ready server; when it is lost, once more, on another one if there is one (inference may run twice).

        The second attempt costs a part of the retry budget, and asks the newest snapshot, which may know better by now. `lost` is a
        first attempt that was made already and came to nothing; `drawn` is who is to be asked first.

        Raises:
            Refused: every attempt was lost, or the version has as much under way as it may.
        """
        attempts = [] if lost is None else [lost]
        while True:
            if attempts:
                if not again or len(attempts) > 1 or not self.retries.spend():
                    break
                self.metrics.retries.labels(protocol).inc()
                target = self.newest(target)
            else:
                self.retries.earn()
            server = self.lease(target, [tried for tried, _ in attempts], None if attempts else drawn)
            started = time.monotonic()
            try:
                answer = await call(server, target)
            except Lost as error:
                self.fleet.failed(server, lost=True)
                attempts.append((server, error))
            except Refused as refused:
                if refused.refusal.reason is Reason.DEADLINE:
                    self.fleet.failed(server, lost=False)
                raise
            else:
                server.health.succeeded(time.monotonic() - started)
                return answer
            finally:
                self.give_back(server, target)
        asked = "asked twice" if len(attempts) > 1 else "asked once"
        why = "; ".join(f"{server.name}: {error}" for server, error in attempts)
        raise Refused(
            Reason.UPSTREAM_LOST,
            f"no model server answered for endpoint {target.endpoint!r}, {asked} ({why}); ask again in a moment",
        )

    def newest(self, target: Target) -> Target:
        """The same version's target in the snapshot of this moment; the one given where it has none any more."""
        entry = self.snapshot.endpoints.get(target.endpoint)
        if isinstance(entry, Target) and entry.serving.key == target.serving.key:
            return entry
        return self.snapshot.challengers.get((target.endpoint, target.serving.key)) or (
            entry if isinstance(entry, Target) else target
        )

    async def with_fallback(
        self,
        decision: Decision,
        target: Target,
        ask: Callable[[Target, bool], Awaitable[T]],
    ) -> tuple[Target, T, Refused | None]:
        """The answer of `target`; where that is a challenger and fails, once, the champion's, and why.

        `ask(target, is_challenger)` raises `Refused` when the model did not answer; what a model says of the client's input is an answer.
        """
        if decision.role == "champion" or target.serving.key == decision.champion.key:
            return target, await ask(target, False), None
        try:
            return target, await ask(target, True), None
        except Refused as refused:
            if refused.refusal.reason.http_status < 429:
                raise  # the client's own mistake
            self.metrics.fallbacks.labels(target.endpoint, target.version_text).inc()
            champion = self.target(target.endpoint)
            return champion, await ask(champion, False), refused


def read_context(text: str) -> dict[str, Any]:
    """The attributes of a `x-rml-context` value.

    Raises:
        Refused: it is too long, or no JSON object.
    """
    if len(text) > _MAX_CONTEXT:
        raise Refused(Reason.BAD_REQUEST, f"{CONTEXT_HEADER} has {len(text)} bytes; at most {_MAX_CONTEXT} are read")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Refused(Reason.BAD_REQUEST, f'{CONTEXT_HEADER} is {text[:60]!r}; give a JSON object: {{"country": "DE"}}')
    return found


def read_unit(text: str | None) -> str | None:
    """The unit id of a `x-rml-unit` value.

    Raises:
        Refused: it is too long to be one.
    """
    if text is not None and len(text) > _MAX_UNIT:
        raise Refused(Reason.BAD_REQUEST, f"{UNIT_HEADER} has {len(text)} characters; at most {_MAX_UNIT} name a unit")
    return text or None


def timeout_seconds(text: str | None, default: float) -> float:
    """Seconds of a `x-rml-timeout-ms` value, or the default.

    Raises:
        Refused: it is not a positive whole number of milliseconds.
    """
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or len(text) > 9 or not 0 < int(text) <= _MAX_TIMEOUT_MS:
        raise Refused(
            Reason.BAD_REQUEST,
            f"{TIMEOUT_HEADER} is {text[:40]!r}; give milliseconds, a whole number from 1 to {_MAX_TIMEOUT_MS}",
        )
    return int(text) / 1000
