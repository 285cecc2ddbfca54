"""Records on a disk that fails when it is told to, without their thread: each step happens when a test says so."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
from roblox_ml_core.policy import LogPolicy
from roblox_ml_core.records import Records
from roblox_ml_core.records.layout import Layout
from roblox_ml_core.records.writer import Disk
from roblox_ml_core.settings import RecordsSettings

NOW_US = 1_790_000_000_000_000


class Killed(BaseException):
    """The process ends here."""


class Moody(Disk):
    """`mood`: "fine"; "full" (nothing is written); "killed" (the file is there, and then the process ends)."""

    mood = "fine"

    def put(self, path: str, data: bytes) -> None:
        if self.mood == "full":
            raise OSError(errno.ENOSPC, "no space left on device")
        super().put(path, data)
        if self.mood == "killed":
            raise Killed


class Bench:
    """One door's records, stepped by hand."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.settings = RecordsSettings(**{"keep_free_bytes": 0, "sweep_s": 0, **settings})
        self.disk = Moody(Layout(str(folder)))
        self.policies: dict[str, LogPolicy] = {}
        self.begin()

    def begin(self) -> None:
        self.records = Records(str(self.folder), door="d", settings=self.settings, disk=self.disk)
        self.records.prepare()

    def flush(self) -> None:
        for writer in self.records.writers.values():
            writer.flush(self.policies, LogPolicy())

    def kill(self) -> None:
        """As the kernel does it: the lock goes, what is in memory goes."""
        self.records._counters.release()


def request(number: int = 0, *, endpoint: Any = "feed", unit: str = "u1", at_us: Any = NOW_US, **other: Any) -> tuple:
    fields = {
        "at_us": at_us, "inference_id": f"i{number}", "endpoint": endpoint, "model": "feed", "version": 7, "role": "champion",
        "arms": "", "unit": unit, "protocol": "rest", "code": 200, "latency_us": 900, "fallback": False, "request": None,
        "response": None,
    }  # fmt: skip
    return tuple({**fields, **other}.values())


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "records")


@pytest.fixture
def kit() -> Any:
    """The names of this file, for tests that make several."""
    import types

    return types.SimpleNamespace(Bench=Bench, Killed=Killed, request=request, NOW_US=NOW_US)
