"""The system steps: data sets from the store, models to a control plane that answers as the real one does."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

import roblox_ml as rml
from roblox_ml._runtime import system
from roblox_ml._store import BlobCorrupt, open_store
from roblox_ml.errors import Conflict, DatasetError, NotRunning, PackageError


def canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def stored(files: dict[str, bytes]) -> str:
    store = open_store()
    entries = {name: {"sha256": store.put(data), "size": len(data)} for name, data in files.items()}
    return store.put(canonical({"files": entries}))


def test_a_dataset_comes_from_the_store() -> None:
    digest = stored({"a.txt": b"a", "deep/b.bin": bytes(1000)})
    found = system.load_dataset("comments", 2, digest)
    assert (found.path / "deep" / "b.bin").read_bytes() == bytes(1000)
    assert found.metadata["version"] == 2 and found.metadata["rml.data"] == [f"comments/2@{digest}"]


def test_a_damaged_file_is_refused() -> None:
    digest = stored({"a.txt": b"good"})
    path = open_store().path_of(hashlib.sha256(b"good").hexdigest())
    path.chmod(0o644)
    path.write_bytes(b"evil")
    with pytest.raises(BlobCorrupt):
        system.load_dataset("comments", 1, digest)


def test_a_manifest_that_leaves_the_folder_is_refused() -> None:
    digest = stored({"../evil": b"x"})
    with pytest.raises(DatasetError, match="leaves its folder"):
        system.load_dataset("comments", 1, digest)


class Plane(BaseHTTPRequestHandler):
    blobs: dict[str, bytes]
    bodies: list[Any]
    actors: list[str]
    answer: tuple[int, Any]

    def log_message(self, *_: Any) -> None: ...

    def reply(self, status: int, body: Any = None) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def do_HEAD(self) -> None:
        self.reply(200 if self.path.rpartition("/")[2] in self.blobs else 404)

    def do_PUT(self) -> None:
        self.blobs[self.path.rpartition("/")[2]] = self.rfile.read(int(self.headers["Content-Length"]))
        self.reply(201)

    def do_POST(self) -> None:
        self.actors.append(self.headers["x-rml-actor"])
        self.bodies.append(
            (self.path, self.headers["Authorization"], json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        )
        self.reply(*self.answer)


@pytest.fixture
def plane(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Plane]]:
    alias = {"name": "champion", "moved": True, "version": 3}
    answer = {
        "name": "m",
        "version": 3,
        "digest": "d" * 64,
        "created": True,
        "gate": {"passed": True, "findings": []},
        "alias": alias,
    }
    handler = type("Handler", (Plane,), {"blobs": {}, "bodies": [], "actors": [], "answer": (201, answer)})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("RML_CONTROL_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("RML_TOKEN", "secret")
    yield handler
    server.shutdown()
    thread.join()
    server.server_close()


def package() -> rml.Model:
    model = rml.Model(metadata={"rml.run": "r-1", "rml.step": "train", "rml.code": "c", "rml.data": ["comments/1@d"]})
    for name, value in {
        "package.json": {"schema": 1},
        "signature.json": {"inputs": []},
        "metrics.json": {"f1": 0.5},
    }.items():
        (model.path / name).write_text(json.dumps(value))
    (model.path / "model").mkdir()
    (model.path / "model" / "weights").write_bytes(b"weights")
    return model


def test_registering_uploads_what_is_missing_and_tells_the_lineage(
    plane: type[Plane], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RML_GIT", '{"commit": "abc", "dirty": false}')
    monkeypatch.setenv("RML_ACTOR", "ada@lab")
    weights = hashlib.sha256(b"weights").hexdigest()
    plane.blobs[weights] = b"already here"
    done = system.register(
        package(), "m", {"f1": {"min": 0.4}}, {"team": "x"}, "champion", rml.Metrics(f1=0.75, note="no")
    )
    assert done == (3, "d" * 64, True)
    path, token, body = plane.bodies[0]
    assert (path, token) == ("/v1/models/m/versions", "Bearer secret")
    assert plane.actors == ["ada%40lab"], "the registry's histories name somebody"
    assert body["metrics"] == {"f1": 0.75} and body["gate"] == {"f1": {"min": 0.4}} and body["tags"] == {"team": "x"}
    assert body["package"] == {"schema": 1} and body["manifest"]["model/weights"] == {"sha256": weights, "size": 7}
    lineage = body["lineage"]
    assert (lineage["kind"], lineage["run"], lineage["step"], lineage["git"]["commit"]) == (
        "pipeline",
        "r-1",
        "train",
        "abc",
    )
    assert lineage["data"] == ["comments/1@d"]
    assert plane.blobs[weights] == b"already here" and len(plane.blobs) == 4


def test_a_refusal_keeps_the_control_planes_words(plane: type[Plane]) -> None:
    plane.answer = (409, {"error": {"code": "missing-blobs", "message": "2 blobs are missing", "hint": "upload them"}})
    with pytest.raises(Conflict, match="2 blobs are missing") as caught:
        system.register(package(), "m")
    assert caught.value.fix == "upload them" and caught.value.code == "missing-blobs"


def test_no_control_plane_says_what_to_start(free_port: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RML_CONTROL_URL", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(NotRunning, match="rml up"):
        system.register(package(), "m")


def test_an_artifact_without_a_package_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="from_transformers"):
        system.register(rml.Model(tmp_path), "m")
