"""A step's process: started in a session of its own, ended with everything it started, recognised after a crash.

Output goes straight into the log file: no reader stands between a step and its log, so nothing is lost when the executor
dies. A process is identified by its id and its start time, because ids are used again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Identity", "descendants", "end_tree", "identity_of", "is_alive", "start", "step_environment"]

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Identity:
    """A process that cannot be mistaken for a later one with the same id."""

    pid: int
    started: str


def start(command: Sequence[str], environment: Mapping[str, str], log: Path, folder: Path) -> subprocess.Popen[bytes]:
    """Start a step. Its process group is its own: `end_tree` ends all of it, Ctrl-C does not reach it by itself."""
    folder.mkdir(parents=True, exist_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    argv = list(command)
    if (
        argv[0] in ("python3", "python")
        and shutil.which(argv[0], path=environment["PATH"].split(os.pathsep)[0]) is None
    ):
        argv[0] = sys.executable  # an interpreter without its usual names beside it
    with log.open("ab") as sink:
        return subprocess.Popen(
            argv,
            env=dict(environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def step_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """This process's environment for a step: `python3` is this interpreter, output unbuffered, no notebook settings."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("JPY_") and name not in ("PYTHONSTARTUP", "PYTHONINSPECT", "RML_LINES", "RML_ENTERED")
    }
    # A kernel's inline plotting backend is not installed in a step's environment.
    if environment.get("MPLBACKEND", "").startswith("module://"):
        environment["MPLBACKEND"] = "agg"
    folder = str(Path(sys.executable).parent)
    environment["PATH"] = os.pathsep.join([folder, environment.get("PATH", os.defpath)])
    environment["PYTHONUNBUFFERED"] = "1"
    # Steps share these cores with each other. A thread that spins while it waits for one that is not scheduled burns the
    # very core that one needs: two trainings side by side ran eight times slower than with sleeping threads.
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    environment["RML_PARENT_PID"] = str(os.getpid())
    return {**environment, **extra}


def identity_of(pid: int) -> Identity | None:
    """Who `pid` is now; None when there is nobody."""
    started = _start_time(pid)
    return None if started is None else Identity(pid, started)


def is_alive(identity: Identity) -> bool:
    """Whether this very process still runs (a zombie does not)."""
    return _start_time(identity.pid) == identity.started


def end_tree(leader: Identity, grace: float) -> None:
    """End a step and all it started: SIGTERM, then after `grace` seconds SIGKILL.

    The group catches what stayed in it, the walk over parents what left it. Also right when the leader is dead already.
    """
    members = _members(leader)
    _signal_all(leader, members, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while time.monotonic() < deadline:
        members |= _members(leader)
        if not any(is_alive(member) for member in members):
            return
        time.sleep(0.02)
    members |= _members(leader)
    _signal_all(leader, members, signal.SIGKILL)


def descendants(pid: int) -> Iterator[int]:
    """Every process below `pid` (Linux; elsewhere the process group has to do)."""
    children: dict[int, list[int]] = {}
    for other, (parent, _, _) in _table().items():
        children.setdefault(parent, []).append(other)
    pending = list(children.get(pid, ()))
    while pending:
        found = pending.pop()
        yield found
        pending += children.get(found, ())


def _members(leader: Identity) -> set[Identity]:
    """The processes of the leader's session, and those below it that left the session."""
    table = _table()
    now = table.get(leader.pid)
    if now is not None and now[2] != leader.started:
        return set()  # the id belongs to somebody else by now
    pids = {pid for pid, (_, session, _) in table.items() if session == leader.pid}
    pids |= set(descendants(leader.pid))
    if now is not None:
        pids.add(leader.pid)
    return {Identity(pid, table[pid][2]) for pid in pids if pid in table}


def _signal_all(leader: Identity, members: set[Identity], number: signal.Signals) -> None:
    if not _table() and is_alive(leader):  # no /proc: the group is all that can be known
        with contextlib.suppress(OSError):
            os.killpg(leader.pid, number)
    for member in members:
        if is_alive(member):
            with contextlib.suppress(OSError):
                os.kill(member.pid, number)


def _table() -> dict[int, tuple[int, int, str]]:
    """pid → (parent, session, start time) of every process that is not a zombie."""
    found: dict[int, tuple[int, int, str]] = {}
    if not _PROC.is_dir():
        return found
    for name in os.listdir(_PROC):  # noqa: PTH208 - a list of names is all that is needed, many times
        if name.isdigit():
            fields = _stat(int(name))
            if fields is not None and fields[0] not in "ZX":
                found[int(name)] = (int(fields[1]), int(fields[3]), fields[19])
    return found


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/<pid>/stat from the state on: the name before may hold spaces and brackets."""
    try:
        text = (_PROC / str(pid) / "stat").read_text("utf-8", "replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def _start_time(pid: int) -> str | None:
    if _PROC.is_dir():
        fields = _stat(pid)
        return None if fields is None or fields[0] in "ZX" else fields[19]
    done = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None
