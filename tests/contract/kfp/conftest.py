"""The server that answers as a recorded one did, as a fixture."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import kfpserver


@pytest.fixture(scope="session")
def recording() -> Any:
    """The module with the recorded exchanges."""
    return kfpserver


@pytest.fixture
def server() -> Iterator[Any]:
    """A fresh server; nobody carries its runs out."""
    with kfpserver.running() as running:
        yield running


@pytest.fixture
def kept_server(tmp_path: Path) -> Iterator[Any]:
    """A fresh server with a folder for artifacts."""
    with kfpserver.running(artifacts=tmp_path / "artifacts") as running:
        yield running


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No connection is left from another test, no kubeconfig and no keys of this machine are used."""
    from roblox_ml._backends.kfp import connection

    for name in (
        "HOST",
        "TOKEN",
        "NAMESPACE",
        "EXPERIMENT",
        "PUBLIC_URL",
        "PIPELINE_ROOT",
        "TIMEZONE",
        "CA",
        "SERVICE_ACCOUNT",
    ):
        monkeypatch.delenv(f"RML_KFP_{name}", raising=False)
    for name in ("KUBECONFIG", "AWS_ACCESS_KEY_ID", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("roblox_ml._backends.kfp.logs.kubernetes", lambda context: None)
    monkeypatch.setattr("roblox_ml._backends.kfp.run._POLL", 0.02)
    monkeypatch.setattr("roblox_ml._backends.kfp.logs._FOLLOW", 0.02)
    yield
    connection._last.clear()
