"""The public face: every exported name loads, a typo is recognised, siblings are reached through one door."""

from __future__ import annotations

import subprocess
import sys

import pytest

import roblox_ml as rml
from roblox_ml._siblings import load
from roblox_ml.errors import MissingExtra


@pytest.mark.parametrize("name", rml.__all__)
def test_every_export_loads(name: str) -> None:
    assert getattr(rml, name) is getattr(rml, name)


def test_a_typo_is_recognised() -> None:
    with pytest.raises(AttributeError, match="did you mean 'pipeline'"):
        _ = rml.pipline


def test_functions_win_over_modules_of_their_name() -> None:
    assert callable(rml.runs) and callable(rml.deploy)


def test_decorating_loads_nothing_but_the_decorator() -> None:
    """A step's module is imported in every step: the checks stay outside."""
    program = (
        "import sys, roblox_ml as rml\n"
        "@rml.step\ndef f(x: int) -> int: return x\n"
        "assert f(3) == 3\n"
        "print(sorted(m for m in sys.modules if m.startswith('roblox_ml')))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(["roblox_ml", "roblox_ml._graph", "roblox_ml._graph.step", "roblox_ml.errors"])


def test_siblings_by_name() -> None:
    assert load("roblox_ml_core").__name__ == "roblox_ml_core"
    with pytest.raises(ValueError, match="no sibling"):
        load("json")
    with pytest.raises(MissingExtra, match=r"roblox_ml_serving\.nowhere"):
        load("roblox_ml_serving.nowhere")
