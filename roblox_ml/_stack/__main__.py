"""The supervisor: `python -m roblox_ml._stack`. Starts wanted parts in order, restarts what dies, stops all on SIGTERM."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from types import FrameType
from typing import Any

from . import _state
from ._parts import ORDER, Part, describe
from ._process import Supervised

TICK_S = 0.2
RECHECK_S = 2.0  # a part that is ready is asked again this often; one that is not, every tick
CLAIM_TRIES = 20


class Supervisor:
    """Keeps the wanted parts running until it is told to stop."""

    def __init__(self) -> None:
        self.parts: dict[str, Part] = describe()
        self.running: dict[str, Supervised] = {}
        self.refused: dict[str, str] = {}
        self.ready: dict[str, bool] = {}
        self.asked: dict[str, float] = {}
        self.stopping = False

    def stop(self, _signal: int, _frame: FrameType | None) -> None:
        """Signal handler: finish the current tick, then stop everything."""
        self.stopping = True

    def loop(self) -> None:
        """Tick until stopped, then stop the parts in reverse order."""
        said = ""
        while not self.stopping:
            try:
                self.tick()
            except Exception as error:  # a full disk, say: the parts must go on, and they end when this process does
                with contextlib.suppress(OSError):
                    if (text := f"{type(error).__name__}: {error}") != said:
                        print(f"supervisor: {text}", file=sys.stderr, flush=True)
                    said = text
            time.sleep(TICK_S)
        for name in reversed(ORDER):
            if name in self.running:
                self.running[name].stop()
        with contextlib.suppress(OSError):
            _state.write("state.json", {})

    def tick(self) -> None:
        """One round: drop the unwanted, start the wanted whose needs are ready, tend the rest, publish the state."""
        wanted = [name for name in ORDER if name in _state.read("wanted.json").get("parts", [])]
        for name in [name for name in self.running if name not in wanted]:
            self.running.pop(name).stop()
            self.ready.pop(name, None)
        for name in wanted:
            part = self.parts[name]
            if name not in self.running and all(self.ready.get(need) for need in part.needs):
                self._launch(part)
            elif name in self.running and self.running[name].tend(time.monotonic()):
                self.ready[name] = False
        for name, supervised in self.running.items():
            self.ready[name] = supervised.pid is not None and self._answers(name)
        self._publish(wanted)

    def _launch(self, part: Part) -> None:
        taken = _state.taken_ports(part)
        if taken:
            self.refused[part.name] = "; ".join(taken)
            return
        self.refused.pop(part.name, None)
        environment = os.environ | {"PYTHONUNBUFFERED": "1"} | dict(part.env or {})
        supervised = Supervised(part.name, part.command, environment, _state.log_path(part.name))
        supervised.start()
        self.running[part.name] = supervised

    def _answers(self, name: str) -> bool:
        url = self.parts[name].ready_url
        if url is None or (self.ready.get(name) and time.monotonic() - self.asked[name] < RECHECK_S):
            return True
        self.asked[name] = time.monotonic()
        try:
            with urllib.request.urlopen(url, timeout=1.0) as answer:  # noqa: S310 - our own loopback URL
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError, ValueError):
            return False

    def _publish(self, wanted: list[str]) -> None:
        parts: dict[str, Any] = {}
        for name in wanted:
            supervised = self.running.get(name)
            parts[name] = {
                "title": self.parts[name].title,
                "url": self.parts[name].url,
                "ports": [port.number for port in self.parts[name].ports],
                "pid": supervised.pid if supervised else None,
                "ready": bool(self.ready.get(name)),
                "restarts": supervised.restarts if supervised else 0,
                "last_exit": supervised.last_exit if supervised else None,
                "refused": self.refused.get(name),
            }
        _state.write("state.json", {"pid": os.getpid(), "time": time.time(), "parts": parts})


def main() -> int:
    """Be the only supervisor of this RML_HOME, or leave."""
    for _ in range(CLAIM_TRIES):  # a client that looks whether we live holds the lock for an instant
        with _state.locked("supervisor.lock", wait=False) as mine:
            if mine:
                supervisor = Supervisor()
                signal.signal(signal.SIGTERM, supervisor.stop)
                signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the shell that started us is not for us
                supervisor.loop()
                return 0
        time.sleep(0.05)
    print("another supervisor already runs for this RML_HOME", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
