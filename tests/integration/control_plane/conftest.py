"""Real control planes: processes on free ports, over SQLite and over a throw-away PostgreSQL."""

from __future__ import annotations

import glob
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from roblox_ml_core.package import Examples, Signature, TensorSpec, upload, write
from roblox_ml_core.registry import RegistryClient
from roblox_ml_core.settings import HomeSettings
from roblox_ml_core.storage import BlobStore

_SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("y", "FP32", (-1, 2)),))


class Plane:
    """One control-plane process."""

    def __init__(self, home: Path, port: int, environment: dict[str, str]) -> None:
        self.home, self.port = home, port
        self.environment = {**os.environ, "RML_HOME": str(home), "RML_CONTROL_PORT": str(port), **environment}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Plane:
        log = (self.home / f"control-{self.port}.log").open("ab")
        self.process = subprocess.Popen([sys.executable, "-m", "roblox_ml_platform"], env=self.environment, stderr=log)
        client = self.client()
        for _ in range(600):
            if client.ready():
                return self
            assert self.process.poll() is None, (self.home / f"control-{self.port}.log").read_text()
            time.sleep(0.1)
        raise AssertionError("the control plane did not become ready")

    def client(self, actor: str = "tester") -> RegistryClient:
        token = HomeSettings(home=self.home).ensure_token()
        return RegistryClient(f"http://127.0.0.1:{self.port}", token, actor=actor)

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()


@pytest.fixture
def planes(rml_home: Path, free_port: Callable[[], int]) -> Iterator[Callable[..., Plane]]:
    """A function that starts control planes; all of a test share one home and end with it."""
    started: list[Plane] = []

    def start(**environment: str) -> Plane:
        plane = Plane(rml_home, free_port(), {"RML_MLFLOW_ENABLED": "false", **environment})
        started.append(plane)
        return plane.start()

    yield start
    for plane in started:
        plane.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> dict[str, str]:
    """The environment that selects a database."""
    return {} if request.param == "sqlite" else {"RML_CONTROL_DATABASE_URL": request.getfixturevalue("postgres")()}


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], str]]:
    """A function that makes an empty database on a throw-away PostgreSQL and returns its URL."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))
    initdb = found[-1] if found else shutil.which("initdb")
    if initdb is None:
        pytest.skip("PostgreSQL is not installed (no initdb in /usr/lib/postgresql/*/bin or on the PATH)")
    bin_ = Path(initdb).resolve().parent
    # PostgreSQL refuses to run as root.
    user = None
    if os.geteuid() == 0:
        names = {entry.pw_name for entry in pwd.getpwall()}
        user = next((name for name in ("postgres", "nobody") if name in names), None)
        if user is None:
            pytest.skip("PostgreSQL does not run as root, and there is no other user to run it as")
    folder = Path(tempfile.mkdtemp(prefix="rml-pg-", dir="/tmp"))  # its parents must be open to that user
    if user is not None:
        shutil.chown(folder, user)
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def run(*command: str) -> None:
        done = subprocess.run(command, user=user, cwd=folder, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr

    data = folder / "data"
    try:
        run(str(bin_ / "initdb"), "-D", str(data), "-A", "trust", "-U", "rml", "--no-sync")
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=200"
        run(str(bin_ / "pg_ctl"), "-D", str(data), "-w", "-l", str(folder / "log"), "-o", options, "start")
        count = iter(range(1000))

        def fresh() -> str:
            name = f"rml{next(count)}"
            run(str(bin_ / "createdb"), "-h", "127.0.0.1", "-p", str(port), "-U", "rml", name)
            return f"postgresql://rml@127.0.0.1:{port}/{name}"

        yield fresh
        run(str(bin_ / "pg_ctl"), "-D", str(data), "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def package(tmp_path: Path, rml_home: Path) -> Callable[..., dict[str, Any]]:
    """A function that builds a small real package, stores its blobs and returns the body of its registration."""
    store = BlobStore(HomeSettings(home=rml_home).store_url)

    def build(factor: float, *, stored: bool = True, **fields: Any) -> dict[str, Any]:
        root = tmp_path / f"package-{factor}"
        if not root.exists():
            code = root / "model/code"
            code.mkdir(parents=True)
            (code / "scale.py").write_text(f"def predict(batch):\n    return {{'y': batch['x'] * {factor}}}\n")
            (root / "model/lock.txt").write_text("")
            examples = Examples.record(_SIGNATURE, {"x": [[1, 2]]}, {"y": [[factor, 2 * factor]]})
            options = {"entry": "scale:predict", "lock": ""}
            write(root, format="python", signature=_SIGNATURE, examples=examples, options=options, metrics={"f1": 0.8})
        from roblox_ml_core.package import manifest, read

        files = upload(root, store) if stored else manifest(root)
        return {"package": read(root).info, "manifest": files, "alias": "champion", **fields}

    return build
