"""From the arguments of a step to the user's function: code bundle, environment, executor.

    --sdk DIGEST --code DIGEST|none --lock DIGEST|none --entry module:function --executor_input JSON

A step runs in this interpreter when it already has the packages of the lock; otherwise it enters the environment of
that lock (`environments.py`) by exec, with the same arguments. Everything a warm start does not need is imported by the
branch that needs it: these milliseconds are paid by every step.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

from . import bundles

__all__ = ["NONE", "Arguments", "main", "parse"]

NONE = "none"
# Set to the lock's digest before entering its environment: the second bootstrap must not look again.
_ENTERED = "RML_ENTERED"
_PR_SET_PDEATHSIG = 1


class Arguments:
    """The parsed command line of a step."""

    __slots__ = ("code", "entry", "executor_input", "lock", "sdk")

    def __init__(self, sdk: str, code: str, lock: str, entry: str, executor_input: str) -> None:
        self.sdk = sdk
        self.code = code
        self.lock = lock
        self.entry = entry
        self.executor_input = executor_input


def parse(argv: list[str]) -> Arguments:
    """Read `--name value` pairs. `--executor_input @file` reads the file: one argument cannot exceed 128 KiB."""
    given = dict(zip(argv[::2], argv[1::2], strict=False))
    try:
        text = given["--executor_input"]
        if text.startswith("@"):
            text = Path(text[1:]).read_text("utf-8")
        return Arguments(given["--sdk"], given.get("--code", NONE), given.get("--lock", NONE), given["--entry"], text)
    except KeyError as missing:
        sys.exit(f"roblox_ml: a step was started without {missing.args[0]}: compile the pipeline again")


def main(argv: list[str]) -> None:
    """Run one step; the process's exit code is 0, or 1 with a traceback in the user's own lines."""
    _die_with_parent()
    arguments = parse(argv)
    from ..errors import RmlSdkError

    try:
        folder = bundles.unpacked(arguments.code) if arguments.code != NONE else None
        entered = os.environ.pop(_ENTERED, None)
        if arguments.lock not in (NONE, entered):
            python = _environment(arguments.lock)
            if python is not None:
                _enter(python, argv, arguments.lock)
    except (RmlSdkError, OSError) as error:
        sys.exit(f"roblox_ml: this step cannot start.\n{error}")
    if folder is not None:
        sys.path.insert(0, str(folder))

    from . import executor

    sys.exit(executor.run(arguments, folder))


def _environment(lock: str) -> str | None:
    """The python to enter for this lock; None when this interpreter will do."""
    memo = bundles.cache_folder() / "in_place" / lock
    state = _interpreter_state()
    try:
        if memo.read_text() == state:
            return None
    except OSError:
        pass
    from . import environments

    text = bundles.fetch(lock).decode()
    if "\n# system " in text:
        from . import system_packages

        system_packages.check(environments.parse(text).system)
    if not environments.in_place(text):
        home = os.environ.get("RML_HOME")
        return str(environments.ensure(text, lock, Path(home) if home else None))
    if "\n# system " in text or "\n# wheel " in text:
        return None  # no time stamp of site-packages vouches for these: they are looked at each time
    try:
        memo.parent.mkdir(parents=True, exist_ok=True)
        fresh = memo.with_name(f"{lock}.{os.getpid()}")
        fresh.write_text(state)
        fresh.replace(memo)
    except OSError:
        pass  # a read-only cache: the next step looks again
    return None


def _interpreter_state() -> str:
    """Changes when a package is installed, removed or upgraded: each of them touches its site-packages folder."""
    parts = [sys.executable]
    for entry in sys.path:
        if entry.endswith(("site-packages", "dist-packages")):
            try:
                parts.append(f"{entry}:{os.stat(entry).st_mtime_ns}")  # noqa: PTH116 - every step pays for this loop
            except OSError:
                parts.append(f"{entry}:none")
    return "\n".join(parts)


def _enter(python: str, argv: list[str], lock: str) -> NoReturn:
    """Become the environment's interpreter. The SDK comes along on the path: the environment does not have it."""
    sdk = str(Path(__file__).resolve().parents[2])
    program = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); "
        "from roblox_ml._runtime.bootstrap import main; main(sys.argv[1:])"
    )
    os.environ[_ENTERED] = lock
    # The kernel's own packages must not leak into the environment through the path.
    os.environ.pop("PYTHONPATH", None)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(python, [python, "-c", program, sdk, *argv])  # noqa: S606


def _die_with_parent() -> None:
    """Linux: be killed when the local executor dies, however it dies. It says who it is in RML_PARENT_PID."""
    parent = os.environ.pop("RML_PARENT_PID", None)
    if not parent or not sys.platform.startswith("linux"):
        return
    import ctypes
    import signal

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(parent):
        os.kill(os.getpid(), signal.SIGKILL)  # it died before the call above took effect
