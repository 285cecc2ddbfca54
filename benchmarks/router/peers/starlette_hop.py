"""A hop as one writes it in an afternoon: Starlette, and one pooled httpx client. It hashes the user and forwards the bytes."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import AsyncIterator

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

UPSTREAM = os.environ["UPSTREAM"]
client: httpx.AsyncClient


async def infer(request: Request) -> Response:
    unit = request.headers.get("x-rml-unit", "")
    version = 1 + (int.from_bytes(hashlib.sha256(unit.encode()).digest()[:4], "big") % 2)
    model = request.path_params["model"]
    answer = await client.post(
        f"/v2/models/{model}.{version}/versions/{version}/infer",
        content=await request.body(),
        headers={"content-type": "application/json"},
    )
    return Response(answer.content, answer.status_code, media_type="application/json")


@contextlib.asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    global client
    async with httpx.AsyncClient(
        base_url=f"http://{UPSTREAM}", limits=httpx.Limits(max_keepalive_connections=64)
    ) as client:
        yield


app = Starlette(routes=[Route("/v2/models/{model}/infer", infer, methods=["POST"])], lifespan=lifespan)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning", access_log=False)
