"""A supervised process: restarts with back-off, takes its children with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from roblox_ml import _stack
from roblox_ml._stack import _process, _state
from roblox_ml._stack.__main__ import Supervisor
from roblox_ml._stack._parts import Part, Port, describe, with_needs
from roblox_ml._stack._process import Supervised
from roblox_ml.errors import NotRunning

PARENT_AND_CHILD = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""

SUPERVISOR = """
import os, sys, time
from pathlib import Path
from roblox_ml._stack._process import Supervised
part = Supervised("x", [sys.executable, "-c", "import time; time.sleep(600)"], dict(os.environ), Path({log!r}))
part.start()
print(part.pid, flush=True)
time.sleep(600)
"""


def wait_for(condition: Callable[[], object], seconds: float = 20.0) -> object:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError("the condition never came true")


def supervised(tmp_path: Path, code: str) -> Supervised:
    return Supervised("part", [sys.executable, "-c", code], dict(os.environ), tmp_path / "logs" / "part.log")


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("ending", ["stop", "kill"])
def test_children_go_with_their_leader(tmp_path: Path, ending: str) -> None:
    part = supervised(tmp_path, PARENT_AND_CHILD)
    part.start()
    child = int(str(wait_for(lambda: part.log.read_text().strip())))
    assert alive(child)
    if ending == "stop":
        part.stop()
    else:
        assert part.pid is not None
        os.kill(part.pid, signal.SIGKILL)
        wait_for(lambda: part.tend(time.monotonic()))
    wait_for(lambda: not alive(child))
    assert part.pid is None
    part.stop()


def test_a_death_is_noticed_and_answered_with_growing_back_off(tmp_path: Path) -> None:
    part = supervised(tmp_path, "raise SystemExit(3)")
    part.start()
    waits = []
    now = time.monotonic()
    for _ in range(4):
        wait_for(lambda: part.process is not None and part.process.poll() is not None)
        assert part.tend(now)
        assert part.last_exit == 3
        waits.append(part.not_before - now)
        assert not part.tend(now), "restarted before its back-off was over"
        now = part.not_before
        assert part.tend(now)
    assert waits == sorted(waits) and waits[-1] > waits[0]
    assert part.restarts == 4
    part.stop()


def test_needs_are_closed_and_ordered() -> None:
    def part(name: str, *needs: str) -> Part:
        return Part(name, name, (), (), None, "-", needs)

    parts = {
        p.name: p
        for p in [
            part("door", "control-plane"),
            part("control-plane"),
            part("runner", "control-plane"),
            part("agent", "triton"),
            part("triton"),
            part("mlflow"),
        ]
    }
    assert with_needs(("door",), parts) == ("control-plane", "door")
    assert with_needs((), parts) == ("mlflow", "control-plane", "runner", "triton", "agent", "door")
    with pytest.raises(KeyError, match="no part is called 'dor'"):
        with_needs(("dor",), parts)


def test_a_taken_port_is_refused_by_name(free_port: Callable[[], int]) -> None:
    import socket

    with socket.socket() as other:
        other.bind(("127.0.0.1", free_port()))
        other.listen()
        number = other.getsockname()[1]
        lines = _state.taken_ports(Part("x", "x", (), (Port(number, "door REST", "RML_DOOR_PORT"),), None, "-"))
    assert len(lines) == 1
    assert f"port {number} (door REST)" in lines[0] and "RML_DOOR_PORT" in lines[0] and str(os.getpid()) in lines[0]


def test_state_files_survive_a_torn_write(rml_home: Path) -> None:
    _state.write("wanted.json", {"parts": ["door"]})
    assert _state.read("wanted.json") == {"parts": ["door"]}
    (rml_home / "stack" / "wanted.json").write_text('{"parts": [')
    assert _state.read("wanted.json") == {}


def test_what_a_killed_supervisor_left_is_neither_ready_nor_told_to_stop(rml_home: Path) -> None:
    part = {"ready": True, "url": "http://127.0.0.1:9", "pid": 1, "ports": []}
    _state.write("state.json", {"pid": os.getpid(), "parts": {"control-plane": part}})
    _state.write("wanted.json", {"parts": []})
    with _state.locked("supervisor.lock", wait=False, shared=True):  # another client is looking at this moment
        assert _state.supervisor_pid() is None
        assert _stack.down() is False
    _stack._spawn_supervisor()
    try:
        assert _state.supervisor_pid() not in (None, os.getpid())
        assert _stack.address("control-plane") is None
    finally:
        assert _stack.down() is True


def test_waiting_for_a_part_ends_when_somebody_stops_the_stack(rml_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spawn_then_down() -> None:
        _state.write("wanted.json", {"parts": []})

    monkeypatch.setattr(_stack, "_spawn_supervisor", spawn_then_down)
    with pytest.raises(NotRunning, match="was stopped while"):
        _stack.ensure("control-plane", say=lambda line: None, timeout=20)


def test_a_supervisor_that_leaves_while_somebody_waits_is_replaced(
    rml_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawned: list[int] = []

    def spawn() -> None:
        spawned.append(1)
        if len(spawned) == 2:  # the first one was on its way out
            monkeypatch.setattr(_stack, "_is_ready", lambda name: True)

    monkeypatch.setattr(_stack, "_spawn_supervisor", spawn)
    _stack.ensure("control-plane", say=lambda line: None, timeout=20)
    assert len(spawned) == 2


def test_a_failing_round_does_not_end_the_supervisor(
    rml_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    supervisor, rounds = Supervisor(), []

    def tick() -> None:
        rounds.append(1)
        if len(rounds) == 3:
            supervisor.stop(0, None)
        raise OSError("no space left on device")

    monkeypatch.setattr(supervisor, "tick", tick)
    supervisor.loop()
    assert len(rounds) == 3
    assert capsys.readouterr().err.count("no space left") == 1


def test_every_part_names_its_ports_and_how_to_move_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RML_DOOR_PORT", "23456")
    parts = describe()
    assert parts["door"].ports[0].number == 23456
    assert parts["door"].url.endswith(":23456")
    assert all(port.variable.startswith("RML_") for part in parts.values() for port in part.ports)


def test_dying_with_the_supervisor_is_asked_of_the_kernel(tmp_path: Path) -> None:
    code = SUPERVISOR.format(log=str(tmp_path / "x.log"))
    supervisor = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert supervisor.stdout is not None
    child = int(supervisor.stdout.readline())
    assert alive(child)
    supervisor.kill()
    supervisor.wait()
    wait_for(lambda: not alive(child))
    assert _process.PR_SET_PDEATHSIG == 1
