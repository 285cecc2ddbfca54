"""What every peer is: a command, an address, a body for a text, a label in an answer.

A peer's folder has `__init__.py` with `PEER` (how it is started and asked, in this process) and mostly `app.py` (what runs in the
peer's own interpreter). All get the same checkpoint, one thread per worker and as many workers as there are cores.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import psutil
from roblox_ml_serving.trial import Traffic, rest_json

__all__ = ["HERE", "TORCH", "Job", "Launch", "Peer", "PeerFailed", "Server", "interpreter", "plain"]

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
START_S, STOP_S = 180.0, 10.0
TORCH = "torch"  # the engine of a peer as its documentation has it; otherwise the folder of a package's model
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")


class PeerFailed(RuntimeError):
    """A peer is not installed, or did not come up; the message says why."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a peer is to serve. `engine`: TORCH, or a package's `model` folder whose preferred engine computes instead."""

    checkpoint: Path
    workers: int
    port: int
    folder: Path  # the peer's own, for its files; gone afterwards
    engine: str = TORCH

    def environment(self) -> dict[str, str]:
        """What `app.py` reads."""
        return {
            "PEER_CHECKPOINT": str(self.checkpoint),
            "PEER_ENGINE": self.engine,
            "PEER_WORKERS": str(self.workers),
            "PEER_PORT": str(self.port),
            "PEER_CODE": str(HERE),
            "PEER_BACKENDS": str(ROOT / "serving" / "roblox_ml_serving" / "backends"),
        }


@dataclass(frozen=True, slots=True)
class Launch:
    """The processes of a peer. `env` wins over the common one."""

    commands: Sequence[Sequence[str]]
    env: Mapping[str, str]
    path: str  # where texts are posted
    threads: int = 1  # of one process


@dataclass(frozen=True, slots=True)
class Peer:
    """One server of another project."""

    name: str
    settings: str  # how it is tuned, for the table
    launch: Callable[[Job], Launch]
    body: Callable[[str], bytes]
    label: Callable[[bytes], str]
    default: bool = True  # a server as its documentation has it
    engine: bool = False  # whether our engine can be put in


class Server:
    """A running peer: `with Server(peer, …) as server: server.traffic(texts)`."""

    def __init__(self, peer: Peer, checkpoint: Path, *, workers: int, engine: str = TORCH) -> None:
        self.peer = peer
        self._checkpoint, self._workers, self._engine = checkpoint, workers, engine
        self._processes: list[subprocess.Popen[bytes]] = []
        self._known: dict[int, float] = {}
        self._place: tempfile.TemporaryDirectory[str] | None = None
        self.url = self.path = ""

    def __enter__(self) -> Server:
        self._place = tempfile.TemporaryDirectory(prefix="peer-", ignore_cleanup_errors=True)
        folder = Path(self._place.name)
        try:
            self._start(folder)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def traffic(self, texts: Sequence[str]) -> Traffic:
        """One request per text."""
        return rest_json(self.url, self.path, [self.peer.body(text) for text in texts])

    def cpu_seconds(self) -> dict[str, float]:
        """CPU time of all its processes so far; what ended in between keeps what it was last seen with."""
        for process in self._tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                self._known[process.pid] = times.user + times.system
        return {"server": sum(self._known.values())}

    def close(self) -> None:
        """End what was started, and everything that it started."""
        family = self._tree()
        for started in self._processes:
            if started.poll() is None:
                started.send_signal(signal.SIGTERM)
        for started in self._processes:
            try:
                started.wait(STOP_S)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait()
        # Whom it left behind would take a core from the next one.
        for left in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                left.kill()
        psutil.wait_procs(family, timeout=STOP_S)
        if self._place is not None:
            self._place.cleanup()

    def _start(self, folder: Path) -> None:
        job = Job(plain(self._checkpoint, folder / "checkpoint"), self._workers, free_port(), folder, self._engine)
        launch = self.peer.launch(job)
        self.url, self.path = f"http://127.0.0.1:{job.port}", launch.path
        common = {key: value for key, value in os.environ.items() if not key.startswith(("RML_", "PYTHON"))}
        common |= dict.fromkeys(THREADS, str(launch.threads))
        common |= {
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_VERBOSITY": "error",
            "PYTHONUNBUFFERED": "1",
            "HOME": str(folder),  # peers keep settings and usage files there
        }
        environment = {**common, **job.environment(), **launch.env}
        for i, command in enumerate(launch.commands):
            with (folder / f"log-{i}.txt").open("wb") as log:
                self._processes.append(
                    subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
                )
        self._wait(folder)

    def _wait(self, folder: Path) -> None:
        """Ready is who answers: every server has another health page, and some are healthy before they work."""
        deadline = time.monotonic() + START_S
        seen = ""
        while time.monotonic() < deadline:
            if any(process.poll() is not None for process in self._processes):
                break
            try:
                request = urllib.request.Request(
                    self.url + self.path, self.peer.body("hello"), {"content-type": "application/json"}
                )
                with urllib.request.urlopen(request, timeout=60) as answer:
                    self.peer.label(answer.read())
                    return
            except urllib.error.HTTPError as error:
                seen = f"{error.code}: {error.read()[:500].decode('utf-8', 'replace')}"
            except (OSError, ValueError, LookupError) as error:
                seen = str(error)
            time.sleep(0.5)
        log = "".join(file.read_text("utf-8", "replace")[-1500:] for file in sorted(folder.glob("log-*.txt")))
        raise PeerFailed(f"{self.peer.name} did not answer ({seen}); it wrote: {log.strip()}")

    def _tree(self) -> list[psutil.Process]:
        found: dict[int, psutil.Process] = {}
        for started in self._processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(started.pid)
                for member in (process, *process.children(recursive=True)):
                    found[member.pid] = member
        return list(found.values())


def interpreter(environment: str) -> Path:
    """The Python of one of the peers' environments."""
    python = Path(os.environ.get("RML_PEERS_DIR") or ROOT / ".peers").expanduser() / environment / "bin" / "python"
    if not python.exists():
        raise PeerFailed(f"{python} is missing: `make peers` installs it")
    return python


def plain(checkpoint: Path, place: Path) -> Path:
    """The checkpoint as any version of transformers reads it: same weights, a tokenizer that gives just what the model takes."""
    place.mkdir(parents=True)
    for file in checkpoint.iterdir():
        if file.name != "tokenizer_config.json":
            (place / file.name).symlink_to(file.resolve())
    settings = json.loads((checkpoint / "tokenizer_config.json").read_text("utf-8"))
    settings |= {"model_input_names": ["input_ids", "attention_mask"]}
    settings.pop("backend", None)
    (place / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    return place


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
