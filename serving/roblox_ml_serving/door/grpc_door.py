"""The gRPC side: `inference.GRPCInferenceService` over byte handlers.

ModelInfer is never decoded: its two name fields are read and replaced at byte level (see rewrite.py), tensors pass
through. The small methods use the protocol's own message types.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from math import ceil
from typing import Any, NamedTuple, NoReturn

import grpc
from tritonclient.grpc import service_pb2 as v2

from ..preprocess.kinds import Call
from . import inference_id
from .documents import server_metadata
from .fleet import Server
from .recording import Served
from .refusals import Reason, Refused
from .rewrite import Malformed, Names, rename_request, rename_response, scan, wrap
from .service import (
    ARMS_HEADER,
    CONTEXT_HEADER,
    FALLBACK_HEADER,
    TIMEOUT_HEADER,
    UNIT_HEADER,
    VERSION_HEADER,
    Door,
    Lost,
    read_unit,
    timeout_seconds,
)
from .snapshot import Target
from .tracing import Span

__all__ = ["GrpcDoor"]

SERVICE = "/inference.GRPCInferenceService/"
# Triton's own words for "I do not hold that version" and for a connection that ended.
_LOST = frozenset((grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND))
_CLIENT_FAULT = frozenset(("INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED", "UNIMPLEMENTED", "CANCELLED"))
# A challenger that does not answer must leave the champion time to.
_CHALLENGERS_PART = 0.5
Context = Any  # grpc.aio.ServicerContext, which has no types


class _Asked(NamedTuple):
    """What a call's metadata say."""

    identity: str
    timeout: float
    unit: str | None
    context: str | None
    authorization: str | None
    traceparent: str | None = None

    @classmethod
    def read(cls, context: Context, default_s: float) -> _Asked:
        """Raises `Refused` for what cannot be used."""
        found = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        timeout = timeout_seconds(found.get(TIMEOUT_HEADER), default_s)
        return cls(
            inference_id.keep_or_make(found.get(inference_id.HEADER)),
            min(timeout, context.time_remaining() or timeout),
            read_unit(found.get(UNIT_HEADER)),
            found.get(CONTEXT_HEADER),
            found.get("authorization"),
            found.get("traceparent"),
        )


class UpstreamStatus(Exception):
    """The model's own refusal, to be passed on as it is."""

    def __init__(self, code: str, details: str) -> None:
        super().__init__(details)
        self.code = code
        self.details = details


class GrpcDoor(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Maps a method's full name to its handler; everything stays bytes."""

    def __init__(self, door: Door) -> None:
        self._door = door
        unary = {
            "ModelInfer": self._infer,
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ServerMetadata": self._server_metadata,
            "ModelReady": self._model_ready,
            "ModelMetadata": self._document(v2.ModelMetadataResponse),
            "ModelConfig": self._document(v2.ModelConfigResponse),
            "ModelStatistics": self._document(v2.ModelStatisticsResponse),
        }
        self._methods = {
            SERVICE + name: grpc.unary_unary_rpc_method_handler(self._guarded(name, handle))
            for name, handle in unary.items()
        }
        self._methods[SERVICE + "ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(self._stream_infer)

    def service(self, details: Any) -> Any:
        found = self._methods.get(details.method)
        if found is None and details.method.startswith(SERVICE):
            return grpc.unary_unary_rpc_method_handler(_unsupported)
        return found

    def _guarded(
        self, method: str, handle: Callable[[str, bytes, Context], Awaitable[bytes]]
    ) -> Callable[[bytes, Context], Awaitable[bytes]]:
        """Turn refusals into statuses; whatever else happens ends one call, never the door."""

        async def guarded(request: bytes, context: Context) -> bytes:
            try:
                return await handle(method, request, context)
            except Refused as refused:
                await _abort(context, refused.refusal.reason.grpc_code, refused.refusal.message)
            except UpstreamStatus as status:
                await _abort(context, status.code, status.details)
            except Malformed as error:
                await _abort(context, "INVALID_ARGUMENT", f"the request is not a valid protobuf message: {error}")

        return guarded

    async def _infer(self, method: str, request: bytes, context: Context) -> bytes:
        asked = _Asked.read(context, self._door.settings.deadline_s)
        answer = [(inference_id.HEADER, asked.identity)]
        context.set_trailing_metadata(answer)
        try:
            response, said = await self._infer_one(request, asked)
        except Refused as refused:
            if (seconds := refused.refusal.retry_after) is not None:
                answer.append(("retry-after-ms", str(max(1, ceil(seconds * 1000)))))
                context.set_trailing_metadata(answer)
            raise
        context.set_trailing_metadata([*answer, *said])
        return response

    async def _infer_one(self, request: bytes, asked: _Asked) -> tuple[bytes, list[tuple[str, str]]]:
        """The answer, and what is said of it: version, arms, whether the champion answered for a challenger."""
        started = time.monotonic()
        door = self._door
        names = scan(request)
        endpoint = names.name
        await door.auth.prove(asked.authorization)
        door.admit(asked.authorization, endpoint)
        if names.version:
            raise door.refuse_version(endpoint)
        decision, target = door.decide(endpoint, asked.unit, asked.context, asked.identity)
        meter = door.metrics.meter(endpoint, target.version_text, "grpc", decision.role, decision.chosen)
        meter.in_flight += 1
        code, response = "INTERNAL", b""
        served = Served(asked.identity, "grpc", asked.unit, decision)
        served.reached(target, 500, fallback=False)
        span = None if door.tracing is None else door.tracing.start("grpc", asked.traceparent, asked.identity)

        async def ask(target: Target, challenges: bool) -> bytes:
            left = asked.timeout * (_CHALLENGERS_PART if challenges else 1.0) - (time.monotonic() - started)
            try:
                return await self._ask_one(
                    target, request, names, left, Call(asked.identity, asked.unit, decision.params), span
                )
            except UpstreamStatus as status:
                if challenges and status.code not in _CLIENT_FAULT:
                    raise Refused(Reason.BAD_UPSTREAM, f"{target.serving.key}: {status.details[:200]}") from None
                raise

        try:
            reached, response, why = await door.with_fallback(decision, target, ask)
            code = "OK" if why is None else why.refusal.reason.grpc_code
            served.reached(reached, 200, fallback=why is not None)
            said = [(VERSION_HEADER, reached.version_text)]
            if served.arms:
                said.append((ARMS_HEADER, served.arms))
            if why is not None:
                said.append((FALLBACK_HEADER, "1"))
            return response, said
        except Refused as refused:
            code = refused.refusal.reason.grpc_code
            served.reached(target, refused.refusal.reason.http_status, fallback=False)
            raise
        except UpstreamStatus as status:
            code = status.code
            served.reached(target, 400 if code in _CLIENT_FAULT else 500, fallback=False)
            raise
        except asyncio.CancelledError:
            code = "CANCELLED"  # the client hung up, or its own deadline passed: no failure of ours
            served.reached(target, 499, fallback=False)
            raise
        finally:
            meter.in_flight -= 1
            seconds = time.monotonic() - started
            failed = code != "OK" and code not in _CLIENT_FAULT
            meter.done(code, seconds, failed=failed)
            door.recorder.record(served, seconds, request, response)
            if span is not None:
                version = target.version_text if served.target is None else served.target.version_text
                span.end(
                    endpoint=endpoint, version=version, role=decision.role, arms=served.arms, code=code, failed=failed,
                    fallback=served.fallback,
                )  # fmt: skip

    async def _ask_one(
        self, target: Target, request: bytes, names: Names, left: float, facts: Call, span: Span | None
    ) -> bytes:
        door = self._door
        handler = door.handler(target)
        if handler is not None:
            return await handler.grpc(request, asyncio.get_running_loop().time() + left, facts)
        until = time.monotonic() + left

        async def call(server: Server, target: Target) -> bytes:
            payload = rename_request(request, names, target.triton_model, target.version_text)
            parent = () if span is None else (("traceparent", span.parent_of_upstream.decode()),)
            return await _exchange(server.model_infer, target, payload, until - time.monotonic(), parent)

        response = await door.ask(target, "grpc", call)
        try:
            return rename_response(response, target.endpoint)
        except Malformed as error:
            raise Refused(
                Reason.BAD_UPSTREAM, f"endpoint {target.endpoint!r}: its server sent a broken message: {error}"
            ) from None

    async def _stream_infer(self, requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        """Each request of the stream is one inference, answered in order; an error is a message, not the stream's end."""
        async for request in requests:
            try:
                # An id of its own for each: they are inferences of their own.
                asked = _Asked.read(context, self._door.settings.deadline_s)._replace(identity=inference_id.make())
                response, _ = await self._infer_one(request, asked)
                yield wrap(2, response)
            except Refused as refused:
                yield wrap(1, refused.refusal.message.encode())
            except (UpstreamStatus, Malformed) as error:
                yield wrap(1, (str(error) or type(error).__name__).encode())

    async def _server_live(self, method: str, request: bytes, context: Context) -> bytes:
        return bytes(v2.ServerLiveResponse(live=True).SerializeToString())

    async def _server_ready(self, method: str, request: bytes, context: Context) -> bytes:
        return bytes(v2.ServerReadyResponse(ready=self._door.ready).SerializeToString())

    async def _server_metadata(self, method: str, request: bytes, context: Context) -> bytes:
        return bytes(v2.ServerMetadataResponse(**server_metadata()).SerializeToString())

    async def _model_ready(self, method: str, request: bytes, context: Context) -> bytes:
        try:
            answer = await self._forward(method, request, context)
        except Refused as refused:
            if refused.refusal.reason not in (Reason.NOT_READY, Reason.UPSTREAM_LOST):
                raise
            return bytes(v2.ModelReadyResponse(ready=False).SerializeToString())
        return answer[1]

    def _document(self, response_type: Any) -> Callable[[str, bytes, Context], Awaitable[bytes]]:
        async def describe(method: str, request: bytes, context: Context) -> bytes:
            target, raw = await self._forward(method, request, context)
            message = response_type.FromString(raw)
            for described in (message, getattr(message, "config", None), *getattr(message, "model_stats", ())):
                if getattr(described, "name", None) == target.triton_model:
                    described.name = target.endpoint
            if hasattr(message, "versions"):
                message.versions[:] = [target.version_text]
                if (tensors := self._door.tensors(target)) is not None:
                    kind = v2.ModelMetadataResponse.TensorMetadata
                    for field, side in zip((message.inputs, message.outputs), tensors, strict=True):
                        del field[:]
                        field.extend(kind(**tensor) for tensor in side)
            return bytes(message.SerializeToString())

        return describe

    async def _forward(self, method: str, request: bytes, context: Context) -> tuple[Target, bytes]:
        names: Names = scan(request)
        authorization = dict(context.invocation_metadata() or ()).get("authorization")
        await self._door.auth.prove(authorization)
        found = self._door.admit(authorization, names.name)
        if names.version:
            raise self._door.refuse_version(names.name)
        default = self._door.settings.deadline_s
        timeout = min(default, context.time_remaining() or default)

        async def call(server: Server, target: Target) -> bytes:
            payload = rename_request(request, names, target.triton_model, target.version_text)
            return await _exchange(server.unary(method), target, payload, timeout)

        return found, await self._door.ask(found, "grpc", call)


async def _exchange(
    call: Callable[..., Awaitable[bytes]],
    target: Target,
    payload: bytes,
    timeout: float,
    metadata: tuple[tuple[str, str], ...] = (),
) -> bytes:
    try:
        return await call(payload, timeout=max(timeout, 0.001), metadata=metadata)
    except grpc.aio.AioRpcError as error:
        code, details = error.code(), error.details() or ""
        if code in _LOST:
            raise Lost(f"{code.name}: {details[:300]}") from None
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            raise Refused(Reason.DEADLINE, f"endpoint {target.endpoint!r} did not answer before the deadline") from None
        raise UpstreamStatus(code.name, details) from None


async def _abort(context: Context, code: str, message: str) -> NoReturn:
    await context.abort(grpc.StatusCode[code], message)
    raise AssertionError("abort raises")


async def _unsupported(request: bytes, context: Context) -> bytes:
    await _abort(
        context, "UNIMPLEMENTED",
        "the door answers inference, readiness, metadata, configuration and statistics; models are loaded by deploying them",
    )  # fmt: skip
