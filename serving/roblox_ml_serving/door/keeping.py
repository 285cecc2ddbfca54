"""The recorder of a door that keeps records: a row per request, new exposures, outcomes that clients report, questions for shadows.

It runs after the answer is made and before it is written, so it does nothing but put tuples into bounded lists.
"""

from __future__ import annotations

import logging
import re
import socket
import time
from collections.abc import Callable

from roblox_ml_core.errors import RmlError, TooLarge
from roblox_ml_core.policy import Policy, Ref
from roblox_ml_core.records import NullRecords, Records, Row, Seen, parse_events, parse_exposures
from roblox_ml_core.records.schema import DAY_US
from roblox_ml_core.records.stream import Stream
from roblox_ml_core.settings import HomeSettings, RecordsSettings

from .exchange import HEADER_LENGTH
from .recording import Recorder, Served
from .refusals import Reason, Refused
from .service import Door
from .shadow_asking import asker
from .shadowing import NullShadows, ShadowJob, Shadows
from .snapshot import Target

__all__ = ["Keeper", "keeper"]

logger = logging.getLogger(__name__)
_MOST_DONE = 100_000
_QUIET_S = 60.0


class Keeper(Recorder):
    """Puts what `Served` tells into the records, and asks the shadows."""

    def __init__(self, door: Door, records: Records | NullRecords, shadows: Shadows | NullShadows) -> None:
        self._door, self._records, self._shadows = door, records, shadows
        self._seen = Seen()
        self._done: set[int] = set()
        self._quiet_until = 0.0

    def adopt(self, rules: Policy) -> None:
        """What is kept of each endpoint from now on."""
        self._records.adopt({name: endpoint.log for name, endpoint in rules.endpoints.items()})

    def record(self, served: Served, seconds: float, request: bytes, answer: bytes) -> None:
        try:
            self._record(served, seconds, request, answer)
        except Exception:  # the answer is there: no mistake of ours may take it back
            if (now := time.monotonic()) >= self._quiet_until:  # what fails once may fail for every request
                self._quiet_until = now + _QUIET_S
                logger.exception("a request could not be recorded; the next minute's are not told")

    def _record(self, served: Served, seconds: float, request: bytes, answer: bytes) -> None:
        decision, target = served.decision, served.target
        if target is None:
            return
        records, identity = self._records, served.identity
        now_us = time.time_ns() // 1000
        latency_us = int(seconds * 1e6)
        if records.requests.sample(identity, decision.log_rate):
            asked = answered = None
            if records.policy(target.endpoint).bodies:
                asked, answered = records.body(request), records.body(answer)
            serving = target.serving
            records.requests.offer(
                (
                    now_us, identity, target.endpoint, serving.model, serving.version, decision.role,
                    served.arms, served.unit or "", served.protocol, served.status,
                    latency_us, served.fallback, asked, answered,
                )
            )  # fmt: skip
        if served.status >= 400:
            return
        if decision.reached:
            # As of the request's arrival: the client has its answer before this line, and may have told an outcome already.
            self._expose(served, target, now_us - latency_us)
        if decision.shadows:
            self._ask_shadows(served, target, latency_us, request, answer)

    def _expose(self, served: Served, target: Target, now_us: int) -> None:
        """Only arms that were reached: where the champion stood in for the arm's model, the unit saw no arm of it."""
        decision = served.decision
        day = now_us // DAY_US
        reached = not served.fallback and target.serving.key == decision.ref.key
        # One look for all layers: a unit that asks again is the usual case.
        whole = hash((served.arms, decision.subjects, target.endpoint, day, reached))
        if whole in self._done:
            return
        if len(self._done) >= _MOST_DONE:
            self._done.clear()
        self._done.add(whole)
        for experiment, arm, kind, unit in decision.exposures:
            if (experiment, arm) == decision.chosen and not reached:
                continue
            if not self._seen.first(experiment, unit, arm, day):
                continue
            row = (now_us, served.identity, target.endpoint, experiment, arm, kind, unit, target.serving.version)
            if not self._records.exposures.offer(row):
                self._seen.forget(experiment, unit)
                self._done.discard(whole)

    def _ask_shadows(self, served: Served, target: Target, latency_us: int, request: bytes, answer: bytes) -> None:
        serving = target.serving
        primary = Ref(serving.model, serving.version, serving.digest)
        length = next((value for name, value in served.answer_headers if name == HEADER_LENGTH), None)
        for ref in served.decision.shadows:
            if ref.key != primary.key:  # the champion's fallback may have made them the same
                self._shadows.offer(
                    ShadowJob(
                        target.endpoint, ref, primary, served.identity, served.protocol, answer,
                        int(length) if length is not None and length.isdigit() else None, latency_us,
                        len(request) + len(answer), asker(self._door, served, ref, target.endpoint, request), served.unit or "",
                    )
                )  # fmt: skip

    def track(self, body: bytes) -> tuple[int, int]:
        return _take(body, parse_events, self._records.events)

    def expose(self, body: bytes) -> tuple[int, int]:
        return _take(body, parse_exposures, self._records.exposures)

    async def close(self) -> None:
        await self._shadows.close()
        await self._records.close()


def _take(body: bytes, parse: Callable[[bytes], list[Row]], stream: object) -> tuple[int, int]:
    try:
        rows = parse(body)
    except TooLarge as error:
        raise Refused(Reason.TOO_LARGE, str(error)) from None
    except RmlError as error:
        raise Refused(Reason.BAD_REQUEST, str(error)) from None
    accepted = sum(map(stream.offer, rows)) if isinstance(stream, Stream) else 0
    return accepted, len(rows) - accepted


def keeper(door: Door, home: HomeSettings, port: int, settings: RecordsSettings | None = None) -> Recorder:
    """The recorder of a door as the settings want it, started; its metrics are among the door's."""
    settings = settings or RecordsSettings()
    if not settings.enabled:
        return Keeper(door, NullRecords(), _shadows(door, NullRecords(), settings))
    host = re.sub(r"[^A-Za-z0-9.-]+", "-", socket.gethostname()).strip("-.")[:40] or "door"
    records = Records(
        settings.resolve(home), door=f"{host}-{port}", settings=settings, spool=str(home.root / "records-spool")
    )
    records.start()
    door.metrics.registry.register(records)
    return Keeper(door, records, _shadows(door, records, settings))


def _shadows(door: Door, records: Records | NullRecords, settings: RecordsSettings) -> Shadows:
    shadows = Shadows(records, settings, door.fleet.in_flight)
    door.metrics.registry.register(shadows)
    return shadows
