"""Which processes are a repository's stubs."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from roblox_ml_serving.agent.plan import Key
from roblox_ml_serving.agent.triton import parse_name, tidy
from roblox_ml_serving.triton import processes

REPOSITORY = Path("/home/models")
STUB = "/opt/backends/python/triton_python_backend_stub"


@pytest.mark.parametrize(
    ("command", "model"),
    [
        ([STUB, "/home/models/clf.3.batch/3/model.py", "region"], "clf.3"),
        ([STUB, "/home/models/clf.3/3/model.py", "region"], None),
        ([STUB, "/home/other/clf.3.batch/3/model.py"], None),
        (["/bin/python", "/home/models/clf.3.batch/3/model.py"], None),
        ([STUB], None),
        ([], None),
    ],
)
def test_the_model_is_read_from_the_command_line(command: list[str], model: str | None) -> None:
    assert processes.model_of(command, REPOSITORY) == model


def test_a_living_stub_is_found_and_a_dead_one_is_not(tmp_path: Path) -> None:
    stub = tmp_path / "triton_python_backend_stub"
    stub.symlink_to(sys.executable)  # a real process whose name and command line are a stub's
    script = tmp_path / "models" / "clf.3.batch" / "3" / "model.py"
    script.parent.mkdir(parents=True)
    script.write_text("print('up', flush=True)\ninput()\n")
    process = subprocess.Popen([stub, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        (found,) = processes.stubs(tmp_path / "models")
        assert (found.pid, found.model) == (process.pid, "clf.3")
        assert processes.memory([found]) > 0
        assert processes.memory([replace(found, started=0.0)]) == 0  # a later process of the same number
    finally:
        process.kill()
        process.communicate()
    assert processes.stubs(tmp_path / "models") == frozenset()


def test_a_stub_whose_server_lives_is_left_alone(tmp_path: Path) -> None:
    script = tmp_path / "models" / "clf.3.batch" / "3" / "model.py"
    script.parent.mkdir(parents=True)
    script.write_text("import time\nprint('up', flush=True)\ntime.sleep(600)\n")
    for name in ("tritonserver", "triton_python_backend_stub"):
        (tmp_path / name).symlink_to(sys.executable)
    code = "import subprocess, sys; subprocess.run(sys.argv[1:])"
    command = [tmp_path / "tritonserver", "-c", code, tmp_path / "triton_python_backend_stub", script]
    server = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert server.stdout is not None
    server.stdout.readline()
    assert processes.end_orphans(tmp_path / "models") == []
    (stub,) = processes.stubs(tmp_path / "models")
    server.kill()
    server.wait()
    assert processes.end_orphans(tmp_path / "models") == [stub.pid]
    server.stdout.close()


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("clf.3", Key("clf", 3)),
        ("clf.3.batch", None),
        ("clf", None),
        ("a-b.12", Key("a-b", 12)),
        ("a.x", None),
        ("a.b.1", None),
    ],
)
def test_public_names_are_told_from_batch_models(name: str, key: Key | None) -> None:
    assert parse_name(name) == key


def test_a_reason_is_told_without_the_stub_s_frames() -> None:
    reason = "Internal: ValueError: no such file\n\nAt:\n  /models/clf.3.batch/3/model.py(12): load\n"
    assert tidy(reason) == "Internal: ValueError: no such file"
