"""A control plane and a runner as processes, on SQLite and on PostgreSQL, and a pipeline that writes down that it ran."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

_SOURCE = Path(__file__).resolve().parents[1] / "control_plane" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("control_plane_conftest", _SOURCE)
assert _SPEC is not None and _SPEC.loader is not None
_plane = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = _plane
_SPEC.loader.exec_module(_plane)

Plane = _plane.Plane
planes, database, postgres = _plane.planes, _plane.database, _plane.postgres

CODE = """
import os
import time
from pathlib import Path

import roblox_ml as rml


@rml.step(cache=False)
def note(day: str, folder: str, seconds: float) -> str:
    time.sleep(seconds)
    # One file for each time this ran: a second time would be seen.
    (Path(folder) / f"{day}.{os.getpid()}").touch()
    return day


@rml.pipeline(schedule=rml.cron("0 3 * * *", tz="Europe/Berlin"))
def nightly(folder: str, seconds: float = 0.0, day: str = rml.due_date):
    note(day, folder, seconds)


@rml.step(cache=False)
def count(data: rml.Dataset, folder: str) -> int:
    size = len((data.path / "a.txt").read_bytes())
    (Path(folder) / f"size-{size}.{os.getpid()}").touch()
    return size


@rml.pipeline(triggers=[rml.on_dataset("comments"), rml.on_run("nightly")])
def follows(folder: str):
    count(rml.dataset("comments"), folder)
"""


class World:
    """Processes that share the test's home, and the files that the pipelines leave."""

    def __init__(self, home: Path, plane: Any, ran: Path) -> None:
        self.home, self.plane, self.ran = home, plane, ran
        self.runner: subprocess.Popen[bytes] | None = None

    def start_runner(self) -> None:
        log = (self.home / "runner.log").open("ab")
        command = [sys.executable, "-m", "roblox_ml._runner"]
        self.runner = subprocess.Popen(command, env=dict(os.environ), stderr=log, stdout=log)

    def kill_runner(self) -> None:
        assert self.runner is not None
        self.runner.send_signal(signal.SIGKILL)
        self.runner.wait()

    def ran_days(self) -> list[str]:
        return sorted(path.name.partition(".")[0] for path in self.ran.iterdir())


@pytest.fixture
def world(
    rml_home: Path,
    planes: Callable[..., Any],
    database: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[World]:
    ran = tmp_path / "ran"
    ran.mkdir()
    plane = planes(**database)
    monkeypatch.setenv("RML_CONTROL_URL", f"http://127.0.0.1:{plane.port}")
    world = World(rml_home, plane, ran)
    yield world
    if world.runner is not None and world.runner.poll() is None:
        world.runner.terminate()
        world.runner.wait(10)


@pytest.fixture
def pipelines(tmp_path: Path) -> Callable[[str], Any]:
    """The pipelines of `CODE` by name."""
    from roblox_ml.cli._load import load_pipeline

    (tmp_path / "pipelines_of_test.py").write_text(CODE)
    return lambda name: load_pipeline(f"{tmp_path / 'pipelines_of_test.py'}:{name}")


def eventually(check: Callable[[], Any], seconds: float = 90.0) -> Any:
    """What `check` returns as soon as it is true."""
    end = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.1)
    return found


@pytest.fixture(name="eventually")
def _eventually() -> Callable[..., Any]:
    return eventually
