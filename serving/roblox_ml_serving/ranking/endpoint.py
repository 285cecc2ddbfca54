"""Preprocess kind "ranking": a user and candidates in, the best of them out.

    parse → features from the cache or the feature server → rows → model server → scores → the best k

The time that is left is shared: fetching features gets a part of it (the package says which), the model the rest. Features that
have not come by then are defaults, counted, and never an error unless the package says that a view is required.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

import numpy as np
from roblox_ml_core.http import Response
from roblox_ml_core.settings import FeaturesSettings

from ..door.exchange import exchange
from ..door.fleet import Server
from ..door.refusals import Reason, Refused
from ..door.service import Door
from ..door.snapshot import Target
from ..preprocess.kinds import Call
from .answer import Headers, Ranked, to_grpc, to_rest
from .cache import empty_row, row_type
from .client import FeatureClient
from .features import Features, Gathered
from .matrix import Matrix, build
from .measures import Measures
from .request import BadRequest, RankingRequest, from_grpc, from_rest
from .scoring import best, decode, encode
from .spec import FILE, RankingSpec, SpecInvalid, View
from .wire import Key

__all__ = ["RankingEndpoint", "RankingKind", "open_kind"]

T = TypeVar("T")
#: Larger requests are read and made into rows in a thread: others must not wait for one.
INLINE_BODY, INLINE_CANDIDATES = 65_536, 2_000
_INFER = b"/infer"


class RankingKind:
    """All ranking endpoints of one door process."""

    def __init__(self, door: Door, settings: FeaturesSettings) -> None:
        self._door = door
        self._measures = Measures(door.metrics.registry)
        token = settings.token.get_secret_value() if settings.token else None
        client = FeatureClient(settings.url, token)
        self._features = Features(
            client, self._measures, max_bytes=settings.cache_bytes, fetch_s=settings.fetch_timeout_s
        )
        self._endpoints: dict[tuple[str, str], RankingEndpoint] = {}  # by endpoint and version
        self._wanted: Collection[tuple[str, str]] | None = None  # those that answer, asked or not yet

    def load(self, files: Mapping[str, Path]) -> RankingSpec:
        if FILE not in files:
            raise SpecInvalid(f"the snapshot names no {FILE}")
        return RankingSpec.read(files[FILE].read_bytes())

    def handler(self, target: Target, loaded: RankingSpec) -> RankingEndpoint:
        key = (target.endpoint, target.serving.key)
        known = self._endpoints.get(key)
        if known is None or known.target is not target:
            known = self._endpoints[key] = RankingEndpoint(self._door, target, loaded, self._features, self._measures)
            self._keep()
        return known

    def adopt(self, targets: Collection[Target]) -> None:
        self._wanted = {(target.endpoint, target.serving.key) for target in targets}
        self._keep()

    async def close(self) -> None:
        await self._features.close()

    def _keep(self) -> None:
        """Forget what answers no more. A version that nobody has asked yet most likely reads the views of the one before:
        until it is asked, those of its endpoint stay, or every promotion would begin with an empty cache."""
        if (wanted := self._wanted) is not None:
            unasked = {key[0] for key in wanted if key not in self._endpoints}
            kept = {key: known for key, known in self._endpoints.items() if key in wanted or key[0] in unasked}
            self._endpoints = kept
        self._features.adopt([view for endpoint in self._endpoints.values() for view in endpoint.spec.views])


class RankingEndpoint:
    """One endpoint at one version."""

    def __init__(self, door: Door, target: Target, spec: RankingSpec, features: Features, measures: Measures) -> None:
        self.target, self.spec = target, spec
        self._door = door
        self._features = features
        self._measures = measures
        self._values = measures.values.labels(target.endpoint)
        self._candidates = measures.candidates.labels(target.endpoint)

    @property
    def tensors(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Inputs and outputs as clients see them: not the model's."""
        return self.spec.inputs, self.spec.outputs

    async def rest(self, body: bytes, json_length: int | None, deadline: float, call: Call) -> tuple[Headers, bytes]:
        request = await self._read(len(body), from_rest, body, json_length, self.spec)
        ranked = await self._rank(request, deadline, call, "rest")
        return to_rest(request, self.target.endpoint, self.target.version_text, ranked)

    async def grpc(self, message: bytes, deadline: float, call: Call) -> bytes:
        request = await self._read(len(message), from_grpc, message, self.spec)
        ranked = await self._rank(request, deadline, call, "grpc")
        return to_grpc(request, self.target.endpoint, self.target.version_text, ranked)

    # -- inside ------------------------------------------------------------------------------------------------------

    async def _read(self, size: int, read: Callable[..., RankingRequest], *what: Any) -> RankingRequest:
        try:
            return read(*what) if size <= INLINE_BODY else await asyncio.to_thread(read, *what)
        except BadRequest as error:
            raise Refused(Reason.BAD_REQUEST, str(error)) from None

    async def _rank(self, request: RankingRequest, deadline: float, call: Call, protocol: str) -> Ranked:
        spec, keys = self.spec, request.candidates
        self._candidates.observe(len(keys))
        if not keys:
            return Ranked((), np.zeros(0, np.float32), spec.candidates, 0)
        matrix = await self._matrix(request, deadline)
        scores = await self._scores(matrix.rows, deadline, protocol)
        order, unscored = best(scores, self._k(call))
        if unscored:
            self._measures.unscored.labels(self.target.endpoint).inc(unscored)
            if unscored == len(keys):
                raise Refused(
                    Reason.BAD_UPSTREAM,
                    f"endpoint {self.target.endpoint!r}: the model's score of every candidate is no number",
                )
        defaulted = sum(one.values for one in matrix.defaulted)
        return Ranked([keys[place] for place in order.tolist()], scores[order], spec.candidates, defaulted)

    async def _matrix(self, request: RankingRequest, deadline: float) -> Matrix:
        gathered = await self._gather(request, deadline)
        for view, one in zip(self.spec.views, gathered, strict=True):
            if view.required and one.unanswered:
                self._measures.refused.labels(self.target.endpoint, view.name).inc()
                raise Refused(
                    Reason.UPSTREAM_LOST,
                    f"endpoint {self.target.endpoint!r} needs the features of {view.name}, and the feature server did not "
                    f"answer ({one.why}); ask again in a moment",
                )
        what = (self.spec, gathered, request.context, len(request.candidates), monotonic())
        is_small = len(request.candidates) <= INLINE_CANDIDATES
        matrix = build(*what) if is_small else await asyncio.to_thread(build, *what)
        self._values.inc(matrix.values)
        for feature, reason, count in matrix.defaulted:
            self._measures.defaulted.labels(self.target.endpoint, feature, reason).inc(count)
        return matrix

    async def _gather(self, request: RankingRequest, deadline: float) -> list[Gathered]:
        """Each view's rows. Nobody in particular has no features, and nobody is asked for them."""
        now = asyncio.get_running_loop().time()
        until = now + self.spec.features_share * max(0.0, deadline - now)
        sides: dict[str, Sequence[Key]] = {"item": request.candidates, "user": (request.user,) if request.user else ()}
        asked = [(view, sides[view.of]) for view in self.spec.views if sides[view.of]]
        found = iter(await self._features.gather(asked, until) if asked else ())
        return [next(found) if sides[view.of] else _nobody(view) for view in self.spec.views]

    async def _scores(self, rows: Any, deadline: float, protocol: str) -> Any:
        headers, body = encode(self.spec, rows)

        async def call(server: Server, target: Target) -> Response:
            return await exchange(server, target, b"POST", _INFER, headers, body, deadline)

        response = await self._door.ask(self.target, protocol, call)
        what = f"endpoint {self.target.endpoint!r}: its model"
        if response.status != 200:
            said = response.body[:300].decode("utf-8", "replace")
            raise Refused(Reason.BAD_UPSTREAM, f"{what} answered {response.status}: {said}")
        try:
            return decode(self.spec, response, len(rows))
        except (ValueError, KeyError, TypeError) as error:
            raise Refused(Reason.BAD_UPSTREAM, f"{what} gave an answer that cannot be read: {error}") from error

    def _k(self, call: Call) -> int:
        """How many are wanted: as the unit's experiments say, else as the package does."""
        wanted = call.params.get("k", self.spec.k)
        if type(wanted) is int and wanted >= 1:
            return wanted
        self._measures.bad_params.labels(self.target.endpoint).inc()
        return self.spec.k


def _nobody(view: View) -> Gathered:
    size = len(view.features)
    return Gathered(np.frombuffer(empty_row(size, answered=True), row_type(size)))


def open_kind(door: Door) -> RankingKind:
    """The kind "ranking" of a door."""
    return RankingKind(door, FeaturesSettings())
