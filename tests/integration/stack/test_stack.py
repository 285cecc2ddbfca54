"""The local stack with its real parts: starts, heals, refuses a taken port, stops."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.triton, pytest.mark.slow]

PORTS = {
    "RML_CONTROL_PORT": "control-plane",
    "RML_MLFLOW_PORT": "mlflow",
    "RML_DOOR_PORT": "door",
    "RML_DOOR_GRPC_PORT": "door",
    "RML_TRITON_HTTP_PORT": "triton",
    "RML_TRITON_GRPC_PORT": "triton",
    "RML_TRITON_METRICS_PORT": "triton",
}


class Stack:
    """`rml` in a home of its own."""

    def __init__(self, home: Path, free_port: Callable[[], int]) -> None:
        self.env = {key: value for key, value in os.environ.items() if not key.startswith("RML_")}
        self.env |= {"RML_HOME": str(home)} | {name: str(free_port()) for name in PORTS}
        if "RML_TRITON_DIR" in os.environ:
            self.env["RML_TRITON_DIR"] = os.environ["RML_TRITON_DIR"]

    def rml(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "roblox_ml.cli", *arguments]
        return subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=320, check=False)

    def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.rml("status", "--json").stdout)
        return answer


@pytest.fixture
def stack(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Stack]:
    made = Stack(tmp_path / "home", free_port)
    yield made
    made.rml("down")


def wait_for(condition: Callable[[], Any], seconds: float = 120.0) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.2)
    raise AssertionError("the condition never came true")


def test_up_heals_and_down(stack: Stack) -> None:
    started = stack.rml("up")
    assert started.returncode == 0, started.stdout + started.stderr
    parts = stack.status()
    assert set(parts) == {"mlflow", "control-plane", "runner", "triton", "agent", "door"}
    assert all(part["ready"] for part in parts.values())
    with urllib.request.urlopen(f"{parts['door']['url']}/v2/health/live") as answer:
        assert answer.status == 200

    for name, part in parts.items():
        os.kill(part["pid"], signal.SIGKILL)
        wait_for(lambda name=name, pid=part["pid"]: (now := stack.status()[name])["ready"] and now["pid"] != pid)
    assert {name: part["restarts"] for name, part in stack.status().items()} == dict.fromkeys(parts, 1)

    again = stack.rml("up")
    assert again.returncode == 0
    assert "starting" not in again.stdout, "what runs already must be left alone"

    pids = [part["pid"] for part in stack.status().values()]
    assert stack.rml("down").returncode == 0
    assert stack.status() == {}
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
    assert "nothing is running" in stack.rml("status").stdout


def test_a_taken_port_is_refused_by_name_and_nothing_is_lost(stack: Stack) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", int(stack.env["RML_CONTROL_PORT"])))
        other.listen()
        refused = stack.rml("up", "control-plane")
        assert refused.returncode == 1
        assert f"port {stack.env['RML_CONTROL_PORT']} (control plane) is taken" in refused.stderr.replace("\n", " ")
        assert "RML_CONTROL_PORT" in refused.stderr
    # The port is free again: the supervisor takes it by itself.
    wait_for(lambda: stack.status().get("control-plane", {}).get("ready"))


def test_killing_the_supervisor_leaves_no_orphan(stack: Stack) -> None:
    assert stack.rml("up", "control-plane").returncode == 0
    part = stack.status()["control-plane"]["pid"]
    supervisor = json.loads((Path(stack.env["RML_HOME"]) / "stack" / "state.json").read_text())["pid"]
    os.kill(supervisor, signal.SIGKILL)
    wait_for(lambda: not Path(f"/proc/{part}").exists())
    assert stack.status() == {}
    assert stack.rml("up", "control-plane").returncode == 0
