"""A ranking endpoint in this process: a scripted model, a real feature server over HTTP."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from roblox_ml_core.http import Response
from roblox_ml_core.http.server import Server
from roblox_ml_core.settings import FeaturesSettings
from roblox_ml_serving.door.snapshot import Target, Version
from roblox_ml_serving.preprocess.kinds import Call
from roblox_ml_serving.ranking import endpoint as ranking_endpoint
from roblox_ml_serving.ranking.endpoint import RankingEndpoint, RankingKind
from roblox_ml_serving.ranking.spec import RankingSpec
from roblox_ml_serving.ranking.stub import FeatureServer, FeatureView

SPEC: dict[str, Any] = {
    "schema": 1,
    "candidates": "INT64",
    "k": 3,
    "features_share": 0.5,
    "views": [
        {"name": "user_profile", "of": "user", "ttl_s": 60, "features": [{"name": "taste", "default": 1.0}]},
        {
            "name": "item_stats",
            "of": "item",
            "ttl_s": 60,
            "features": [{"name": "ctr", "default": 0.5}, {"name": "price", "default": 9.0}],
        },
    ],
    "context": [{"name": "hour", "default": 12.0}],
    "columns": ["user_profile.taste", "item_stats.ctr", "item_stats.price", "context.hour"],
    "model": {"input": "X", "output": "scores", "column": 1},
}


def spec(**changes: Any) -> RankingSpec:
    return RankingSpec.read(json.dumps({**SPEC, **changes}).encode())


def views() -> list[FeatureView]:
    return [
        FeatureView("user_profile", ["ann", "bob"], {"taste": [2.0, -1.0]}),
        FeatureView("item_stats", list(range(100)), {"ctr": np.arange(100) / 100, "price": np.full(100, 5.0)}),
    ]


def score(rows: Any) -> Any:
    """The scripted model: taste times click rate."""
    return rows[:, 0] * rows[:, 1]


@dataclass
class World:
    """What a test looks at: the endpoint, its feature server, the rows the model was given."""

    kind: RankingKind
    endpoint: RankingEndpoint
    features: FeatureServer
    registry: CollectorRegistry
    server: Server
    rows: list[Any] = field(default_factory=list)
    left: list[float] = field(default_factory=list)  # until the deadline, when the model was asked

    async def rank(self, user: str, candidates: list[Any], seconds: float = 5.0, **params: Any) -> dict[str, Any]:
        body = {
            "inputs": [
                {"name": "USER", "datatype": "BYTES", "shape": [1], "data": [user]},
                {
                    "name": "CANDIDATES",
                    "datatype": self.endpoint.spec.candidates,
                    "shape": [len(candidates)],
                    "data": candidates,
                },
            ]
        }
        _, answer = await self.endpoint.rest(
            json.dumps(body).encode(), None, asyncio.get_running_loop().time() + seconds, Call("i", user, params)
        )
        document = json.loads(answer)
        named = {one["name"]: one["data"] for one in document["outputs"]}
        return {**named, "defaulted": document["parameters"]["features_defaulted"], "document": document}

    def count(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def opened(
    chosen: RankingSpec | None = None,
    model: Callable[[Any], Any] = score,
    *,
    token: str | None = None,
    url: str | None = None,
    **settings: Any,
) -> AsyncIterator[World]:
    application = FeatureServer(views(), token)
    server = Server(application)
    listening = socket.create_server(("127.0.0.1", 0))
    await server.start(listening)
    address = url or f"http://127.0.0.1:{listening.getsockname()[1]}"
    registry = CollectorRegistry()
    rows: list[Any] = []
    left: list[float] = []

    async def ask(target: Target, protocol: str, call: Callable[..., Awaitable[Response]]) -> Response:
        return await call(SimpleNamespace(name="triton"), target)

    async def exchange(
        server: Any, target: Target, method: bytes, what: bytes, headers: Any, body: bytes, deadline: float
    ) -> Response:
        length = int(dict(headers)[b"inference-header-content-length"])
        (tensor,) = json.loads(body[:length])["inputs"]
        given = np.frombuffer(body, "<f4", offset=length).reshape(tensor["shape"])
        rows.append(given)
        left.append(deadline - asyncio.get_running_loop().time())
        scores = np.asarray(model(given), "<f4")
        data = np.stack([1 - scores, scores], axis=1).astype("<f4").tobytes()
        outputs = [{"name": "scores", "datatype": "FP32", "shape": [len(given), 2]}]
        head = json.dumps({"outputs": outputs}).encode()
        return Response(200, [(b"inference-header-content-length", b"%d" % len(head))], head + data)

    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(ranking_endpoint, "exchange", exchange)
    door: Any = SimpleNamespace(metrics=SimpleNamespace(registry=registry), ask=ask)
    kind = RankingKind(door, FeaturesSettings(url=address, token=token, **settings))
    target = Target("feed", Version("feed", 1, "d1"), ("triton",), True)
    try:
        endpoint = kind.handler(target, chosen or spec())
        yield World(kind, endpoint, application, registry, server, rows, left)
    finally:
        monkeypatch.undo()
        await kind.close()
        await server.stop(0.1)
