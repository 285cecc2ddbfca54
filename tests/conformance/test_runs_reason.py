"""`rml runs show` says why a step failed, not only that its process ended with 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner

from roblox_ml._backends.local import LocalExecutor
from roblox_ml.cli import app
from roblox_ml.errors import RunFailed

FAILS = """
@rml.step
def breaks() -> int:
    raise ValueError("no column 'text' in the data")

@rml.pipeline
def sample():
    breaks()
"""


def test_show_names_the_reason(build: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(RunFailed) as caught:
        LocalExecutor().run(build(FAILS), {}, progress=False)
    run = caught.value.run
    assert run.tasks["breaks"].reason == "exit code 1: ValueError: no column 'text' in the data"
    shown = CliRunner().invoke(app, ["runs", "show", run.id]).output
    assert "exit code 1: ValueError: no column 'text' in the data" in shown
