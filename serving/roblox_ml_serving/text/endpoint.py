"""Preprocess kind "text": a v2 request with texts in, labels with scores (or named entities) out.

    parse → tokenise → cache → queue → batches to the model servers → softmax or entities → answer

The queue belongs to a model version: endpoints that serve the same version share it. Cache and limits belong to the
endpoint. What the cache keeps is the model's own numbers under the package's digest and the text's token ids, so a cached
answer is the computed one, and another version can never be answered from it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..backends.rml_text_engines import Grid
from ..backends.rml_text_heads import entities_json, softmax
from ..backends.rml_text_plan import EnginePlan, PlanError, TextPlan, allowed, cpu_flags, read_plan
from ..backends.rml_text_tokens import Encoded, Tokens, as_text
from ..door.refusals import Reason, Refused
from ..door.service import Door
from ..door.snapshot import Target, Version
from ..preprocess.kinds import Call
from ..preprocess.spec import Policy
from .answer import to_grpc, to_rest
from .batching import Cost, Queue
from .cache import AnswerCache
from .dispatch import BatchLost, Dispatcher, Expired, Overloaded
from .measures import BatchMeter, Measures
from .request import OUTPUTS, BadRequest, TextRequest, from_grpc, from_rest
from .upstream import Replicas

__all__ = ["TextEndpoint", "TextKind", "TextModel", "open_kind"]

T = TypeVar("T")
PLAN, TOKENIZER = "model/text.json", "model/tokenizer.json"
#: More than this is tokenised in a thread, in slices: others must not wait for one large request.
INLINE_TEXTS, INLINE_BYTES, SLICE = 32, 16_384, 128
#: Larger bodies are read, and answers for more texts are written, in a thread.
INLINE_BODY, INLINE_ROWS = 65_536, 128


@dataclass(frozen=True, slots=True)
class TextModel:
    """What the files of a text-cpu package say."""

    plan: TextPlan
    tokens: Tokens

    @classmethod
    def read(cls, files: Mapping[str, Path]) -> TextModel:
        """Raises:
        ValueError: a file is missing or cannot be used.
        """
        missing = [name for name in (PLAN, TOKENIZER) if name not in files]
        if missing:
            raise ValueError(f"the snapshot names no {' and no '.join(missing)}")
        try:
            plan = read_plan(files[PLAN].read_bytes())
            return cls(plan, Tokens(files[TOKENIZER].read_text(encoding="utf-8"), plan))
        except PlanError:
            raise
        except Exception as error:  # the tokenizers library raises bare Exception
            raise ValueError(f"{TOKENIZER} cannot be used: {error}") from error

    @property
    def engine(self) -> EnginePlan:
        """The one that a server like this machine would open; measured times correct what it says of its cost."""
        return allowed(self.plan, cpu_flags())[0]

    @property
    def cost(self) -> Cost:
        return Cost(self.engine.cost.call_us, self.engine.cost.token_us)


class _Serving:
    """One model version: its queue, its servers, its counters."""

    def __init__(self, door: Door, measures: Measures, version: Version, model: TextModel) -> None:
        self.version = version
        self._measures, self._labels = measures, (version.model, str(version.version))
        meter = BatchMeter(measures, *self._labels)
        self.replicas = Replicas(door.fleet, version, model.plan.task == "token")
        grid = Grid.of(model.engine, model.plan)
        queue = Queue(model.plan.buckets, model.plan.batch_tokens, model.cost, width=grid.width)
        self.dispatcher = Dispatcher(self.replicas, queue, observer=meter)
        measures.rows.labels(*self._labels).set_function(lambda: queue.rows)
        measures.correction.labels(*self._labels).set_function(lambda: queue.cost.correction)

    async def close(self) -> None:
        self.dispatcher.close()
        await self.replicas.close()
        for gauge in (self._measures.rows, self._measures.correction):
            gauge.remove(*self._labels)


class TextKind:
    """All text endpoints of one door process."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._measures = Measures(door.metrics.registry)
        self._serving: dict[Version, _Serving] = {}
        self._endpoints: dict[tuple[str, str], TextEndpoint] = {}  # by endpoint and version: challengers answer too
        self._caches: dict[str, tuple[Policy, AnswerCache]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def load(self, files: Mapping[str, Path]) -> TextModel:
        return TextModel.read(files)

    def handler(self, target: Target, loaded: TextModel) -> TextEndpoint:
        key = (target.endpoint, target.serving.key)
        known = self._endpoints.get(key)
        if known is None or known.target is not target:
            serving = self._serving.get(target.serving)
            if serving is None:
                serving = self._serving[target.serving] = _Serving(self._door, self._measures, target.serving, loaded)
            serving.replicas.names = target.replicas
            known = TextEndpoint(target, loaded, serving.dispatcher, self._cache(target), self._measures)
            self._endpoints[key] = known
        return known

    def adopt(self, targets: Collection[Target]) -> None:
        now = {(target.endpoint, target.serving.key): target for target in targets}
        served = {target.serving for target in targets}
        caching = {target.endpoint for target in targets if target.policy.caches}
        for name in [name for name in self._caches if name not in caching]:
            del self._caches[name]
            for gauge in (self._measures.cached, self._measures.cached_bytes):
                gauge.remove(name)
        for key in list(self._endpoints):
            known, target = self._endpoints[key], now.get(key)
            if target is None or target.serving != known.target.serving:
                del self._endpoints[key]
                if key[0] in self._caches:
                    self._caches[key[0]][1].invalidate(known.target.serving.digest)
        for target in targets:
            if (serving := self._serving.get(target.serving)) is not None:
                serving.replicas.names = target.replicas
                serving.dispatcher.wake()
        for version in [version for version in self._serving if version not in served]:
            if self._serving[version].dispatcher.idle:  # else at the next news: its requests end with their version
                task = asyncio.ensure_future(self._serving.pop(version).close())
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        await asyncio.gather(*(serving.close() for serving in self._serving.values()), *self._closing)

    def _cache(self, target: Target) -> AnswerCache | None:
        policy = target.policy
        if not policy.caches:
            return None
        kept = self._caches.get(target.endpoint)
        limits = (policy.cache_entries, policy.cache_bytes)
        if kept is None or (kept[0].cache_entries, kept[0].cache_bytes) != limits:
            cache = AnswerCache(*limits)
            kept = self._caches[target.endpoint] = (policy, cache)
            self._measures.cached.labels(target.endpoint).set_function(lambda: len(cache))
            self._measures.cached_bytes.labels(target.endpoint).set_function(lambda: cache.used_bytes)
        return kept[1]


class TextEndpoint:
    """One endpoint at one version."""

    def __init__(
        self, target: Target, model: TextModel, dispatcher: Dispatcher, cache: AnswerCache | None, measures: Measures
    ) -> None:
        self.target = target
        self._model = model
        self._dispatcher = dispatcher
        self._cache = cache
        self._max_wait_s = target.policy.max_wait_ms / 1000
        self._max_rows = target.policy.max_rows
        self._is_token = model.plan.task == "token"
        self._names = OUTPUTS[model.plan.task]
        self._labels = [label.encode() for label in model.plan.labels]
        self._measures = measures
        self._hits = measures.hits.labels(target.endpoint)
        self._misses = measures.misses.labels(target.endpoint)
        self._duplicates = measures.duplicates.labels(target.endpoint)
        self._truncated = measures.truncated.labels(target.endpoint)

    async def rest(
        self, body: bytes, json_length: int | None, deadline: float, call: Call
    ) -> tuple[list[tuple[bytes, bytes]], bytes]:
        request = await self._read(len(body), deadline, from_rest, body, json_length, self._names)
        outputs = await self._outputs(request, deadline)
        return await self._write(request, to_rest, outputs)

    async def grpc(self, message: bytes, deadline: float, call: Call) -> bytes:
        request = await self._read(len(message), deadline, from_grpc, message, self._names)
        outputs = await self._outputs(request, deadline)
        return await self._write(request, to_grpc, outputs)

    # -- inside ------------------------------------------------------------------------------------------------------

    async def _read(self, size: int, deadline: float, read: Callable[..., TextRequest], *what: Any) -> TextRequest:
        if self._cache is None:  # while the line is too long, a refusal costs next to nothing
            self._admit(1, 0.0, deadline)
        try:
            return read(*what) if size <= INLINE_BODY else await asyncio.to_thread(read, *what)
        except BadRequest as error:
            raise Refused(Reason.BAD_REQUEST, str(error)) from None

    async def _write(self, request: TextRequest, write: Callable[..., T], outputs: Mapping[str, Any]) -> T:
        answer = (request, self.target.endpoint, self.target.version_text, outputs)
        return write(*answer) if len(request.texts) <= INLINE_ROWS else await asyncio.to_thread(write, *answer)

    async def _outputs(self, request: TextRequest, deadline: float) -> dict[str, Any]:
        texts = request.texts
        if len(texts) > self._max_rows:
            raise Refused(
                Reason.TOO_LARGE, f"{len(texts)} texts in one request; endpoint {self.target.endpoint!r} takes {self._max_rows}"
            )  # fmt: skip
        encoded = await self._encode(texts, deadline)
        logits = await self._logits(encoded, deadline)
        if len(texts) > (INLINE_TEXTS if self._is_token else INLINE_ROWS):
            return await asyncio.to_thread(self._answers, texts, encoded, logits)
        return self._answers(texts, encoded, logits)

    def _answers(self, texts: Sequence[bytes], encoded: Sequence[Encoded], logits: Sequence[Any]) -> dict[str, Any]:
        """The model's outputs, by name."""
        labels = self._model.plan.labels
        if self._is_token:
            rows = zip(texts, encoded, logits, strict=True)
            return {
                "entities": [
                    entities_json(found, row.offsets or (), as_text(text), labels) for text, row, found in rows
                ]
            }
        lines = np.concatenate(logits) if logits else np.zeros(0, np.float32)
        scores = softmax(lines.reshape(-1, len(labels)))
        return {"label": [self._labels[index] for index in scores.argmax(axis=-1)], "scores": scores}

    async def _encode(self, texts: Sequence[bytes], deadline: float) -> list[Encoded]:
        tokens = self._model.tokens
        if len(texts) <= INLINE_TEXTS and sum(map(len, texts)) <= INLINE_BYTES:
            encoded = tokens.encode(texts)
        else:
            self._admit(len(texts), 0.0, deadline)  # before any work: told at once
            encoded = []
            for start in range(0, len(texts), SLICE):
                encoded += await asyncio.to_thread(tokens.encode, texts[start : start + SLICE])
        if cut := sum(row.truncated for row in encoded):
            self._truncated.inc(cut)
        return encoded

    async def _logits(self, encoded: Sequence[Encoded], deadline: float) -> list[Any]:
        """One array per text: from the cache, else computed, each distinct text once."""
        distinct = {row.ids: row for row in encoded}
        if len(distinct) < len(encoded):
            self._duplicates.inc(len(encoded) - len(distinct))
        found: dict[bytes, Any] = {}
        keys: dict[bytes, bytes] = {}
        if self._cache is not None:
            for ids in distinct:
                keys[ids] = key = self._cache.key(self.target.serving.digest, ids)
                kept = self._cache.get(key)
                if kept is not None:
                    found[ids] = self._shaped(np.frombuffer(kept, dtype="<f4"))
            self._hits.inc(len(found))
            self._misses.inc(len(distinct) - len(found))
        missing = [row for ids, row in distinct.items() if ids not in found]
        if missing:
            row_us = self._dispatcher.queue.cost.row_us
            self._admit(len(missing), sum(row_us(row.length) for row in missing), deadline)
            computed = await self._compute(missing, deadline)
            for row, logits in zip(missing, computed, strict=True):
                found[row.ids] = logits
                if self._cache is not None:
                    self._cache.put(keys[row.ids], logits.tobytes())
        return [found[row.ids] for row in encoded]

    def _shaped(self, logits: Any) -> Any:
        return logits.reshape(-1, len(self._labels)) if self._is_token else logits

    def _admit(self, rows: int, work_us: float, deadline: float) -> None:
        try:
            self._dispatcher.admit(rows, work_us, deadline, self._max_wait_s, self._max_rows)
        except Overloaded as error:
            self._measures.refused.labels(self.target.endpoint, error.reason).inc()
            raise Refused(
                Reason.BUSY,
                f"endpoint {self.target.endpoint!r} is busy: {error}; ask again in {max(1, round(error.retry_after_s * 1000))} ms",
                error.retry_after_s,
            ) from None

    async def _compute(self, missing: Sequence[Encoded], deadline: float) -> list[Any]:
        try:
            return await self._dispatcher.ask(missing, deadline, share=self._cache is not None)
        except Expired:
            self._measures.refused.labels(self.target.endpoint, "expired").inc()
            raise Refused(
                Reason.DEADLINE, f"endpoint {self.target.endpoint!r} did not answer before the deadline"
            ) from None
        except BatchLost as error:
            raise Refused(
                Reason.UPSTREAM_LOST,
                f"no model server answered for endpoint {self.target.endpoint!r}, asked three times ({error}); "
                "ask again in a moment",
            ) from None


def open_kind(door: Door) -> TextKind:
    """The kind "text" of a door."""
    # One text is tokenised in less time than it takes to wake another thread, and the other cores are the engines'.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    return TextKind(door)
