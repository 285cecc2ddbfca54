"""The door as a process: ports, signals, exit codes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys

import httpx
from roblox_ml_core.settings import ControlPlaneSettings, DoorSettings, HomeSettings
from roblox_ml_serving.door.process import serve


def start(rml_home, free_port, **environment: str) -> subprocess.Popen[str]:
    settings = {
        "RML_HOME": str(rml_home),
        "RML_DOOR_PORT": "0",
        "RML_DOOR_GRPC_PORT": "0",
        "RML_CONTROL_URL": f"http://127.0.0.1:{free_port()}",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "roblox_ml_serving.door"], env={**os.environ, **settings, **environment},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_it_says_where_it_listens_and_ends_cleanly_on_sigterm(rml_home, free_port) -> None:
    process = start(rml_home, free_port)
    try:
        line = process.stdout.readline()
        assert line.startswith("door: REST http://127.0.0.1:")
        url = line.split()[2]
        assert httpx.get(f"{url}/v2/health/live").status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.wait()


def test_what_it_announces_is_listening_at_that_moment(rml_home) -> None:
    reached: list[int] = []

    async def main() -> None:
        stop = asyncio.Event()

        def announce(*ports: int) -> None:
            for port in ports:
                socket.create_connection(("127.0.0.1", port)).close()
                reached.append(port)
            stop.set()

        control = ControlPlaneSettings(url="http://127.0.0.1:9")
        home = HomeSettings(home=rml_home)
        await serve(DoorSettings(port=0, grpc_port=0), control, home, stop=stop, announce=announce)

    asyncio.run(asyncio.wait_for(main(), 30))
    assert len(reached) == 2


def test_a_taken_port_is_named_with_the_variable_that_moves_it(rml_home, free_port) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for variable in ("RML_DOOR_PORT", "RML_DOOR_GRPC_PORT"):
            process = start(rml_home, free_port, **{variable: port})
            _, errors = process.communicate(timeout=30)
            assert process.returncode == 1
            assert f"127.0.0.1:{port} cannot be used" in errors and variable in errors
            assert "Traceback" not in errors
