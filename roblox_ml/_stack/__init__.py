"""The local stack: start what is not running, stop it, look at it.

`ensure("control-plane")` is what the SDK calls before it needs a part; `rml up` is `ensure()`. Both are the same act, so
that there is one way in which a server comes to life.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from .._store import home
from ..errors import NotRunning
from . import _state
from ._parts import ORDER, describe, with_needs

__all__ = ["ORDER", "address", "down", "ensure", "home", "log_path", "status"]

START_TIMEOUT_S = 300.0  # a first start makes databases, on a machine that may be busy

log_path = _state.log_path


def ensure(
    *names: str, also: tuple[str, ...] = (), say: Callable[[str], None] | None = None, timeout: float = START_TIMEOUT_S
) -> None:
    """Make the named parts (and what they need; all without a name) run and be ready.

    The parts in `also` are started too and not waited for. Says what it starts and when each part is ready; silent when
    everything already is.

    Raises:
        NotRunning: a port is taken, or a part does not become ready; the message names the log.
    """
    parts = describe()
    wanted = with_needs(names, parts)
    if all(_is_ready(name) for name in wanted) and set(also) <= set(status()):
        return
    speak = say or (lambda line: print(line, flush=True))
    _token()
    _want((*wanted, *also))
    missing = [name for name in wanted if not _is_ready(name)]
    if missing:
        speak(f"starting {', '.join(missing)} …")
    deadline = time.monotonic() + timeout
    pending = list(missing)
    started = time.monotonic()
    while pending:
        if _state.supervisor_pid() is None:
            # The supervisor that was there was on its way out, or has been killed.
            if not {*wanted} <= {*_state.read("wanted.json").get("parts", [])}:
                raise NotRunning(
                    f"the stack was stopped while {pending[0]} started", fix="start it again with `rml up`"
                )
            _want(wanted)
        for name in [name for name in pending if _is_ready(name)]:
            pending.remove(name)
            speak(f"  {name:<14} ready in {time.monotonic() - started:4.1f} s   {parts[name].url}")
        _raise_refused(pending)
        if pending and time.monotonic() > deadline:
            raise NotRunning(_not_ready(pending[0], timeout))
        time.sleep(0.1)


def down(timeout: float = 60.0) -> bool:
    """Stop the stack; False when none was running."""
    pid = _state.supervisor_pid()
    _state.write("wanted.json", {"parts": []})
    if pid is None:
        return False
    with contextlib.suppress(ProcessLookupError):  # it ended in this moment
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + timeout
    while _state.supervisor_pid() is not None and time.monotonic() < deadline:
        time.sleep(0.1)
    return _state.supervisor_pid() is None


def status() -> dict[str, dict[str, Any]]:
    """Every wanted part: title, url, ports, pid, ready, restarts, last_exit, refused. Empty when nothing runs."""
    if _state.supervisor_pid() is None:
        return {}
    parts: dict[str, dict[str, Any]] = _state.read("state.json").get("parts", {})
    return parts


def address(name: str) -> str | None:
    """The URL of a part of the running stack, wherever its ports were moved to; None when it does not run."""
    part = status().get(name)
    return str(part["url"]) if part else None


def _want(wanted: Sequence[str]) -> None:
    """Tell the supervisor which parts must run, besides those that do; start it when there is none."""
    with _state.locked("client.lock", wait=True):
        before = _state.read("wanted.json").get("parts", []) if _state.supervisor_pid() else []
        _state.write("wanted.json", {"parts": [name for name in ORDER if name in {*before, *wanted}]})
        if _state.supervisor_pid() is None:
            _spawn_supervisor()


def _is_ready(name: str) -> bool:
    return bool(status().get(name, {}).get("ready"))


def _spawn_supervisor() -> None:
    # What a killed predecessor left says "ready" of processes that are gone, and names a pid that may be anybody's by now.
    _state.write("state.json", {})
    log = _state.log_path("supervisor")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as sink:
        subprocess.Popen(
            [sys.executable, "-m", "roblox_ml._stack"],
            stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT,
            start_new_session=True, cwd=home(),
        )  # fmt: skip
    deadline = time.monotonic() + 20
    while _state.supervisor_pid() is None:
        if time.monotonic() > deadline:
            raise NotRunning(f"the supervisor did not start; its log: {log}")
        time.sleep(0.05)


def _raise_refused(pending: list[str]) -> None:
    refused = [f"{name}: {reason}" for name in pending if (reason := status().get(name, {}).get("refused"))]
    if refused:
        raise NotRunning("; ".join(refused))


def _not_ready(name: str, timeout: float) -> str:
    log = _state.log_path(name)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:]) if log.exists() else "(no log yet)"
    return f"{name} was not ready after {timeout:.0f} s. The end of its log ({log}):\n{tail}"


def _token() -> None:
    """The local stack's bearer token exists before any part starts, so that all of them read the same one."""
    from roblox_ml_core.settings import HomeSettings

    HomeSettings().ensure_token()
