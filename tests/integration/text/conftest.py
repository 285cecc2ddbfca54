"""Tiny text models, made once per session."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from roblox_ml_core.package import ModelPackage

ROOT = Path(__file__).resolve().parents[3]
TRITON_DIR = Path(os.environ.get("RML_TRITON_DIR") or ROOT / ".triton")


@pytest.fixture(scope="session")
def packages() -> Any:
    """The module packages.py of this folder."""
    spec = importlib.util.spec_from_file_location("text_packages", Path(__file__).with_name("packages.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny(packages: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., ModelPackage]:
    """`packages.text_cpu` with the same arguments, each combination made once."""
    made: dict[str, ModelPackage] = {}

    def make(**arguments: Any) -> ModelPackage:
        key = repr(sorted(arguments.items()))
        if key not in made:
            made[key] = packages.text_cpu(tmp_path_factory.mktemp("text") / "package", **arguments)
        return made[key]

    return make


@pytest.fixture(scope="session")
def triton_dir() -> Path:
    if not (TRITON_DIR / ".rml-complete").is_file():
        pytest.skip(f"no Triton environment at {TRITON_DIR}: `make setup` installs it")
    return TRITON_DIR
