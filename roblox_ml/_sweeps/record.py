"""The folder of one sweep: its definition, its compiled pipeline, Optuna's study, and the state of every trial.

`$RML_HOME/sweeps/<name>/`; see docs/formats/sweep-record.md. The study (SQLite) decides; `state.json` is written from it
after every change, whole or not at all, so that a sweep can be read from any process and without Optuna.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .._store import home
from ..errors import RunError, RunNotFound
from .definition import Definition

__all__ = ["ENDED", "SCHEMA", "SweepFolder", "Trial", "sweeps_folder"]

SCHEMA = 1
ENDED = frozenset({"SUCCEEDED", "PRUNED", "FAILED"})
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


@dataclass(frozen=True, slots=True)
class Trial:
    """One run of a sweep: WAITING, RUNNING, SUCCEEDED, PRUNED or FAILED. `value` is the metric, `reports` (step, value)."""

    number: int
    state: str
    params: Mapping[str, Any]
    run: str = ""
    value: float | None = None
    reason: str = ""
    started: float | None = None
    finished: float | None = None
    reports: tuple[tuple[int, float], ...] = ()

    @property
    def duration(self) -> float | None:
        """Seconds; until now while it runs."""
        return None if self.started is None else (self.finished or time.time()) - self.started


def sweeps_folder() -> Path:
    """Where this machine keeps its sweeps."""
    return home() / "sweeps"


class SweepFolder:
    """Paths and records of a sweep."""

    __slots__ = ("name", "path")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name

    @classmethod
    def at(cls, name: str) -> SweepFolder:
        """The folder of this name, whether or not it is there."""
        if not _NAME.fullmatch(name):
            raise RunError(
                f"{name!r} is no name of a sweep", why="names are a-z, 0-9 and '-', at most 63", fix='name="lr-2"'
            )
        return cls(sweeps_folder() / name)

    @classmethod
    def open(cls, name: str) -> SweepFolder:
        """An existing sweep."""
        folder = cls(sweeps_folder() / name)
        if not name or folder.path.parent != sweeps_folder() or not folder.exists():
            there = ", ".join(sorted(found.name for found in cls.all())) or "none"
            raise RunNotFound(f"there is no sweep {name!r} under {sweeps_folder()}", fix=f"the sweeps are: {there}")
        return folder

    @classmethod
    def all(cls) -> Iterator[SweepFolder]:
        """Every sweep of this home, the newest first."""
        found = [path.parent for path in sweeps_folder().glob("*/sweep.json") if not path.parent.name.startswith(".")]
        for path in sorted(found, key=lambda p: (p / "sweep.json").stat().st_mtime_ns, reverse=True):
            yield cls(path)

    def exists(self) -> bool:
        return (self.path / "sweep.json").is_file()

    def create(self, definition: Definition, built: Any) -> None:
        """Make the folder; it appears by a rename with everything in it that a resume relies on."""
        fresh = self.path.with_name(f".{self.name}.{os.urandom(3).hex()}.new")
        fresh.mkdir(parents=True)
        (fresh / "ir.yaml").write_bytes(built.ir)
        provenance = dict(built.provenance or {})
        (fresh / "lines.json").write_text(json.dumps(provenance.pop("lines", {})), "utf-8")
        about = {
            "schema": SCHEMA,
            "name": self.name,
            # Trials' runs are named after it: a sweep of the same name begun anew must not meet the old one's runs.
            "prefix": f"{self.name}-{os.urandom(2).hex()}",
            "created": time.time(),
            "definition": definition.to_json(),
            "provenance": provenance,
            "blobs": sorted(built.blobs),
        }
        (fresh / "sweep.json").write_text(json.dumps(about, indent=1, default=str), "utf-8")
        fresh.rename(self.path)

    def set_aside(self) -> None:
        """Keep an old sweep under another name, for one that begins anew."""
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        self.path.rename(self.path.with_name(f"{self.name[:40]}-until-{stamp}"))

    @property
    def about(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads((self.path / "sweep.json").read_text("utf-8"))
        if loaded.get("schema") != SCHEMA:
            raise RunError(f"sweep {self.name} was recorded by another version (schema {loaded.get('schema')})")
        return loaded

    @property
    def asked(self) -> dict[str, Any]:
        """What the last call wanted: `trials`, `parallel`, `pruner`, and whether its trials run on Kubeflow."""
        try:
            loaded: dict[str, Any] = json.loads((self.path / "asked.json").read_text("utf-8"))
        except FileNotFoundError:
            return {"trials": 1, "parallel": 1, "pruner": "median", "remote": False}
        return loaded

    @property
    def is_remote(self) -> bool:
        return bool(self.asked["remote"])

    @property
    def storage_url(self) -> str:
        return f"sqlite:///{(self.path / 'study.db').absolute()}"

    @property
    def state(self) -> dict[str, Any]:
        """`state.json`: `state`, `trials`, `notes`. A sweep that has just begun has none."""
        try:
            loaded: dict[str, Any] = json.loads((self.path / "state.json").read_text("utf-8"))
        except FileNotFoundError:
            return {"state": "RUNNING", "trials": [], "notes": []}
        return loaded

    @property
    def trials(self) -> list[Trial]:
        return [
            Trial(**{**said, "reports": tuple((step, float(value)) for step, value in said["reports"])})
            for said in self.state["trials"]
        ]

    def write_state(self, state: str, trials: list[Trial], notes: list[str], wanted: int) -> None:
        """The projection of the study, by rename."""
        listed = [
            {**asdict(trial), "reports": [[s, v if v == v else "nan"] for s, v in trial.reports]} for trial in trials
        ]
        text = json.dumps({"state": state, "wanted": wanted, "notes": notes, "trials": listed}, indent=1)
        fresh = self.path / f".state.{os.getpid()}"
        fresh.write_text(text, "utf-8")
        fresh.replace(self.path / "state.json")

    def lock(self) -> int | None:
        """Become the one who drives the sweep: a handle to close at the end, or None when somebody does already."""
        handle = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        for last in (False, False, False, True):  # somebody who only looks holds it for an instant
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if last:
                    os.close(handle)
                    return None
                time.sleep(0.02)
            else:
                return handle
        return None

    def is_attended(self) -> bool:
        """Whether somebody drives it now."""
        handle = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        return False

    def delete(self) -> None:
        """The record; the trials' runs stay until `rml gc`."""
        shutil.rmtree(self.path)
