"""`python -m roblox_ml_serving.triton`: become the real tritonserver for the repository under `$RML_HOME/serving/models`.

The process is replaced, so that SIGTERM, the exit status and the supervisor's watch reach Triton itself.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from pathlib import Path

from roblox_ml_core.errors import RmlError
from roblox_ml_core.settings import HomeSettings, TritonSettings

from .installation import find_installation
from .launch import command, environment, shm_prefix
from .processes import end_orphans

LOCK_WAIT_S = 15.0
ORPHANS_AFTER_S = 3.0
SHM = Path("/dev/shm")  # noqa: S108 - where the kernel shows POSIX shared memory


def main() -> int:  # noqa: RET503 - exec does not return
    """Prepare the repository folder, then exec. Returns only when that is impossible."""
    settings, home = TritonSettings(), HomeSettings()
    try:
        installation = find_installation(settings, home)
    except RmlError as error:
        print(error, file=sys.stderr)
        return 1
    if settings.preload is not None and not settings.preload.is_file():
        print(f"RML_TRITON_PRELOAD names {settings.preload}, which is no file here", file=sys.stderr)
        return 1
    repository = home.root / "serving" / "models"
    repository.mkdir(parents=True, exist_ok=True)
    if not hold_lock(repository.parent / "triton.lock", repository):
        print(f"another Triton already serves {repository}; stop it first (`rml status` shows it)", file=sys.stderr)
        return 1
    remove_stale_memory(shm_prefix(repository))
    arguments = command(installation, settings, repository)
    sys.stdout.flush()
    os.execve(arguments[0], arguments, environment(installation, preload=settings.preload))  # noqa: S606 - becoming Triton is this module's purpose


def hold_lock(path: Path, repository: Path) -> bool:
    """Take the repository's lock and leave it open across exec: Triton and its stubs hold it as long as one of them lives.

    After kill -9 the stubs notice within a second that their server is gone; waiting for the lock is waiting for them.
    Those that do not notice (they were still starting) are ended.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    started = time.monotonic()
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = time.monotonic() - started
            if waited > LOCK_WAIT_S:
                return False
            if waited > ORPHANS_AFTER_S and (ended := end_orphans(repository)):
                print(f"ended {len(ended)} instance process(es) that a killed Triton left: {ended}", file=sys.stderr)
            time.sleep(0.1)
        else:
            os.set_inheritable(descriptor, True)
            return True


def remove_stale_memory(prefix: str) -> None:
    """Give back the shared memory of killed stubs. Safe under the lock: nobody alive uses this prefix."""
    for region in SHM.glob(f"{prefix}*"):
        region.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
