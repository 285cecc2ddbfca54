"""The executor is killed, the log is torn, two want the same run: what is finished stays finished, nothing runs twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import roblox_ml as rml
from roblox_ml._backends.local import LocalExecutor
from roblox_ml._runner.stored import LOST, begin
from roblox_ml.errors import RunError, RunFailed

SUPPORT = Path(__file__).resolve().parents[2] / "conformance"

SOURCE = """
@rml.step(cache=False)
def quick(place: str) -> rml.Dataset:
    with open(place + "/quick", "a") as f:
        f.write("x")
    out = rml.Dataset()
    (out.path / "v").write_text("1")
    return out

@rml.step
def slow(d: rml.Dataset, place: str) -> int:
    import subprocess
    with open(place + "/slow", "a") as f:
        f.write("x")
    if not Path(place, "go").exists():
        child = subprocess.Popen(["sleep", "600"])
        Path(place, "pids.new").write_text(f"{os.getpid()} {child.pid}")
        Path(place, "pids.new").rename(Path(place, "pids"))
        time.sleep(600)
    return int((d.path / "v").read_text())

@rml.step
def last(n: int, place: str) -> int:
    with open(place + "/last", "a") as f:
        f.write("x")
    return n + 1

@rml.pipeline
def recovery(place: str):
    last(slow(quick(place), place), place)
"""

PROGRAM = """
import sys
sys.path.insert(0, {support!r})
from pathlib import Path
import support
from roblox_ml._backends.local import LocalExecutor
run = LocalExecutor().run(support.build({source!r}, Path({place!r})), {{"place": {place!r}}}, wait=False)
print(run.id, flush=True)
run.wait()
"""


@pytest.fixture
def killed(tmp_path: Path) -> Iterator[tuple[str, Path, list[int]]]:
    """A run whose executor was killed while its second step waited: (run id, folder, pids of the step and its child)."""
    place = tmp_path / "place"
    place.mkdir()
    program = PROGRAM.format(support=str(SUPPORT), source=SOURCE, place=str(place))
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as executor:
        assert executor.stdout is not None
        run_id = executor.stdout.readline().strip()
        wait_for(lambda: (place / "pids").exists())
        pids = [int(pid) for pid in (place / "pids").read_text().split()]
        executor.kill()
        executor.wait()
        yield run_id, place, pids
    for pid in pids:
        if alive(pid):
            os.kill(pid, signal.SIGKILL)


def wait_for(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_a_run_whose_executor_was_killed_finishes_without_repeating(killed: tuple[str, Path, list[int]]) -> None:
    run_id, place, pids = killed
    run = rml.get_run(run_id)
    assert run.state == "INTERRUPTED"
    assert run.tasks["quick"].state == "SUCCEEDED"
    # The step asked the kernel to die with its executor; its child did not, and is ended by the retry.
    wait_for(lambda: not alive(pids[0]))
    assert alive(pids[1])
    (place / "go").touch()
    finished = run.retry(progress=False)
    assert not alive(pids[1])
    assert finished.state == "SUCCEEDED" and finished.id == run_id
    assert finished.outputs["last"] == 2
    assert {name: (place / name).read_text() for name in ("quick", "slow", "last")} == {
        "quick": "x",
        "slow": "xx",
        "last": "x",
    }
    assert finished.tasks["slow"].attempts == 2
    with pytest.raises(RunError, match="nothing to retry"):
        finished.retry()


def test_a_run_that_another_runner_had_for_a_moment_goes_on_and_one_that_was_cancelled_stays_so(
    killed: tuple[str, Path, list[int]],
) -> None:
    """A run given away and back is not cancelled, though its steps were ended in between."""
    run_id, place, _ = killed
    order = {"run": run_id, "cancel": False, "retry": False}
    (place / "pids").unlink()
    run = begin(order)
    wait_for(lambda: (place / "pids").exists())
    run.cancel(LOST)
    again = begin(order)
    assert again.state == "RUNNING"
    again.cancel()
    wait_for(lambda: again.state == "CANCELLED")
    assert begin(order).state == "CANCELLED"
    (place / "go").touch()
    finished = begin({**order, "retry": True})
    wait_for(lambda: finished.state == "SUCCEEDED")
    assert finished.outputs["last"] == 2


def test_waiting_for_a_killed_run_says_that_it_was_interrupted(killed: tuple[str, Path, list[int]]) -> None:
    with pytest.raises(RunFailed, match="interrupted") as caught:
        rml.get_run(killed[0]).wait()
    assert "retry()" in str(caught.value)


def test_a_torn_last_line_is_no_event(killed: tuple[str, Path, list[int]]) -> None:
    run_id, place, _ = killed
    log = rml.get_run(run_id).path / "events.jsonl"
    whole = log.read_bytes()
    log.write_bytes(whole + b'{"seq": 99, "event": "task_fini')
    run = rml.get_run(run_id)
    assert run.tasks["slow"].state == "RUNNING"
    (place / "go").touch()
    run.retry(progress=False)
    numbers = [json.loads(line)["seq"] for line in log.read_text().splitlines()]
    assert numbers == list(range(1, len(numbers) + 1))


# Without the cache: what is kept is kept by the run's own record.
FAILS = """
@rml.step(cache=False)
def quick(place: str) -> int:
    with open(place + "/quick", "a") as f:
        f.write("x")
    return 1

@rml.step
def picky(n: int, place: str) -> int:
    if not Path(place, "go").exists():
        raise ValueError("not yet")
    return n

@rml.pipeline
def fails(place: str):
    picky(quick(place), place)
"""


def test_retry_after_a_failure_keeps_what_succeeded(build: Callable[[str], Any], tmp_path: Path) -> None:
    with pytest.raises(RunFailed) as caught:
        LocalExecutor().run(build(FAILS), {"place": str(tmp_path)}, progress=False)
    (tmp_path / "go").touch()
    run = caught.value.run.retry(progress=False)
    assert run.state == "SUCCEEDED" and run.outputs["picky"] == 1
    assert (tmp_path / "quick").read_text() == "x"


def test_outputs_that_are_gone_are_made_again(build: Callable[[str], Any], tmp_path: Path) -> None:
    import shutil

    source = FAILS.replace("-> int:\n    with", "-> rml.Dataset:\n    with").replace("return 1", "return rml.Dataset()")
    source = source.replace("n: int, place", "n: rml.Dataset, place").replace("return n", "return 5")
    with pytest.raises(RunFailed) as caught:
        LocalExecutor().run(build(source), {"place": str(tmp_path)}, progress=False)
    shutil.rmtree(caught.value.run.outputs["quick"].path)
    (tmp_path / "go").touch()
    run = caught.value.run.retry(progress=False)
    assert run.outputs["picky"] == 5
    assert (tmp_path / "quick").read_text() == "xx"


def test_a_run_has_one_executor(build: Callable[[str], Any], tmp_path: Path) -> None:
    source = SOURCE.replace(
        "time.sleep(600)", "\n        while not Path(place, 'go').exists(): time.sleep(0.02)\n        child.kill()"
    )
    run = LocalExecutor().run(build(source), {"place": str(tmp_path)}, wait=False)
    wait_for(lambda: (tmp_path / "pids").exists())
    with pytest.raises(RunError, match="still going on"):
        rml.get_run(run.id).retry()
    (tmp_path / "go").touch()
    assert rml.get_run(run.id).wait().state == "SUCCEEDED"


def test_ctrl_c_cancels_and_ends_the_steps(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    program = PROGRAM.format(support=str(SUPPORT), source=SOURCE, place=str(place))
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # Tests started in the background of a shell inherit that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as executor:  # fmt: skip
        assert executor.stdout is not None
        run_id = executor.stdout.readline().strip()
        wait_for(lambda: (place / "pids").exists())
        executor.send_signal(signal.SIGINT)
        _, text = executor.communicate(timeout=60)
    assert "KeyboardInterrupt" in text
    assert rml.get_run(run_id).state == "CANCELLED"
    assert not any(alive(int(pid)) for pid in (place / "pids").read_text().split())
