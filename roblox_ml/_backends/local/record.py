"""The folder of one run: what was asked (`run.json`, `ir.yaml`), what happened (`events.jsonl`), logs and artifacts.

Events are appended one JSON line at a time, flushed and synced, with a sequence number: a crash can only tear the last
line, and a torn last line is no event. A file lock says whether an executor is at work on the run; the kernel drops it
however that process ends. See docs/formats/run-record.md.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..._store import home
from ...errors import RunError, RunNotFound
from .state import RunState, apply

__all__ = ["SCHEMA", "EventLog", "EventReader", "RunFolder", "runs_folder"]

SCHEMA = 1


def runs_folder() -> Path:
    """Where this machine keeps its runs."""
    return home() / "runs"


class RunFolder:
    """Paths of a run. Task names become file names: `probe[2]` keeps its files under `probe.2`."""

    __slots__ = ("id", "path")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.id = path.name

    @classmethod
    def create(
        cls, run_id: str, about: Mapping[str, Any], ir: bytes, lines: Mapping[str, Any] | None = None
    ) -> RunFolder:
        """Make the folder; it appears with everything in it that every reader may rely on."""
        folder = runs_folder() / run_id
        fresh = folder.with_name(f".{run_id}.{os.urandom(3).hex()}.new")  # a killed predecessor may have left one
        (fresh / "logs").mkdir(parents=True)
        (fresh / "ir.yaml").write_bytes(ir)
        (fresh / "events.jsonl").touch()
        for code, known in (lines or {}).items():
            (fresh / "lines").mkdir(exist_ok=True)
            (fresh / "lines" / f"{code}.json").write_text(json.dumps(known), "utf-8")
        text = json.dumps({"schema": SCHEMA, "id": run_id, **about}, indent=1, sort_keys=True, default=_plain)
        (fresh / "run.json").write_text(text, "utf-8")
        try:
            fresh.rename(folder)
        except OSError:
            shutil.rmtree(fresh, ignore_errors=True)
            if not folder.exists():
                raise
            raise RunError(f"there is a run {run_id!r} already", fix=f"look at it: rml.get_run({run_id!r})") from None
        return cls(folder)

    @classmethod
    def open(cls, run_id: str) -> RunFolder:
        """An existing run."""
        folder = runs_folder() / run_id
        if not run_id or not (folder / "run.json").is_file() or folder.parent != runs_folder():
            raise RunNotFound(
                f"there is no run {run_id!r} under {runs_folder()}",
                fix="list the runs with rml.runs(); another RML_HOME has other runs",
            )
        return cls(folder)

    @property
    def about(self) -> dict[str, Any]:
        """`run.json`."""
        loaded: dict[str, Any] = json.loads((self.path / "run.json").read_text("utf-8"))
        if loaded.get("schema") != SCHEMA:
            raise RunError(f"run {self.id} was recorded by another version (schema {loaded.get('schema')})")
        return loaded

    @property
    def events_path(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def cancel_path(self) -> Path:
        """Whoever wants the run to stop creates this file; its executor looks for it."""
        return self.path / "cancel"

    def log(self, task: str) -> Path:
        return self.path / "logs" / f"{file_name(task)}.log"

    def task(self, task: str) -> Path:
        """Working files of a task: executor input and output, output parameters."""
        return self.path / "tasks" / file_name(task)

    def artifacts(self, task: str) -> Path:
        return self.path / "artifacts" / file_name(task)

    def lines(self, code: str) -> Path:
        """The map from a bundle's lines to the user's (see `roblox_ml._runtime.tracebacks`)."""
        return self.path / "lines" / f"{code}.json"

    def lock(self) -> int | None:
        """Become this run's executor: a handle to close at the end, or None when there is one already."""
        handle = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        for last in (False, False, False, True):  # somebody who only looks holds it for an instant
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if last:
                    break
                time.sleep(0.02)
            else:
                return handle
        os.close(handle)
        return None

    def is_attended(self) -> bool:
        """Whether an executor is at work on this run."""
        handle = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        return False


def file_name(task: str) -> str:
    return task.replace("[", ".").replace("]", "").replace("/", "_")


class EventReader:
    """Follows an event log from its beginning; `poll` brings the state up to date."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = RunState()
        self.offset = 0

    def poll(self) -> RunState:
        """Read what was appended since the last call."""
        for event in self.new_events():
            apply(self.state, event)
        return self.state

    def new_events(self) -> Iterator[dict[str, Any]]:
        with self.path.open("rb") as stream:
            stream.seek(self.offset)
            for line in stream:
                if not line.endswith(b"\n"):
                    return  # being written, or torn by a crash
                try:
                    event: dict[str, Any] = json.loads(line)
                except ValueError as error:
                    raise RunError(f"{self.path} is damaged at byte {self.offset}: {error}") from error
                self.offset += len(line)
                yield event


class EventLog:
    """The log's single writer (the holder of the run's lock). Keeps the state folded as it goes."""

    def __init__(self, folder: RunFolder, observe: Callable[[RunState, Mapping[str, Any]], None] | None = None) -> None:
        """`observe` hears of every event after it was written; it must not raise."""
        self._observe = observe
        reader = EventReader(folder.events_path)
        self.state = reader.poll()
        # A torn line must not become the beginning of the next one.
        os.truncate(folder.events_path, reader.offset)
        self._stream = folder.events_path.open("ab")

    def append(self, event: str, **fields: Any) -> None:
        """Write one event; when this returns it is on disk."""
        line = {"seq": self.state.seq + 1, "time": time.time(), "event": event, **fields}
        self._stream.write(json.dumps(line, default=_plain).encode() + b"\n")
        self._stream.flush()
        os.fsync(self._stream.fileno())
        apply(self.state, line)
        if self._observe is not None:
            self._observe(self.state, line)

    def close(self) -> None:
        self._stream.close()


def _plain(value: Any) -> Any:
    """What else may stand in a record: dataclasses (notify, schedule) as their fields, the rest as text."""
    from dataclasses import asdict, is_dataclass

    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset | tuple):
        return sorted(value, key=str) if not isinstance(value, tuple) else list(value)
    return str(value)
