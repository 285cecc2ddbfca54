"""What steps should not do, and numbers JSON does not have: told in the step's own terms, and never cached."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import roblox_ml as rml
from roblox_ml._backends.local import LocalExecutor
from roblox_ml.errors import RunError, RunFailed

SUPPORT = Path(__file__).resolve().parents[2] / "conformance"


def go(built: Any, **arguments: Any) -> Any:
    return LocalExecutor().run(built, arguments, progress=False)


def failing(built: Any, **arguments: Any) -> Any:
    with pytest.raises(RunFailed) as caught:
        go(built, **arguments)
    return caught.value


INPUTS = """
@rml.step
def make() -> rml.Dataset:
    out = rml.Dataset()
    (out.path / "x").write_text("made")
    return out

@rml.step(retries=3)
def spoil(d: rml.Dataset) -> int:
    (d.path / "x").write_text("spoiled")
    (d.path / "y").write_text("more")
    return 1

@rml.step
def read(d: rml.Dataset, after: int) -> str:
    return ",".join(sorted(f.read_text() for f in d.path.iterdir()))

@rml.pipeline
def writes():
    d = make()
    read(d, spoil(d))

@rml.pipeline
def reads():
    read(make(), 1)
"""


def test_a_step_that_writes_into_its_input_fails_and_spoils_no_cache(build: Callable[[str], Any]) -> None:
    failed = failing(build(INPUTS.replace("def reads", "def _reads").replace("@rml.pipeline\ndef _", "def _")))
    assert "input 'd' was written to" in str(failed) and "rml.Dataset()" in str(failed)
    assert failed.run.tasks["spoil"].attempts == 1
    good = go(build(INPUTS.replace("@rml.pipeline\ndef writes", "def writes")))
    assert good.outputs["read"] == "made"


def test_a_step_that_deletes_its_output_is_told(build: Callable[[str], Any]) -> None:
    source = """
@rml.step
def lose() -> rml.Dataset:
    import shutil
    out = rml.Dataset()
    shutil.rmtree(out.path)
    return out

@rml.pipeline
def loses():
    lose()
"""
    assert "the files of Output are gone" in str(failing(build(source)))


def test_numbers_json_does_not_have_arrive_as_numbers(build: Callable[[str], Any]) -> None:
    source = """
@rml.step
def diverge() -> float:
    return float("nan")

@rml.step
def losses() -> list[float]:
    return [1.0, float("nan"), float("-inf")]

@rml.step
def show(loss: float, every: list[float]) -> str:
    return repr((loss, every))

@rml.pipeline
def diverges():
    show(diverge(), losses())
"""
    run = go(build(source))
    assert math.isnan(run.outputs["diverge"])
    assert run.outputs["show"] == "(nan, [1.0, nan, -inf])"


SCRIPT = """
import sys
sys.path.insert(0, {support!r})
from pathlib import Path
import support
from roblox_ml._backends.local import LocalExecutor
print(LocalExecutor().run(support.build({source!r}, Path({place!r})), {{}}, wait=False).id, flush=True)
"""
CHAIN = """
@rml.step
def one() -> int:
    return 1

@rml.step
def two(n: int) -> int:
    return n + 1

@rml.pipeline
def chain():
    two(one())
"""


def test_a_script_that_ends_lets_its_run_finish(tmp_path: Path) -> None:
    program = SCRIPT.format(support=str(SUPPORT), source=CHAIN, place=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    run = rml.get_run(done.stdout.strip())
    assert run.state == "SUCCEEDED" and run.outputs["two"] == 2
    assert done.stderr == ""


def test_an_error_of_the_executor_itself_ends_the_run(
    build: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from roblox_ml._backends.local.steps import StepRunner

    def full(*_: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(StepRunner, "_prepare", full)
    with pytest.raises(RunError, match="No space left"):
        go(build(CHAIN))
    run = rml.runs()[0]
    assert run.state == "FAILED" and "No space left" in run.error
    monkeypatch.undo()
