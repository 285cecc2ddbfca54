"""The door's reports: cumulative, once a second at most, through outages, and never of anything but counts."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from roblox_ml_core.settings import ControlPlaneSettings, HomeSettings
from roblox_ml_serving.door.metrics import BINS, Metrics
from roblox_ml_serving.door.reporting import Reporter, door_name


class Plane:
    """A control plane that keeps what it is told, and may be away."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.paths: set[str] = set()
        self.away = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = int(head.split("content-length: ")[1].split("\r\n")[0])
                body = await reader.readexactly(length)
                if self.away:
                    return
                assert "authorization: bearer secret" in head
                self.paths.add(head.split(" ")[1])
                self.bodies.append(json.loads(body))
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def test_counts_are_cumulative_and_outages_lose_nothing(rml_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RML_TOKEN", "secret")

    async def main() -> None:
        plane, metrics = Plane(), Metrics()
        server = await asyncio.start_server(plane.serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        reporter = Reporter(metrics, "d-1", ControlPlaneSettings(url=url), HomeSettings(), every_s=0.02)
        task = asyncio.create_task(reporter.run())

        async def until(condition: Any) -> None:
            async with asyncio.timeout(20):
                while not condition():
                    await asyncio.sleep(0.01)

        meter = metrics.meter("feed", "8", "rest", "canary")
        meter.done("200", 0.004, failed=False)
        await until(lambda: plane.bodies and plane.bodies[-1]["counts"])
        plane.away = True
        for _ in range(5):
            meter.done("500", 0.004, failed=True)
        await until(lambda: reporter.failed > 0)
        plane.away = False
        await until(lambda: plane.bodies[-1]["counts"][0]["requests"] == 6)
        [entry] = plane.bodies[-1]["counts"]
        assert {key: entry[key] for key in ("endpoint", "version", "role", "errors")} == {
            "endpoint": "feed", "version": "8", "role": "canary", "errors": 5,
        }  # fmt: skip
        assert len(entry["latency"]) == BINS and sum(entry["latency"]) == 6
        assert len({body["started_at"] for body in plane.bodies}) == 1
        assert plane.paths == {"/v1/doors/d-1/counts"}
        said = len(plane.bodies)
        await asyncio.sleep(0.2)
        assert len(plane.bodies) == said, "nothing has happened, and nothing is said"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await reporter.close()
        server.close()

    asyncio.run(main())


def test_a_door_s_name_is_one_that_the_route_takes() -> None:
    import re

    assert re.fullmatch("[A-Za-z0-9][A-Za-z0-9._-]{0,127}", door_name(18080))
    assert door_name(1) != door_name(2)
