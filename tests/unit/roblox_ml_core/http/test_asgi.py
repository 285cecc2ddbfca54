"""The same application under an ASGI server: the same answers."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
import uvicorn
from roblox_ml_core.http.asgi import as_asgi
from roblox_ml_core.http.messages import Reply, Request, json_reply
from roblox_ml_core.http.server import Limits


class Application:
    """`/later` answers by a callback, `/slow` never, `/breaks` fails."""

    def __init__(self) -> None:
        self.taken_back = asyncio.Event()
        self.started = asyncio.Event()

    def admit(self, request: Request) -> Reply | None:
        return json_reply(404, {"error": "nothing there"}) if request.path == b"/nothing" else None

    def begin(self, request: Request, done: Callable[[Reply], None]) -> asyncio.TimerHandle | None:
        if request.path != b"/later":
            return None
        return asyncio.get_running_loop().call_later(0.005, lambda: done(Reply(200, [(b"x-a", b"b")], b"later")))

    async def answer(self, request: Request) -> Reply:
        if request.path == b"/breaks":
            raise RuntimeError("secret")
        if request.path == b"/slow":
            self.started.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.taken_back.set()
                raise
        named = dict(request.headers)[b"x-name"].decode()
        return json_reply(200, {"target": request.target.decode(), "body": request.body.decode(), "name": named})


@asynccontextmanager
async def under_uvicorn(application: Application) -> AsyncIterator[str]:
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    app = as_asgi(application, Limits(body_bytes=100, body_s=0.2))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="on"))
    task = asyncio.create_task(server.serve(sockets=[listening]))
    while not server.started:
        await asyncio.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


def run(scenario: Callable[[httpx.AsyncClient, str, Application], Awaitable[None]]) -> None:
    async def main() -> None:
        application = Application()
        async with under_uvicorn(application) as url, httpx.AsyncClient(headers={"X-Name": "n"}) as client:
            await scenario(client, url, application)

    asyncio.run(asyncio.wait_for(main(), 20))


def test_answers_are_those_of_the_application() -> None:
    async def scenario(client: httpx.AsyncClient, url: str, application: Application) -> None:
        answer = await client.post(f"{url}/a%2Fb?c=d", content="body")
        assert (answer.status_code, answer.json()) == (200, {"target": "/a%2Fb?c=d", "body": "body", "name": "n"})
        later = await client.get(f"{url}/later")
        assert (later.text, later.headers["x-a"]) == ("later", "b")
        assert (await client.get(f"{url}/nothing")).json() == {"error": "nothing there"}
        assert (await client.head(f"{url}/a")).status_code == 405
        assert (await client.post(f"{url}/a", content=b"x" * 101)).status_code == 413
        broken = await client.get(f"{url}/breaks")
        assert broken.status_code == 500 and "secret" not in broken.text

    run(scenario)


def test_slow_bodies_end_and_a_client_that_goes_away_takes_its_question_back() -> None:
    async def scenario(client: httpx.AsyncClient, url: str, application: Application) -> None:
        async def drips() -> AsyncIterator[bytes]:
            yield b"a"
            await asyncio.sleep(1)
            yield b"b"

        assert (await client.post(f"{url}/a", content=drips())).status_code == 408
        asking = asyncio.create_task(client.get(f"{url}/slow"))
        await application.started.wait()
        asking.cancel()
        await application.taken_back.wait()

    run(scenario)


def test_json_is_what_it_was() -> None:
    async def scenario(client: httpx.AsyncClient, url: str, application: Application) -> None:
        raw = (await client.post(f"{url}/a", content="ä")).content
        assert json.loads(raw)["body"] == "ä"

    run(scenario)
