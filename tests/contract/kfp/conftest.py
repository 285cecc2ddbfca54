"""The recorded Kubeflow Pipelines server as a fixture."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


def _server_module() -> Any:
    if "kfp_server" not in sys.modules:
        spec = importlib.util.spec_from_file_location("kfp_server", Path(__file__).with_name("kfp_server.py"))
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["kfp_server"] = module
        spec.loader.exec_module(module)
    return sys.modules["kfp_server"]


@pytest.fixture(scope="session")
def recording() -> Any:
    """The module with the recorded exchanges."""
    return _server_module()


@pytest.fixture
def server() -> Iterator[Any]:
    """A fresh server."""
    with _server_module().running() as running:
        yield running
