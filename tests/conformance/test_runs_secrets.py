"""Secrets of steps that run here: from the environment or a private file, to the step that asks, and into nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from roblox_ml._backends.local import LocalExecutor
from roblox_ml._store import home
from roblox_ml.errors import RunFailed

VALUE = "s3cr3t-that-is-nowhere"
SOURCE = """
@rml.step(secrets=[rml.secret("hub", key="token", env="HF_TOKEN")])
def asks() -> str:
    return str(len(os.environ["HF_TOKEN"]))

@rml.step
def asks_not(n: str) -> str:
    return os.environ.get("HF_TOKEN", "nothing")

@rml.pipeline
def sample():
    asks_not(asks())
"""


def run(built: Any) -> Any:
    return LocalExecutor().run(built, {}, progress=False, cache=False)


def test_from_the_environment_to_the_step_that_asks(
    build: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", VALUE)
    done = run(build(SOURCE))
    assert done.outputs["asks"] == str(len(VALUE)) and done.outputs["asks-not"] == "nothing"
    files = [p for p in home().rglob("*") if p.is_file()]
    assert len(files) > 5 and not any(VALUE.encode() in p.read_bytes() for p in files)


def test_from_a_private_file(build: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    file = home() / "secrets" / "hub" / "token"
    file.parent.mkdir(parents=True)
    file.write_text("abc\n")
    file.chmod(0o644)
    with pytest.raises(RunFailed, match="can be read by others"):
        run(build(SOURCE))
    file.chmod(0o600)
    assert run(build(SOURCE)).outputs["asks"] == "3"


def test_what_is_missing_is_said_before_the_step_starts(
    build: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(
        RunFailed, match=r"not started: the step's secrets are not here: HF_TOKEN \(key token of secret hub\)"
    ) as caught:
        run(build(SOURCE))
    assert str(home() / "secrets" / "hub" / "token") in str(caught.value)


def test_mounted_files_are_where_the_step_expects_them(build: Callable[[str], Any], tmp_path: Path) -> None:
    mount = tmp_path / "tls"
    source = f"""
@rml.step(secrets=[rml.secret("certificates", mount="{mount}")], shm="1Gi", ephemeral_storage="1Gi")
def reads() -> str:
    assert "TMPDIR" not in os.environ or os.path.isdir(os.environ["TMPDIR"])
    return Path("{mount}/ca.crt").read_text()

@rml.pipeline
def sample():
    reads()
"""
    with pytest.raises(RunFailed, match="no such folder here"):
        run(build(source))
    mount.mkdir()
    (mount / "ca.crt").write_text("certificate")
    assert run(build(source)).outputs["reads"] == "certificate"
    assert os.environ.get("TMPDIR") != "/rml-scratch"
