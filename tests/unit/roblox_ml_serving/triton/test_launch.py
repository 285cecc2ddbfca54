"""Starting Triton: the command, the environment, where it is looked for, and that two never share a repository."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from roblox_ml_core.errors import Unavailable
from roblox_ml_core.settings import HomeSettings, TritonSettings
from roblox_ml_serving.triton import Installation, command, environment, find_installation, shm_prefix
from roblox_ml_serving.triton import __main__ as program


def install(root: Path) -> Installation:
    installation = Installation(root)
    for file in (installation.binary, installation.python):
        file.parent.mkdir(parents=True)
        file.write_text("#!/bin/sh\n")
        file.chmod(0o755)
    return installation


def test_the_server_starts_empty_on_loopback_and_without_a_cache(tmp_path: Path) -> None:
    settings = TritonSettings(http_port=1, grpc_port=2, metrics_port=3)
    arguments = command(Installation(tmp_path), settings, tmp_path / "models")
    for expected in (
        "--model-control-mode=explicit", "--http-address=127.0.0.1", "--grpc-address=127.0.0.1", "--metrics-address=127.0.0.1",
        "--http-port=1", "--grpc-port=2", "--metrics-port=3", f"--model-repository={tmp_path / 'models'}",
    ):  # fmt: skip
        assert expected in arguments
    assert not any("cache" in argument or "load-model" in argument for argument in arguments)


def test_the_stub_finds_its_packages_and_no_secret(tmp_path: Path) -> None:
    base = {
        "PATH": "/bin",
        "RML_TOKEN": "secret",
        "PYTHONPATH": "/x",
        "PYTHONHOME": "/y",
        "HOME": "/root",
        "OMP_NUM_THREADS": "8",
    }
    result = environment(Installation(tmp_path), base)
    assert result["PATH"].split(os.pathsep)[0] == str(tmp_path / "be" / "bin")
    assert result["OMP_NUM_THREADS"] == "1"
    assert result["HOME"] == "/root"
    assert not {"RML_TOKEN", "PYTHONPATH", "PYTHONHOME"} & set(result)


def test_a_named_folder_is_the_only_one_looked_at(tmp_path: Path) -> None:
    install(tmp_path / "home" / "triton")
    home = HomeSettings(home=tmp_path / "home")
    assert find_installation(TritonSettings(), home).root == tmp_path / "home" / "triton"
    with pytest.raises(Unavailable, match=r"looked in .*elsewhere") as missing:
        find_installation(TritonSettings(dir=tmp_path / "elsewhere"), home)
    assert "make setup" in missing.value.hint


def test_a_second_server_on_the_same_repository_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "LOCK_WAIT_S", 0.1)
    assert program.hold_lock(tmp_path / "triton.lock", tmp_path / "models")
    code = (
        "import sys; from pathlib import Path; from roblox_ml_serving.triton import __main__ as program; "
        "program.LOCK_WAIT_S = 0.1; sys.exit(0 if program.hold_lock(Path(sys.argv[1]), Path(sys.argv[2])) else 3)"
    )
    second = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "triton.lock"), str(tmp_path / "models")], check=False
    )
    assert second.returncode == 3


def test_an_instance_that_outlived_its_server_does_not_keep_the_next_one_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "models" / "clf.3.batch" / "3" / "model.py"
    script.parent.mkdir(parents=True)
    lock = tmp_path / "triton.lock"
    script.write_text(
        "import fcntl, sys, time\nlock = open(sys.argv[1], 'w')\nfcntl.flock(lock, fcntl.LOCK_EX)\n"
        "print('held', flush=True)\ntime.sleep(600)\n"
    )
    stub = tmp_path / "triton_python_backend_stub"
    stub.symlink_to(sys.executable)
    process = subprocess.Popen([stub, script, lock], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        monkeypatch.setattr(program, "ORPHANS_AFTER_S", 0.0)
        assert program.hold_lock(lock, tmp_path / "models")
        assert process.wait(10) == -9
    finally:
        process.kill()
        process.communicate()


def test_memory_of_killed_stubs_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "SHM", tmp_path)
    mine, other = shm_prefix(tmp_path / "a"), shm_prefix(tmp_path / "b")
    assert mine != other
    for name in (f"{mine}1", f"{mine}2", f"{other}1"):
        (tmp_path / name).touch()
    program.remove_stale_memory(mine)
    assert [path.name for path in tmp_path.glob("rml-triton-*")] == [f"{other}1"]


def test_without_an_installation_it_says_what_to_type(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "roblox_ml_serving.triton"],
        env={**os.environ, "RML_TRITON_DIR": str(tmp_path / "none")}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "make setup" in done.stderr
