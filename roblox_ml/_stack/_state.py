"""What the supervisor and its clients tell each other, through files under `$RML_HOME/stack`.

`wanted.json` is written by clients (which parts must run), `state.json` by the supervisor (what runs, since when, how
ready). Files, because they survive every process and need no port.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .._store import home
from ._parts import Part


def folder() -> Path:
    """Where the stack keeps its files."""
    path = home() / "stack"
    path.mkdir(parents=True, exist_ok=True)
    return path


def log_path(name: str) -> Path:
    """The log file of a part."""
    return folder() / "logs" / f"{name}.log"


def read(name: str) -> dict[str, Any]:
    """A state file's content; empty when there is none."""
    try:
        content: dict[str, Any] = json.loads((folder() / name).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return content


def write(name: str, content: dict[str, Any]) -> None:
    """Replace a state file atomically."""
    target = folder() / name
    temporary = target.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(content, indent=1))
    temporary.replace(target)


@contextmanager
def locked(name: str, *, wait: bool, shared: bool = False) -> Iterator[bool]:
    """Hold a lock file; yields False when somebody else holds it and `wait` is off. Sharers do not exclude each other."""
    with (folder() / name).open("w") as handle:
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def supervisor_pid() -> int | None:
    """The supervisor's pid while it lives: it holds its lock for as long."""
    # Shared: two clients that look at the same time must not take each other for the supervisor.
    with locked("supervisor.lock", wait=False, shared=True) as free:
        if free:
            return None
    pid = read("state.json").get("pid")
    return int(pid) if pid else None


def taken_ports(part: Part) -> list[str]:
    """A line for every port of the part that somebody else listens on."""
    found = []
    for port in part.ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port.number))
            except OSError:
                who = owner(port.number)
                found.append(
                    f"port {port.number} ({port.purpose}) is taken by {who}; stop it, or move ours with {port.variable}=<port>"
                )
    return found


def owner(number: int) -> str:
    """Who listens on a port, as far as this user may see."""
    try:
        import psutil

        for connection in psutil.net_connections("tcp"):
            if (
                connection.status == "LISTEN"
                and connection.laddr
                and connection.laddr.port == number
                and connection.pid
            ):
                process = psutil.Process(connection.pid)
                return f"{process.name()} (pid {process.pid})"
    except Exception:  # psutil missing, or the system does not let us look: the port's number must do
        return "another process"
    return "another process"
