"""`python -m roblox_ml._runner`: be the only runner of this RML_HOME until told to stop.

Told to stop, it stops as if it were killed: its steps end with it, and the runs go on where they were when it starts again.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import sys
from types import FrameType

from .._addresses import control_url
from .._runtime.control import ControlPlane
from .._store import home
from .work import Runner


def _stop(_signal: int, _frame: FrameType | None) -> None:
    # Executions are threads that nobody could wait for; their records are complete at every moment.
    os._exit(0)


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    home().mkdir(parents=True, exist_ok=True)
    with (home() / "runner.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another runner already works for this RML_HOME", file=sys.stderr)
            return 1
        Runner(lambda: ControlPlane(control_url())).forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
