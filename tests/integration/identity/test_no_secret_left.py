"""After a run nothing it left holds a secret: not its record, logs, IR, bundles, locks, the databases, or a process list.

A real control plane, a real MLflow and `rml run` in processes of their own, with secrets of every kind about; then every file of
both homes is read, archives member by member, for the secret as it is and as it is usually encoded.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import sqlite3
import subprocess
import sys
import threading
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from roblox_ml_core.registry import RegistryClient

from ..control_plane.conftest import Plane  # type: ignore[import-not-found,unused-ignore]
from ..control_plane.test_mlflow import Server, mlflow_server  # type: ignore[import-not-found,unused-ignore]  # noqa: F401

PIPELINE = """
import hashlib
import json
import os

import roblox_ml as rml

SIGNATURE = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
}


@rml.step(secrets=[rml.secret("hub", key="token", env="HUB_TOKEN"), rml.secret("lake", key="key", env="LAKE_KEY")])
def fetch() -> str:
    print("fetching with the hub's token")
    return hashlib.sha256((os.environ["HUB_TOKEN"] + os.environ["LAKE_KEY"]).encode()).hexdigest()


@rml.step
def train(seen: str) -> rml.Model:
    model = rml.Model()
    assert "HUB_TOKEN" not in os.environ, "a step that did not ask for it"
    files = {}
    for name, text in {"signature.json": json.dumps(SIGNATURE), "model/code/m.py": "# " + seen}.items():
        target = model.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        files[name] = {"sha256": hashlib.sha256(text.encode()).hexdigest(), "size": len(text)}
    info = {"schema": 1, "format": "python", "files": files, "labels": None, "options": {"entry": "m:predict"}}
    (model.path / "package.json").write_text(json.dumps(info, sort_keys=True, separators=(",", ":")))
    return model


@rml.step(secrets=[rml.secret("hub", key="token", env="HUB_TOKEN")])
def breaks(model: rml.Model) -> int:
    raise RuntimeError("the hub does not answer")


@rml.pipeline
def nightly():
    model = train(fetch())
    rml.register(model, name="scale")
    breaks(model)
"""


def _canary(name: str) -> str:
    return f"canary-{name}-{os.urandom(12).hex()}"


def _forms(secret: str) -> set[bytes]:
    """As it is, and as it lies in a header, an address, or an archive's text."""
    raw = secret.encode()
    plain = {raw, quote(secret, safe="").encode(), raw.hex().encode(), base64.b64encode(b":" + raw).rstrip(b"=")[4:]}
    # A secret inside longer base64 begins at one of three places.
    inside = {base64.b64encode(b"x" * shift + raw)[4:-4] for shift in range(3)}
    return {form for form in plain | inside if len(form) >= 16}


def _contents(path: Path) -> Iterator[tuple[str, bytes]]:
    data = path.read_bytes()
    yield str(path), data
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                yield f"{path}!{name}", archive.read(name)
    if data[:2] in (b"\x1f\x8b", b"\x78\x9c"):
        yield f"{path}!", zlib.decompressobj(47).decompress(data)


def _found(folders: list[Path], secrets: dict[str, str], allowed: dict[Path, set[str]]) -> list[str]:
    hits = []
    for folder in folders:
        for path in sorted(one for one in folder.rglob("*") if one.is_file() and not one.is_symlink()):
            for where, data in _contents(path):
                for name, secret in secrets.items():
                    if name not in allowed.get(path, set()) and any(form in data for form in _forms(secret)):
                        hits.append(f"{name} in {where}")
    return hits


class _ProcessList:
    """Reads every command line of this machine over and over while a run goes on."""

    def __init__(self, secrets: dict[str, str]) -> None:
        self._secrets, self._stop = secrets, threading.Event()
        self.hits: set[str] = set()
        self.looks = 0
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> _ProcessList:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self.looks += 1
            for entry in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    line = entry.read_bytes()
                except OSError:
                    continue
                self.hits |= {f"{name} in {entry}" for name, value in self._secrets.items() if value.encode() in line}


@pytest.mark.slow
def test_a_run_leaves_no_secret_behind(
    tmp_path: Path,
    rml_home: Path,
    free_port: Callable[[], int],
    mlflow_server: Server,  # noqa: F811 - the fixture
) -> None:
    mlflow_server.start()
    server_home = tmp_path / "server"
    server_home.mkdir()
    store = (server_home / "store").as_uri()
    plane = Plane(server_home, free_port(), {"RML_MLFLOW_URL": mlflow_server.url, "RML_STORE": store})
    plane.start()
    try:
        url = f"http://127.0.0.1:{plane.port}"
        home_token = (server_home / "token").read_text().strip()
        with RegistryClient(url, home_token) as admin:
            admin.call("PUT", "/v1/teams/safety")
            owner = "service:safety/nightly"
            admin.call("POST", "/v1/grants", {"principal": owner, "scope": "team:safety", "role": "promote"})
            made = admin.call(
                "POST", "/v1/tokens", {"name": "n", "role": "promote", "scope": "team:safety", "owner": owner}
            )
        secrets = {
            "the service token": made["token"], "the server's own token": home_token, "hub": _canary("hub"),
            "lake": _canary("lake"), "index": _canary("index"), "login": _canary("login"), "refresh": _canary("refresh"),
        }  # fmt: skip
        (rml_home / "secrets" / "hub").mkdir(parents=True)
        (rml_home / "secrets" / "hub" / "token").write_text(secrets["hub"] + "\n")
        (rml_home / "secrets" / "hub" / "token").chmod(0o600)
        entry = {"kind": "oidc", "token": secrets["login"], "refresh_token": secrets["refresh"], "principal": "x"}
        kept = rml_home / "credentials.json"
        kept.write_text(json.dumps({"schema": 1, "origins": {"https://ml.example.org:443": entry}}))
        kept.chmod(0o600)
        work = tmp_path / "work"
        work.mkdir()
        (work / "nightly.py").write_text(PIPELINE)
        index = f"http://robot:{secrets['index']}@127.0.0.1:9/simple"
        environment = {
            **os.environ, "RML_TOKEN": made["token"], "LAKE_KEY": secrets["lake"], "RML_CONTROL_URL": url,
            "UV_INDEX_URL": index, "UV_DEFAULT_INDEX": index, "PIP_INDEX_URL": index,
        }  # fmt: skip

        def rml(*arguments: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "roblox_ml.cli", *arguments]
            return subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, timeout=240)

        with _ProcessList(secrets) as processes:
            done = rml("run", "nightly.py:nightly")
            compiled = rml("compile", "nightly.py:nightly", "-o", "nightly.yaml")
        (work / "said.txt").write_text(done.stdout + done.stderr + compiled.stdout + compiled.stderr)
        # The run did what it was to do: the secrets arrived, the model was registered by the token's owner, a step failed.
        assert done.returncode == 1 and "the hub does not answer" in done.stdout + done.stderr, (
            done.stdout + done.stderr
        )
        assert compiled.returncode == 0, compiled.stderr
        with RegistryClient(url, home_token) as admin:
            version = admin.version("scale", 1)
            seen = hashlib.sha256((secrets["hub"] + secrets["lake"]).encode()).hexdigest()
            assert version["created_by"].startswith("service:safety/nightly#rml_")
            assert version["manifest"]["model/code/m.py"]["sha256"] == hashlib.sha256(f"# {seen}".encode()).hexdigest()
            assert admin.call("GET", "/v1/models/scale")["team"] == "safety"
            for _ in range(200):
                if admin.call("GET", "/v1/models/scale")["mlflow"].get("in_sync"):
                    break
                threading.Event().wait(0.1)
            else:
                pytest.fail("MLflow never heard of the model")
        # A token in an address is refused, and what is kept of that attempt is not the token.
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(f"{url}/v1/models?access_token={made['token']}", timeout=10)
        assert processes.looks > 20 and not processes.hits
    finally:
        plane.stop()
        mlflow_server.stop()
    for database in (server_home / "control.db", tmp_path / "mlflow" / "mlflow.db"):
        with sqlite3.connect(database) as connection:
            connection.execute("pragma wal_checkpoint(truncate)")
    folders = [rml_home, server_home, work, tmp_path / "mlflow"]
    allowed = {
        rml_home / "secrets" / "hub" / "token": {"hub"},
        kept: {"login", "refresh"},
        server_home / "token": {"the server's own token"},
    }
    assert _found(folders, secrets, allowed) == []
    # The search does find: what may hold them does, and the digest of a token is where a token would be.
    assert {name for name in secrets if any(f"{name} in" in hit for hit in _found(folders, secrets, {}))} == {
        "hub", "login", "refresh", "the server's own token",
    }  # fmt: skip
    assert hashlib.sha256(made["token"].encode()).hexdigest().encode() in (server_home / "control.db").read_bytes()
    bundle = next(path for path in (rml_home / "store").rglob("*") if path.is_file() and zipfile.is_zipfile(path))
    with zipfile.ZipFile(bundle, "a") as archive:
        archive.writestr("leak.py", " " * 500 + f"TOKEN = {secrets['lake']!r}", zipfile.ZIP_DEFLATED)
    assert _found([rml_home], secrets, allowed) == [f"lake in {bundle}!leak.py"]
