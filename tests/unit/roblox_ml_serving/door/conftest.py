"""A door in this process, in front of model servers and a control plane that are scripted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import httpx
import pytest
import uvloop
from pydantic import SecretStr
from roblox_ml_core.settings import ControlPlaneSettings, DoorSettings, HomeSettings
from roblox_ml_serving.door.process import serve
from tritonclient.grpc import service_pb2 as v2

INFER = "/inference.GRPCInferenceService/ModelInfer"


def snapshot(generation: int, endpoints: dict[str, Any], servers: dict[str, Any]) -> dict[str, Any]:
    return {"schema": 2, "generation": generation, "policy": {"endpoints": endpoints}, "servers": servers}


def endpoint(model: str, version: int, previous: int | None = None) -> dict[str, Any]:
    return {"model": model, "version": version, "digest": f"d{version}", "previous": previous, "signature": {}}


@dataclass
class Request:
    """What a scripted HTTP server received."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


Answer = tuple[int, dict[str, str], bytes]


class HttpStub:
    """An HTTP server whose answers are a function; None closes the connection without a byte."""

    def __init__(self, answer: Callable[[Request], Any]) -> None:
        self.answer = answer
        self.requests: list[Request] = []
        self.address = ""
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self, port: int = 0) -> HttpStub:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, target, _ = head[0].split(" ")
                headers = {
                    name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)
                }
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                request = Request(method, target, headers, body)
                self.requests.append(request)
                answer = self.answer(request)
                if asyncio.iscoroutine(answer):
                    answer = await answer
                if answer is None:
                    return
                status, extra, payload = answer
                lines = [
                    f"HTTP/1.1 {status} x",
                    f"content-length: {len(payload)}",
                    *(f"{k}: {v}" for k, v in extra.items()),
                ]
                writer.write("\r\n".join([*lines, "", ""]).encode() + payload)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()


def identity_answer(request: Request) -> Answer:
    """What Triton says: the model's name first, the request's inputs as outputs."""
    parts = request.target.split("/")
    model, version, what = parts[3], parts[5], parts[6] if len(parts) > 6 else ""
    if what == "infer":
        document = (
            json.loads(request.body) if "inference-header-content-length" not in request.headers else {"inputs": []}
        )
        answer = {"model_name": model, "model_version": version, "outputs": document["inputs"]}
        if "id" in document:
            answer = {"id": document["id"], **answer}
        head = json.dumps(answer, separators=(",", ":")).encode()
        if "inference-header-content-length" in request.headers:
            return (
                200,
                {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"},
                head + b"\x00\x01",
            )
        return 200, {"Content-Type": "application/json"}, head
    if what == "ready":
        return 200, {}, b""
    if what == "stats":
        return 200, {}, json.dumps({"model_stats": [{"name": model, "version": version}]}).encode()
    return 200, {}, json.dumps({"name": model, "versions": [version], "inputs": [], "outputs": []}).encode()


class GrpcStub(grpc.GenericRpcHandler):
    """A gRPC server whose ModelInfer is a function from message to message; a status in its place aborts."""

    def __init__(self) -> None:
        self.requests: list[v2.ModelInferRequest] = []
        self.answer: Callable[[Any], Any] = self.identity
        self.address = ""

    def identity(self, request: Any) -> Any:
        return v2.ModelInferResponse(
            model_name=request.model_name, model_version=request.model_version, id=request.id,
            raw_output_contents=request.raw_input_contents,
        )  # fmt: skip

    def service(self, details: Any) -> Any:
        name = details.method.rpartition("/")[2]
        if name == "ModelInfer":

            def serialize(message: Any) -> bytes:
                return message if isinstance(message, bytes) else message.SerializeToString()

            return grpc.unary_unary_rpc_method_handler(self._infer, v2.ModelInferRequest.FromString, serialize)
        if name == "ModelReady":
            return grpc.unary_unary_rpc_method_handler(
                self._ready, v2.ModelReadyRequest.FromString, v2.ModelReadyResponse.SerializeToString
            )
        if name == "ModelMetadata":
            return grpc.unary_unary_rpc_method_handler(
                self._metadata, v2.ModelMetadataRequest.FromString, v2.ModelMetadataResponse.SerializeToString
            )
        return None

    async def _infer(self, request: Any, context: Any) -> Any:
        self.requests.append(request)
        answer = self.answer(request)
        if asyncio.iscoroutine(answer):
            answer = await answer
        if isinstance(answer, grpc.StatusCode):
            await context.abort(answer, "said by the model server")
        return answer

    async def _ready(self, request: Any, context: Any) -> Any:
        return v2.ModelReadyResponse(ready=True)

    async def _metadata(self, request: Any, context: Any) -> Any:
        return v2.ModelMetadataResponse(name=request.name, versions=["1", "2", request.version], platform="python")

    async def start(self) -> GrpcStub:
        self.server = grpc.aio.server()
        self.server.add_generic_rpc_handlers((self,))
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        await self.server.start()
        return self

    async def stop(self) -> None:
        await self.server.stop(0)


class ControlStub:
    """A control plane that has only the snapshot, with a real long poll."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self._changed = asyncio.Event()
        self.http = HttpStub(self._answer)

    def publish(self, document: dict[str, Any]) -> None:
        self.document = document
        self._changed.set()
        self._changed = asyncio.Event()

    async def _answer(self, request: Request) -> Answer:
        query = httpx.QueryParams(request.target.partition("?")[2])
        if "after" in query and int(query["after"]) >= self.document["generation"]:
            try:
                await asyncio.wait_for(self._changed.wait(), float(query["wait"]))
            except TimeoutError:
                return 304, {}, b""
        return 200, {"content-type": "application/json"}, json.dumps(self.document).encode()


@dataclass
class World:
    """A running door and everything behind it."""

    control: ControlStub
    triton: HttpStub
    grpc: GrpcStub
    url: str = ""
    grpc_address: str = ""
    client: httpx.AsyncClient = field(default_factory=httpx.AsyncClient)

    def servers(self, **ready: dict[str, str]) -> dict[str, Any]:
        return {
            name: {"http": self.triton.address, "grpc": self.grpc.address, "ready": models}
            for name, models in ready.items()
        }

    async def publish(self, endpoints: dict[str, Any], servers: dict[str, Any]) -> None:
        """Publish the next generation and wait until the door uses it."""
        generation = self.control.document["generation"] + 1
        self.control.publish(snapshot(generation, endpoints, servers))
        while (
            f"rml_door_snapshot_generation {float(generation)}"
            not in (await self.client.get(f"{self.url}/metrics")).text
        ):
            await asyncio.sleep(0.005)

    async def infer(self, name: str = "sentiment", document: Any = None, **headers: str) -> httpx.Response:
        body = (
            {"inputs": [{"name": "TEXT", "datatype": "BYTES", "shape": [1], "data": ["gg"]}]}
            if document is None
            else document
        )
        names = {key.replace("_", "-"): value for key, value in headers.items()}
        return await self.client.post(f"{self.url}/v2/models/{name}/infer", json=body, headers=names)


@asynccontextmanager
async def running_door(control_url: str, home: Any, **settings: Any) -> AsyncIterator[tuple[str, str]]:
    """A door on free ports; yields (REST url, gRPC address)."""
    stop, ports = asyncio.Event(), asyncio.get_running_loop().create_future()
    task = asyncio.create_task(
        serve(
            DoorSettings(port=0, grpc_port=0, **settings), ControlPlaneSettings(url=control_url),
            HomeSettings(home=home, token=SecretStr("t")), stop=stop, announce=lambda *both: ports.set_result(both),
        )
    )  # fmt: skip
    await asyncio.wait({task, ports}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    rest, rpc = await ports
    try:
        yield f"http://127.0.0.1:{rest}", f"127.0.0.1:{rpc}"
    finally:
        stop.set()
        await task


@asynccontextmanager
async def running_world(home: Any, **settings: Any) -> AsyncIterator[World]:
    triton, rpc = await HttpStub(identity_answer).start(), await GrpcStub().start()
    control = ControlStub(snapshot(0, {}, {}))
    await control.http.start()
    world = World(control, triton, rpc)
    async with running_door(f"http://{control.http.address}", home, **settings) as (world.url, world.grpc_address):
        await world.publish({"sentiment": endpoint("sentiment", 3)}, world.servers(local={"sentiment/3": "d3"}))
        yield world
    await world.client.aclose()
    for part in (triton, rpc, control.http):
        await part.stop()


@pytest.fixture
def with_world(rml_home):
    """Run `scenario(world)` in a fresh event loop, of the kind the door runs on."""

    def run(scenario: Callable[[World], Any], **settings: Any) -> None:
        async def main() -> None:
            async with running_world(rml_home, **settings) as world:
                await scenario(world)

        uvloop.run(asyncio.wait_for(main(), 60))

    return run


@pytest.fixture
def kit() -> Any:
    """The parts above, for tests that put them together themselves."""
    from types import SimpleNamespace

    return SimpleNamespace(
        ControlStub=ControlStub, HttpStub=HttpStub, GrpcStub=GrpcStub, endpoint=endpoint, snapshot=snapshot,
        identity_answer=identity_answer, running_door=running_door, v2=v2,
    )  # fmt: skip
