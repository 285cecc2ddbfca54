"""Fixtures every test may use: a private RML_HOME, free ports, the shared data folder."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def rml_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Every test has a home of its own: nothing leaks into the user's."""
    home = tmp_path / "rml_home"
    home.mkdir()
    for name in [
        name for name in os.environ if name.startswith("RML_") and name not in ("RML_SHARED", "RML_TRITON_DIR")
    ]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RML_HOME", str(home))
    yield home


@pytest.fixture
def free_port() -> Callable[[], int]:
    """A function that returns a TCP port that was free a moment ago."""

    def pick() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    return pick


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared test data, or a skip that says how to provide it."""
    folder = Path(os.environ.get("RML_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no shared data at {folder}: put it beside the clone or set RML_SHARED")
    return folder
