"""The gRPC side: `inference.GRPCInferenceService` over byte handlers.

ModelInfer is never decoded: its two name fields are read and replaced at byte level (see rewrite.py), tensors pass
through. The small methods use the protocol's own message types.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from math import ceil
from typing import Any, NoReturn

import grpc
from tritonclient.grpc import service_pb2 as v2

from . import inference_id
from .fleet import Server
from .refusals import Reason, Refused
from .rest import server_metadata
from .rewrite import Malformed, Names, rename_request, rename_response, scan, wrap
from .service import TIMEOUT_HEADER, VERSION_HEADER, Door, Lost, timeout_seconds
from .snapshot import Target

__all__ = ["GrpcDoor"]

SERVICE = "/inference.GRPCInferenceService/"
# Triton's own words for "I do not hold that version" and for a connection that ended.
_LOST = frozenset((grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND))
_CLIENT_FAULT = frozenset(("INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED", "UNIMPLEMENTED", "CANCELLED"))
Context = Any  # grpc.aio.ServicerContext, which has no types


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
        metadata = {key: value for key, value in context.invocation_metadata() or () if key.startswith("x-rml-")}
        identity = inference_id.keep_or_make(metadata.get(inference_id.HEADER))
        answer = [(inference_id.HEADER, identity)]
        context.set_trailing_metadata(answer)
        timeout = timeout_seconds(metadata.get(TIMEOUT_HEADER), self._door.settings.deadline_s)
        try:
            target, response = await self._infer_one(request, min(timeout, context.time_remaining() or timeout))
        except Refused as refused:
            if (seconds := refused.refusal.retry_after) is not None:
                answer.append(("retry-after-ms", str(max(1, ceil(seconds * 1000)))))
                context.set_trailing_metadata(answer)
            raise
        context.set_trailing_metadata([*answer, (VERSION_HEADER, target.version_text)])
        return response

    async def _infer_one(self, request: bytes, timeout: float) -> tuple[Target, bytes]:
        started = time.monotonic()
        door = self._door
        names = scan(request)
        endpoint = names.name
        first = door.target(endpoint)
        if names.version:
            raise door.refuse_version(endpoint)
        meter = door.metrics.meter(endpoint, first.version_text, "grpc")
        meter.in_flight.inc()
        code = "INTERNAL"

        async def call(server: Server, target: Target) -> bytes:
            payload = rename_request(request, names, target.triton_model, target.version_text)
            return await _exchange(server.model_infer, target, payload, timeout - (time.monotonic() - started))

        try:
            if (handler := door.handler(first)) is not None:
                answer = await handler.grpc(request, asyncio.get_running_loop().time() + timeout)
                code = "OK"
                return first, answer
            target, response = await door.ask(endpoint, "grpc", call)
            if target is not first:
                meter.in_flight.dec()
                meter = door.metrics.meter(endpoint, target.version_text, "grpc")
                meter.in_flight.inc()
            try:
                renamed = rename_response(response, endpoint)
            except Malformed as error:
                raise Refused(
                    Reason.BAD_UPSTREAM, f"endpoint {endpoint!r}: its server sent a broken message: {error}"
                ) from None
            code = "OK"
            return target, renamed
        except Refused as refused:
            code = refused.refusal.reason.grpc_code
            raise
        except UpstreamStatus as status:
            code = status.code
            raise
        except asyncio.CancelledError:
            code = "CANCELLED"  # the client hung up, or its own deadline passed: no failure of ours
            raise
        finally:
            meter.in_flight.dec()
            meter.done(code, time.monotonic() - started, failed=code != "OK" and code not in _CLIENT_FAULT)

    async def _stream_infer(self, requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        """Each request of the stream is one inference, answered in order; an error is a message, not the stream's end."""
        timeout = self._door.settings.deadline_s
        async for request in requests:
            try:
                _, response = await self._infer_one(request, min(timeout, context.time_remaining() or timeout))
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
            return bytes(message.SerializeToString())

        return describe

    async def _forward(self, method: str, request: bytes, context: Context) -> tuple[Target, bytes]:
        names: Names = scan(request)
        self._door.target(names.name)
        if names.version:
            raise self._door.refuse_version(names.name)
        default = self._door.settings.deadline_s
        timeout = min(default, context.time_remaining() or default)

        async def call(server: Server, target: Target) -> bytes:
            payload = rename_request(request, names, target.triton_model, target.version_text)
            return await _exchange(server.unary(method), target, payload, timeout)

        return await self._door.ask(names.name, "grpc", call)


async def _exchange(call: Callable[..., Awaitable[bytes]], target: Target, payload: bytes, timeout: float) -> bytes:
    try:
        return await call(payload, timeout=max(timeout, 0.001))
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
