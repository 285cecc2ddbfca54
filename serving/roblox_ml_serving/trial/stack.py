"""One Triton and one door for a trial: free ports, a home of their own, a snapshot that does not change."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
from roblox_ml_core.errors import PackageError, RmlError, Unavailable
from roblox_ml_core.names import triton_name
from roblox_ml_core.package import ModelPackage
from roblox_ml_core.storage import BlobStore

from ..agent import environments
from ..agent.known_answer import check
from ..agent.triton import Triton
from ..door.follower import store
from ..repository import materialise
from ..triton import find_installation, shm_prefix
from ..triton.__main__ import remove_stale_memory
from ..triton.processes import stubs
from .packages import TEXT_CPU, as_package

__all__ = ["TrialStack"]

VERSION = 1
SERVER = "trial"
PREPROCESSED = ("model/tokenizer.json", "model/text.json")
START_S, STOP_S = 60.0, 20.0
# Nobody listens on the discard port of loopback: the door stays with the snapshot it finds on the disk.
NO_CONTROL_PLANE = "http://127.0.0.1:9"


class TrialStack:
    """Packages served as they would be: each under its name, behind a door, by a real Triton.

    Args:
        packages: endpoint name to the folder of a package, or of a text model's files.
        instances: processes per model; left out, one per core.
        policy: cache and queue of the endpoints (one policy for all, or by endpoint name).
        env: more environment for both servers, e.g. `RML_CPU_FLAGS` for another machine's instruction set.
        pin: text models: each instance on a core of its own, where there is one per core (as the agent does).
        check: ask every package its known answers before the first request.
    """

    def __init__(
        self,
        packages: Mapping[str, Path],
        *,
        instances: int | None = None,
        policy: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
        pin: bool = True,
        check: bool = True,
    ) -> None:
        self._folders = dict(packages)
        self._instances = instances or environments.cores()
        self._policy = dict(policy or {})
        self._env = dict(env or {})
        self._check, self._pin = check, pin
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._home = Path()
        self.rest = self.grpc = self.triton_http = self.triton_grpc = self.triton_metrics = ""

    def __enter__(self) -> TrialStack:
        installation = find_installation()  # says how to install it, before anything is started
        self._home = Path(tempfile.mkdtemp(prefix="rml-trial-"))
        try:
            self._start(installation.root)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- what is measured -------------------------------------------------------------------------------------------

    def cpu_seconds(self) -> dict[str, float]:
        """CPU time used so far by the door, by Triton itself and by all instances."""
        return {
            "door": _cpu([self._processes["door"].pid]),
            "triton": _cpu([self._processes["triton"].pid]),
            "instances": _cpu(self.instances()),
        }

    def memory_bytes(self) -> dict[str, int]:
        """Resident memory by part (pages that instances share are counted in each)."""
        return {
            "door": _memory([self._processes["door"].pid]),
            "triton": _memory([self._processes["triton"].pid]),
            "instances": _memory(self.instances()),
        }

    def instances(self) -> list[int]:
        """Process ids of the instances, with the workers they may have started."""
        found = []
        for stub in sorted(stubs(self.repository), key=lambda stub: (stub.model, stub.pid)):
            found.append(stub.pid)
            try:
                found += [child.pid for child in psutil.Process(stub.pid).children(recursive=True)]
            except psutil.NoSuchProcess:
                continue
        return found

    @property
    def repository(self) -> Path:
        return self._home / "serving" / "models"

    def log(self, part: str) -> str:
        """What "door" or "triton" wrote so far."""
        file = self._home / f"{part}.log"
        return file.read_text("utf-8", "replace") if file.exists() else ""

    def metrics(self) -> str:
        """The door's metrics page."""
        with urllib.request.urlopen(f"{self.rest}/metrics", timeout=10) as answer:  # noqa: S310 - our own loopback address
            return str(answer.read().decode())

    # -- life ---------------------------------------------------------------------------------------------------------

    def _start(self, installation: Path) -> None:
        packages = {
            name: as_package(folder, self._home / "made" / str(i))
            for i, (name, folder) in enumerate(sorted(self._folders.items()))
        }
        for name, package in packages.items():
            options = environments.options_for(package, self._instances, self._home, pin=self._pin)
            materialise(package, self.repository, name, VERSION, options)
        http, grpc, metrics = (_free_port() for _ in range(3))
        self.triton_http, self.triton_grpc = f"127.0.0.1:{http}", f"127.0.0.1:{grpc}"
        self.triton_metrics = f"http://127.0.0.1:{metrics}/metrics"
        ports = {
            "RML_TRITON_DIR": str(installation),
            "RML_TRITON_HTTP_PORT": str(http),
            "RML_TRITON_GRPC_PORT": str(grpc),
            "RML_TRITON_METRICS_PORT": str(metrics),
        }
        self._spawn("triton", "roblox_ml_serving.triton", ports)
        triton = Triton(self.triton_grpc)
        try:
            self._wait("triton", triton.ready)
            for name, package in packages.items():
                triton.load(triton_name(name, VERSION))
                findings = check(triton, package, triton_name(name, VERSION), VERSION) if self._check else []
                if findings:
                    raise PackageError(f"{name} does not give its known answer: {'; '.join(findings)}")
        finally:
            triton.close()
        self._write_snapshot(packages)
        self._spawn("door", "roblox_ml_serving.door", {"RML_DOOR_PORT": "0", "RML_DOOR_GRPC_PORT": "0"})
        self._wait("door", self._find_door)
        self._wait("door", lambda: all(self._endpoint_ready(name) for name in packages))

    def close(self) -> None:
        """End both servers and remove everything."""
        if not self._home.name:
            return
        if (door := self._processes.pop("door", None)) is not None:
            door.terminate()
            try:
                door.wait(timeout=STOP_S)
            except subprocess.TimeoutExpired:
                door.kill()
                door.wait()
        if (triton := self._processes.pop("triton", None)) is not None:
            # Asked to stop it would unload every model first, seconds for nothing: nobody waits for an answer any more.
            instances = [psutil.Process(pid) for pid in self.instances() if psutil.pid_exists(pid)]
            triton.kill()
            triton.wait()
            for process in instances:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(instances, timeout=STOP_S)
            remove_stale_memory(shm_prefix(self.repository))
        shutil.rmtree(self._home, ignore_errors=True)

    def _write_snapshot(self, packages: Mapping[str, ModelPackage]) -> None:
        blobs = BlobStore((self._home / "store").as_uri())
        by_name = bool(self._policy.keys() & packages.keys())
        endpoints, ready = {}, {}
        for name, package in packages.items():
            entry: dict[str, Any] = {"model": name, "version": VERSION, "digest": package.digest, "previous": None}
            if package.format == TEXT_CPU:
                files = {path: blobs.put_file(package.root / path) for path in PREPROCESSED}
                entry["preprocess"] = {"kind": "text", "files": files}
                entry["policy"] = self._policy.get(name, {}) if by_name else self._policy
            endpoints[name] = entry
            ready[f"{name}/{VERSION}"] = package.digest
        address = {"http": self.triton_http, "grpc": self.triton_grpc, "ready": ready}
        document = {"schema": 2, "generation": 1, "policy": {"endpoints": endpoints}, "servers": {SERVER: address}}
        store(self._home / "serving" / "snapshot.json", document, {})

    def _spawn(self, part: str, module: str, settings: Mapping[str, str]) -> None:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("RML_")}
        env = {
            **kept, "RML_HOME": str(self._home), "RML_CONTROL_URL": NO_CONTROL_PLANE, "PYTHONUNBUFFERED": "1",
            **settings, **self._env,
        }  # fmt: skip
        with (self._home / f"{part}.log").open("ab") as log:
            self._processes[part] = subprocess.Popen(
                [sys.executable, "-m", module], env=env, stdout=log, stderr=subprocess.STDOUT, cwd=self._home
            )

    def _find_door(self) -> bool:
        for line in self.log("door").splitlines():
            if line.startswith("door: REST "):
                words = line.split()
                self.rest, self.grpc = words[2], words[4]
                return True
        return False

    def _endpoint_ready(self, name: str) -> bool:
        try:
            with urllib.request.urlopen(f"{self.rest}/v2/models/{name}/ready", timeout=10) as answer:  # noqa: S310
                return bool(answer.status == 200)
        except urllib.error.URLError:
            return False

    def _wait(self, part: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if self._processes[part].poll() is not None:
                raise Unavailable(f"the trial's {part} ended: {self.log(part)[-2000:]}")
            try:
                if ready():
                    return
            except RmlError:
                pass
            time.sleep(0.05)
        raise Unavailable(f"the trial's {part} was not ready within {START_S:.0f} s: {self.log(part)[-2000:]}")


def _cpu(pids: list[int]) -> float:
    total = 0.0
    for pid in pids:
        try:
            times = psutil.Process(pid).cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def _memory(pids: list[int]) -> int:
    total = 0
    for pid in pids:
        try:
            total += psutil.Process(pid).memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
