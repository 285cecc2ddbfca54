"""The environment store with real uv, real pip and real processes that are killed."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from roblox_ml._runtime import environments, indexes
from roblox_ml.errors import EnvironmentError_


def lock_of(*wheels: Path) -> tuple[str, str]:
    lines = [
        f"# roblox-ml environment lock, schema {environments.SCHEMA}",
        f"# python {environments.python_minor()}",
        f"# platform {environments.platform_tag()}",
    ]
    for wheel in wheels:
        name, version = wheel.name.split("-")[:2]
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        lines.append(f"{name.replace('_', '-')}=={version} \\\n    --hash=sha256:{digest}")
    text = "\n".join(lines) + "\n"
    return text, hashlib.sha256(text.encode()).hexdigest()


def version_in(python: Path, module: str) -> str:
    program = f"import {module}; print({module}.version)"
    return subprocess.run([python, "-I", "-c", program], capture_output=True, text=True, check=True).stdout.strip()


def child(program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("tool", ["uv", "pip"])
def test_an_environment_is_built_once_and_entered_again(wheels, tool, monkeypatch, capfd, rml_home: Path) -> None:
    if tool == "pip":
        monkeypatch.setattr(indexes, "find_uv", lambda: None)
    text, digest = lock_of(wheels("tiny-one", "1.0", "not-in-the-lock"), wheels("tiny-two", "2.0"))
    python = environments.ensure(text, digest)
    assert python.is_relative_to(rml_home / "envs" / digest)
    assert (version_in(python, "tiny_one"), version_in(python, "tiny_two")) == ("1.0", "2.0")
    said = capfd.readouterr().out
    assert "building it (2 packages)" in said and "ready after" in said
    assert environments.ensure(text, digest) == python == environments.warm(text)
    assert capfd.readouterr().out == "", "an environment that is there is entered without a word"
    assert (rml_home / "envs" / digest / "lock.txt").read_text() == text


def test_a_wheel_with_another_hash_is_not_installed(wheels, rml_home: Path) -> None:
    wheel = wheels("tiny-one", "1.0")
    text, _ = lock_of(wheel)
    text = text.replace(hashlib.sha256(wheel.read_bytes()).hexdigest(), "0" * 64)
    digest = hashlib.sha256(text.encode()).hexdigest()
    with pytest.raises(EnvironmentError_, match="could not be built") as error:
        environments.ensure(text, digest)
    assert "hash" in str(error.value).lower() and "tiny" in str(error.value)
    assert not (rml_home / "envs" / digest).exists(), "nothing half built is left behind"


def test_four_at_once_build_one(wheels) -> None:
    text, digest = lock_of(wheels("tiny-one", "1.0"))
    program = """
        import sys
        from roblox_ml._runtime.environments import ensure
        print(ensure(sys.argv[1], sys.argv[2]))
    """
    ended = [process.communicate() for process in [child(program, text, digest) for _ in range(4)]]
    assert len({out.splitlines()[-1] for out, _ in ended}) == 1
    assert sum("building it (" in out for out, _ in ended) == 1


def test_a_build_that_is_killed_leaves_nothing_that_looks_whole(wheels, rml_home: Path) -> None:
    text, digest = lock_of(wheels("tiny-one", "1.0"))
    program = """
        import sys, time
        from roblox_ml._runtime import environments
        real = environments._call
        def stop_after_the_first(*arguments):
            real(*arguments)
            print("half", flush=True)
            time.sleep(60)
        environments._call = stop_after_the_first
        environments.ensure(sys.argv[1], sys.argv[2])
    """
    process = child(program, text, digest)
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == "half":
            break
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert (rml_home / "envs" / digest / "bin" / "python").exists()
    assert not (rml_home / "envs" / digest / environments.MARKER).exists()
    assert version_in(environments.ensure(text, digest), "tiny_one") == "1.0"


def test_an_orphaned_installer_is_waited_for(wheels, tmp_path: Path, capfd) -> None:
    """kill -9 ends the builder, not its uv; nobody may clear the folder while that one still writes into it."""
    text, digest = lock_of(wheels("tiny-one", "1.0"))
    events = tmp_path / "events"
    slow_uv = tmp_path / "slow-uv"
    slow_uv.write_text(
        f'#!/bin/sh\necho started >> {events}\nsleep 2\necho ended >> {events}\nexec {indexes.find_uv()} "$@"\n'
    )
    slow_uv.chmod(0o755)
    program = """
        import sys
        from roblox_ml._runtime import environments, indexes
        indexes.find_uv = lambda: sys.argv[3]
        environments.ensure(sys.argv[1], sys.argv[2])
    """
    process = child(program, text, digest, str(slow_uv))
    while not events.exists():
        assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    python = environments.ensure(text, digest)
    assert events.read_text().split() == ["started", "ended"], "the second build began when the orphan had ended"
    assert "waiting" in capfd.readouterr().out
    assert version_in(python, "tiny_one") == "1.0"


def test_the_standard_library_alone_can_build(wheels, tmp_path: Path) -> None:
    """A step's image has plain Python: no uv on PATH, pip by the interpreter, nothing of this environment visible."""
    text, digest = lock_of(wheels("tiny-one", "1.0"))
    root = Path(__file__).resolve().parents[3]
    program = (
        "import sys; sys.path.insert(0, sys.argv[3]);"
        "from roblox_ml._runtime.environments import ensure; print(ensure(sys.argv[1], sys.argv[2]))"
    )
    plain = getattr(sys, "_base_executable", sys.executable)
    environment = {name: os.environ[name] for name in ("RML_HOME", "PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_CONFIG_FILE")}
    done = subprocess.run(
        [plain, "-I", "-S", "-c", program, text, digest, str(root)],
        env={**environment, "PATH": "/usr/bin:/bin"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert version_in(Path(done.stdout.splitlines()[-1]), "tiny_one") == "1.0"
