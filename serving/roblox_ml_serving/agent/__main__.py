"""`python -m roblox_ml_serving.agent`: look after the Triton of this machine until SIGTERM."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from roblox_ml_core.errors import RmlError
from roblox_ml_core.registry import RegistryClient
from roblox_ml_core.settings import AgentSettings, HomeSettings, TritonSettings
from roblox_ml_core.telemetry import configure_logging

from .loop import Agent
from .seed import read_seed

LOCK_WAIT_S = 10.0


def main() -> int:
    """Run the only agent of this server."""
    configure_logging("agent")
    settings, home = AgentSettings(), HomeSettings()
    lock = only_one(home.root / "serving" / f"agent-{settings.server}.lock")
    if lock is None:
        print(f"another agent already looks after the server {settings.server!r} of {home.root}", file=sys.stderr)
        return 1
    try:
        seed = read_seed(settings.package, settings.package_ref) if settings.package is not None else None
    except RmlError as error:  # another package than the one named: nothing of it may be served
        print(error, file=sys.stderr)
        return 1
    agent = Agent(settings, TritonSettings(), home, lambda: RegistryClient(actor=f"agent:{settings.server}"), seed)

    def stop(_signal: int, _frame: FrameType | None) -> None:
        agent.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    if settings.metrics_port:
        from prometheus_client import start_http_server

        start_http_server(settings.metrics_port, addr=settings.metrics_host)
    agent.run()
    return 0


def only_one(path: Path) -> int | None:
    """The open lock file, or None when another agent holds it. The kernel releases it however that agent ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(descriptor)
                return None
            time.sleep(0.1)
        else:
            return descriptor


if __name__ == "__main__":
    sys.exit(main())
