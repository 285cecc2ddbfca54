"""One behaviour for every kind of store: a folder, a bucket, and the control plane in front of either.

The bucket is a real S3 server (versitygw) on this machine, the control plane a real process. What is asked of each: blobs
come back verified, both implementations (the SDK's, which travels into steps, and core's) read what the other wrote, and a
pipeline finds its code, its locks and its data there.
"""

from __future__ import annotations

import importlib.util
import lzma
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from roblox_ml_core import storage
from roblox_ml_core.errors import IntegrityError, NotFound
from roblox_ml_core.settings import HomeSettings
from roblox_ml_core.storage import BlobStore

import roblox_ml as rml
from roblox_ml import _store_remote
from roblox_ml._s3 import Bucket
from roblox_ml._store import BlobCorrupt, BlobMissing, Store, StoreError, digest_of, open_store

KINDS = ("folder", "s3", "http", "http-on-s3")
PIPELINE = """
import roblox_ml as rml

@rml.step
def count(texts: rml.Dataset) -> int:
    return sum(len(path.read_text().split()) for path in texts.path.rglob("*.txt"))

@rml.step
def double(number: int) -> int:
    return 2 * number

@rml.pipeline
def words():
    double(count(rml.dataset("texts")))
"""


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Iterator[dict[str, str]]:
    """A real S3 server with the bucket `models`; the variables that name it."""
    packed = shared / "kube" / "bin" / "versitygw.xz"
    if not packed.is_file():
        pytest.skip(f"no S3 server: {packed} is not there")
    folder = tmp_path_factory.mktemp("s3")
    program = folder / "versitygw"
    with lzma.open(packed) as source, program.open("wb") as sink:
        shutil.copyfileobj(source, sink, 1 << 20)
    program.chmod(0o755)
    (folder / "data" / "models").mkdir(parents=True)
    with (folder / "log").open("wb") as log:
        for port in range(19200, 19300):  # the server does not say which port it took, so it is told one
            command = [str(program), "--port", f"127.0.0.1:{port}", "--access", "tester", "--secret", "hush-hush"]
            process = subprocess.Popen([*command, "posix", str(folder / "data")], stdout=log, stderr=log)
            keys = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "hush-hush", "AWS_REGION": "us-east-1"}
            found = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", **keys}
            if _answers(process, found):
                break
            process.kill()
            process.wait()
        else:
            pytest.skip(f"versitygw does not start: {(folder / 'log').read_text()[-300:]}")
    yield found
    process.terminate()
    process.wait(10)


def _answers(process: subprocess.Popen[bytes], variables: dict[str, str]) -> bool:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        patch.delenv("AWS_SESSION_TOKEN", raising=False)
        for _ in range(100):
            if process.poll() is not None:
                return False
            try:
                return list(Bucket("models").listed()) == []
            except OSError:
                time.sleep(0.1)
    return False


@pytest.fixture(params=KINDS)
def store(
    request: pytest.FixtureRequest, rml_home: Path, monkeypatch: pytest.MonkeyPatch, free_port: Callable[[], int]
) -> Iterator[Store]:
    """An empty store of each kind, named by RML_STORE as a user would."""
    kind: str = request.param
    place = (rml_home / "blobs").as_uri()
    if kind.endswith("s3"):
        for name, value in request.getfixturevalue("s3_server").items():
            monkeypatch.setenv(name, value)
        place = f"s3://models/{request.node.name.replace('[', '-').rstrip(']')}"
    if not kind.startswith("http"):
        monkeypatch.setenv("RML_STORE", place)
        yield open_store()
        return
    port = free_port()
    # Steps read the environment and no file: so is a token for a store behind the control plane given to them.
    monkeypatch.setenv("RML_TOKEN", HomeSettings(home=rml_home).ensure_token())
    environment = {**os.environ, "RML_STORE": place, "RML_CONTROL_PORT": str(port), "RML_MLFLOW_ENABLED": "false"}
    with (rml_home / "plane.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "roblox_ml_platform"], env=environment, stdout=log, stderr=log
        )
    monkeypatch.setenv("RML_STORE", f"http://127.0.0.1:{port}/v1/store")
    while True:
        assert process.poll() is None, (rml_home / "plane.log").read_text()[-3000:]
        try:
            open_store().has("0" * 64)
            break
        except StoreError:
            time.sleep(0.1)
    yield open_store()
    process.terminate()
    process.wait(20)


@pytest.fixture
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.node.callspec.params["store"])


def core(store: Store) -> BlobStore:
    home = Path(os.environ["RML_HOME"])
    return BlobStore(store.url, token=(home / "token").read_text().strip() if store.url.startswith("http") else None)


def test_blobs_come_back_whole(store: Store, tmp_path: Path) -> None:
    for data in (b"", b"x", bytes(range(256)) * 5000):
        digest = store.put(data)
        assert digest == digest_of(data) == store.put(data)
        assert store.has(digest) and store.verify(digest) and store.get(digest) == data
        (tmp_path / "f").write_bytes(data)
        assert store.put_file(tmp_path / "f") == digest
        store.copy_to(digest, tmp_path / "deep" / "copy", link=True)
        assert (tmp_path / "deep" / "copy").read_bytes() == data


def test_what_is_not_there_is_said(store: Store, tmp_path: Path) -> None:
    assert not store.has("0" * 64) and not store.verify("0" * 64)
    with pytest.raises(BlobMissing, match="0" * 64):
        store.get("0" * 64)
    with pytest.raises(BlobMissing):
        store.copy_to("0" * 64, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    for bad in ("", "../../etc/passwd", "A" * 64):
        with pytest.raises(StoreError, match="no digest"):
            store.has(bad)


def test_a_file_in_parts_is_one_blob(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_store_remote, "_PARTS_ABOVE", 1 << 20)
    monkeypatch.setattr(_store_remote, "_PART", 5 << 20)
    data = os.urandom(11 << 20)
    (tmp_path / "big").write_bytes(data)
    digest = store.put_file(tmp_path / "big")
    assert digest == digest_of(data) and store.get(digest) == data and core(store).verify(digest)


def test_both_implementations_read_what_the_other_wrote(store: Store, tmp_path: Path) -> None:
    other = core(store)
    ours, theirs = store.put(b"from a step"), other.put(b"from the control plane")
    assert other.get(ours) == b"from a step" and store.get(theirs) == b"from the control plane"
    assert other.size(theirs) == 22 and other.put(b"from a step") == ours
    (tmp_path / "f").write_bytes(b"a file")
    other.get_file(other.put_file(tmp_path / "f"), tmp_path / "g")
    assert (tmp_path / "g").read_bytes() == b"a file"
    with pytest.raises(NotFound):
        other.get("1" * 64)


def test_listing_and_deleting_where_blobs_lie(store: Store, kind: str) -> None:
    if kind.startswith("http"):
        with pytest.raises(StoreError, match="HTTP"):
            list(store.digests())
        with pytest.raises(StoreError, match="deleted by the control plane"):
            store.delete(store.put(b"x"))
        return
    wanted = sorted((store.put(data), len(data)) for data in (b"one", b"three", b"seven!!"))
    assert list(store.digests()) == wanted
    assert [(digest, size) for digest, size, age in core(store).digests() if age < 3600] == wanted
    assert store.delete(wanted[0][0]) == wanted[0][1] and store.delete(wanted[0][0]) == 0
    assert core(store).delete(wanted[1][0]) and not core(store).delete(wanted[1][0])
    assert list(store.digests()) == wanted[2:]


def test_a_damaged_blob_is_refused_and_one_cut_short_is_healed(
    store: Store, kind: str, rml_home: Path, s3_server: dict[str, str]
) -> None:
    digest = store.put(b"right")

    def damage(data: bytes) -> None:
        if kind.endswith("s3"):
            key = f"{'/'.join(_place(kind, store, rml_home))}/sha256/{digest[:2]}/{digest}"
            Bucket("models").put(key, data, len(data), digest_of(data))
            return
        path = rml_home / "blobs" / "sha256" / digest[:2] / digest
        path.chmod(0o644)
        path.write_bytes(data)

    damage(b"wrong")
    assert not store.verify(digest)
    with pytest.raises(BlobCorrupt, match=digest):
        store.get(digest)
    with pytest.raises(IntegrityError):
        core(store).get(digest)
    damage(b"ri")
    if not kind.startswith("http"):  # the control plane's own store heals when it is written to
        store.put(b"right")
        assert store.get(digest) == b"right"


def _place(kind: str, store: Store, home: Path) -> list[str]:
    """The prefix in the bucket: the test's name, as the fixture chose it."""
    if kind == "s3":
        return [store.url.rpartition("/")[2]]
    (found,) = {
        key.split("/")[0] for key, _ in Bucket("models").listed() if key.startswith("test_a_damaged") and "http" in key
    }
    return [found]


def test_a_pipeline_finds_code_and_data_there(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = _module(tmp_path / "wordy.py")
    monkeypatch.setitem(sys.modules, "wordy", module)
    rml.datasets.add("texts", {"a.txt": b"one two", "deep/b.txt": b"three"})
    run = module.words.run(cache=False, progress=False)
    assert run.outputs["double"] == 6
    assert (rml.dataset("texts").path / "deep" / "b.txt").read_text() == "three"
    # Nothing fell back to the home's own folder.
    assert not list((Path(os.environ["RML_HOME"]) / "store").glob("sha256/*/*"))


def _module(path: Path) -> ModuleType:
    path.write_text(PIPELINE)
    spec = importlib.util.spec_from_file_location("wordy", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["wordy"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("writer", ["sdk", "core"])
def test_an_old_blob_that_is_wanted_again_is_young_again(
    s3_server: dict[str, str], monkeypatch: pytest.MonkeyPatch, writer: str
) -> None:
    for name, value in s3_server.items():
        monkeypatch.setenv(name, value)
    store = Store(f"s3://models/ages-{writer}")
    digest = store.put(b"kept")
    key = f"sha256/{digest[:2]}/{digest}"
    bucket: Any = Bucket("models", f"ages-{writer}")
    before = bucket.head(key)[1]
    time.sleep(1.1)
    put = store.put if writer == "sdk" else core(store).put
    put(b"kept")
    assert bucket.head(key)[1] == before  # nothing is sent twice within the hour
    monkeypatch.setattr(_store_remote, "_YOUNG", 0.0)
    monkeypatch.setattr(storage, "_YOUNG", 0.0)
    put(b"kept")
    assert bucket.head(key)[1] > before and store.get(digest) == b"kept"
