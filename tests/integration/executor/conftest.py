"""The builder of sample pipelines as a fixture."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

_spec = importlib.util.spec_from_file_location(
    "executor_support", Path(__file__).resolve().parents[2] / "conformance" / "support.py"
)
assert _spec is not None and _spec.loader is not None
support = importlib.util.module_from_spec(_spec)
__import__("sys").modules["executor_support"] = support
_spec.loader.exec_module(support)


@pytest.fixture
def build(tmp_path: Path) -> Callable[[str], Any]:
    return lambda source: support.build(source, tmp_path)
